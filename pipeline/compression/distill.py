"""Recovery by a teacher: a smaller net learns from the soft targets of a larger one.

Shapes: N samples, B of one batch, K classes.
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


@dataclass(frozen=True)
class Recovery:
    """Both ways to recover, from the same weights with the same settings; accuracies in percent."""

    distilled_net: nn.Module
    fine_tuned_net: nn.Module
    distilled: loop.Fit
    fine_tuned: loop.Fit

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
        """Validation accuracy of distillation minus that of plain fine-tuning, in points."""
        return self.distilled.best.validation_accuracy - self.fine_tuned.best.validation_accuracy


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
    teacher_outputs: NDArray[np.float32],
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Distill,
    on_epoch: Callable[[loop.Epoch], None] | None = None,
) -> loop.Fit:
    """Train the student, in place, on the teacher's logits [N, K] of train and on the labels.

    The logits are computed once, which is exact as long as train is not augmented. The student
    keeps the weights that were best on validation and is left in eval mode.
    """
    targets = torch.tensor(teacher_outputs)
    assert len(targets) == len(train.labels)

    def loss(outputs: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return soft_target_loss(
            outputs,
            targets[indices],
            labels,
            temperature=cfg.temperature,
            alpha=cfg.alpha,
            label_smoothing=cfg.label_smoothing,
        )

    return loop.fit(student, train, validation, cfg, cfg.seed, loss=loss, on_epoch=on_epoch)


def recover(
    make_student: Callable[[], nn.Module],
    teacher_outputs: NDArray[np.float32],
    train: loop.Tensors,
    validation: loop.Tensors,
    cfg: params.Distill,
    on_epoch: Callable[[loop.Epoch], None] | None = None,
) -> Recovery:
    """Distill, and fine-tune without the teacher (alpha 0), so that the two can be compared.

    ``make_student`` gives the same fresh student at every call.
    """
    student, plain = make_student(), make_student()
    distilled = distill(student, teacher_outputs, train, validation, cfg, on_epoch)
    alone = msgspec.structs.replace(cfg, alpha=0.0)
    fine_tuned = distill(plain, teacher_outputs, train, validation, alone, on_epoch)
    return Recovery(student, plain, distilled, fine_tuned)
