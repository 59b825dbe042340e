"""Recovery by a teacher: a smaller net learns from the soft targets of a larger one.

Shapes: N samples, B of one batch, K values of an output (classes, where the task has them).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.training import loop
from pipeline.training.objective import CLASSIFICATION, Batch, Objective, squared_errors

Teacher = Callable[[Batch], torch.Tensor]  # gives its outputs [B, K] for a batch of train


@dataclass(frozen=True)
class Recovery:
    """Both ways to recover, from the same weights with the same settings."""

    distilled_net: nn.Module
    fine_tuned_net: nn.Module
    distilled: loop.Fit
    fine_tuned: loop.Fit
    objective: Objective = CLASSIFICATION

    @property
    def winner(self) -> Literal["distilled", "fine_tuned"]:
        """Name what is better on validation; a tie goes to distillation."""
        return "fine_tuned" if self.difference < 0 else "distilled"

    @property
    def net(self) -> nn.Module:
        """Return the winner."""
        return self.fine_tuned_net if self.winner == "fine_tuned" else self.distilled_net

    @property
    def difference(self) -> float:
        """How much better distillation is on validation than plain fine-tuning, in the metric."""
        rank = self.objective.rank
        return rank(self.distilled.best.quality) - rank(self.fine_tuned.best.quality)


def remembering(outputs: NDArray[np.float32]) -> Teacher:
    """Return a teacher that ran once over train [N, K]: exact as long as it is not augmented."""
    remembered = torch.tensor(outputs)
    return lambda batch: remembered[batch.indices]


def watching(net: nn.Module) -> Teacher:
    """Return a teacher that sees each batch as the student does; its net is put in eval mode."""
    net.eval()

    def outputs(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = net(batch.inputs)
        return found

    return outputs


def teaching(net: nn.Module, train: loop.Tensors, cfg: params.Distill | params.Qat) -> Teacher:
    """Run the teacher over train once, or anew on each batch where samples change."""
    if cfg.augmentation is not None:
        return watching(net)
    return remembering(loop.outputs(net, train.inputs).numpy())


def loss_of(
    cfg: params.Distill | params.Qat, teacher: Teacher, objective: Objective
) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """Return the loss of learning from the teacher and from the labels.

    Classes: `soft_target_loss`. Otherwise ``alpha`` times the mean squared difference from the
    teacher's outputs and 1 - alpha times the objective's own loss; there is no temperature.
    """

    def of_classes(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return soft_target_loss(
            outputs,
            teacher(batch),
            batch.labels,
            temperature=cfg.temperature,
            alpha=cfg.alpha,
            label_smoothing=cfg.label_smoothing,
        )

    def of_values(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        own = objective.loss(outputs, batch)
        if cfg.alpha == 0:
            return own
        return cfg.alpha * squared_errors(outputs, teacher(batch)).mean() + (1 - cfg.alpha) * own

    return of_classes if objective.has_classes else of_values


def soft_target_loss(
    outputs: torch.Tensor,
    teacher_outputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return ``alpha T^2 KL(teacher || student) + (1 - alpha) CE``, in nats, mean over the batch.

    Hinton et al. 2015 (arXiv:1503.02531, section 2): both distributions of the first term are
    softened by the temperature T, and T^2 keeps its gradient of the size of the second's. With
    alpha 0 it is plain cross entropy.

    Args:
        outputs: the student's logits [B, K].
        teacher_outputs: the teacher's logits [B, K].
        labels: true classes [B].
        temperature: T, above 0.
        alpha: weight of the teacher, 0 to 1.
        label_smoothing: of the cross entropy.
    """
    soft = F.kl_div(
        F.log_softmax(outputs / temperature, dim=1),
        F.log_softmax(teacher_outputs / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(outputs, labels, label_smoothing=label_smoothing)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def distill(
    student: nn.Module,
    teacher: Teacher,
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Distill,
    on_epoch: Callable[[loop.Epoch], None] | None = None,
    objective: Objective = CLASSIFICATION,
) -> loop.Fit:
    """Train the student, in place, on the teacher's outputs for train and on the labels.

    The student keeps the weights that were best on validation and is left in eval mode.
    """
    loss = loss_of(cfg, teacher, objective)
    return loop.fit(
        student,
        train,
        validation,
        cfg,
        cfg.seed,
        objective=objective,
        loss=loss,
        on_epoch=on_epoch,
    )


def recover(
    make_student: Callable[[], nn.Module],
    teacher: Teacher,
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Distill,
    on_epoch: Callable[[loop.Epoch], None] | None = None,
    objective: Objective = CLASSIFICATION,
) -> Recovery:
    """Distill, and fine-tune without the teacher (alpha 0), so that the two can be compared.

    ``make_student`` gives the same fresh student at every call.
    """
    student, plain = make_student(), make_student()
    distilled = distill(student, teacher, train, validation, cfg, on_epoch, objective)
    alone = msgspec.structs.replace(cfg, alpha=0.0)
    fine_tuned = distill(plain, teacher, train, validation, alone, on_epoch, objective)
    return Recovery(student, plain, distilled, fine_tuned, objective)
