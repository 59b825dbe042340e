"""The training loop: one process, on the CPU, the same bytes from the same seed.

Shapes: N samples, B of one batch, K values of an output (classes, where the task has them).
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.data import splits
from pipeline.errors import TrainingError
from pipeline.training import augmentation
from pipeline.training.augmentation import Augment
from pipeline.training.objective import CLASSIFICATION, Batch, Loss, Objective
from pipeline.training.schedule import learning_rate_factor
from pipeline.training.streaming import Inputs, Streamed

# Sums over a batch are split by thread, so another number of threads gives other weights (seen with
# torch 2.13 on 1, 2 and 4). One thread is the number that every machine has.
NUM_THREADS = 1
MOMENTUM = 0.9
IN_MEMORY_BYTES = 512 << 20  # of one split's tensors; more are preprocessed batch by batch
EVALUATION_BATCH = 64  # fixed, because kernels may round differently in batches of another size


@dataclass(frozen=True, eq=False)
class Tensors:
    """Preprocessed ``inputs`` float32 [N, ...] and ``labels``: int64 [N], or float32 [N, K].

    Many inputs are preprocessed batch by batch, few are in memory; both give the same bits.
    """

    inputs: Inputs
    labels: torch.Tensor

    @classmethod
    def of(cls, inputs: NDArray[np.float32], labels: NDArray[Any]) -> "Tensors":
        """Copy arrays of the same length into tensors; values to regress to become float32."""
        return cls(torch.tensor(inputs), _labels(labels))

    @classmethod
    def of_split(cls, split: splits.Split, in_memory_bytes: int = IN_MEMORY_BYTES) -> "Tensors":
        """Preprocess a split, at once if that takes no more memory than allowed."""
        streamed = Streamed(split)
        if math.prod(streamed.shape) * np.dtype(np.float32).itemsize > in_memory_bytes:
            return cls(streamed, _labels(split.labels))
        return cls.of(split.tensors(), split.labels)

    @classmethod
    def read(cls, path: Path) -> "Tensors":
        """Read one split's file and preprocess it, as `of_split`."""
        return cls.of_split(splits.read(path))

    def select(self, chosen: torch.Tensor) -> "Tensors":
        """Keep those samples for which ``chosen`` [N] is true."""
        inputs = self.inputs
        kept = inputs.select(chosen) if isinstance(inputs, Streamed) else inputs[chosen]
        return Tensors(kept, self.labels[chosen])


def _labels(labels: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(labels if labels.dtype.kind in "iu" else labels.astype(np.float32))


@dataclass(frozen=True)
class Epoch:
    """One pass over train, counted from 1; ``quality`` is the task's metric on validation."""

    epoch: int
    loss: float
    validation_loss: float
    quality: float
    learning_rate: float


@dataclass(frozen=True)
class Fit:
    """What happened; the net holds the weights of ``best_epoch``."""

    epochs: tuple[Epoch, ...]
    best_epoch: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.epochs[self.best_epoch - 1]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``quality`` by the task's metric, mean ``loss`` a sample, ``outputs`` [N, K]."""

    quality: float
    loss: float
    outputs: NDArray[np.float32]


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make torch repeat itself inside the block, and put its global state back after it.

    Seeds the global generator (initial weights, dropout), refuses kernels without a deterministic
    form, and computes on NUM_THREADS. Equal bytes are promised on one kind of CPU with one torch.
    """
    strict, num_threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(NUM_THREADS)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(num_threads)


def fit(
    net: nn.Module,
    train: Tensors,
    validation: Tensors,
    settings: params.Training,
    seed: int,
    *,
    objective: Objective = CLASSIFICATION,
    loss: Loss | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fit:
    """Train the net in place; leave it in eval mode with the weights that were best on validation.

    Best is by the task's metric on validation, then the lowest validation loss, then the earliest.
    It stops after ``settings.patience`` epochs without a better one. Every epoch sees all of train,
    in batches whose sizes differ by at most one.

    Args:
        net: maps [B, ...] to outputs [B, K].
        train: what is learned from, as `learnable` gives it.
        validation: what chooses the epoch.
        settings: optimizer, schedule and length; ``learning_rate`` is the peak.
        seed: of the order of samples, of their augmentation and of the net's own noise (dropout).
        objective: of the task.
        loss: ``(outputs [B, K], batch) -> scalar``; None is the objective's own with
            ``settings.label_smoothing``.
        on_epoch: called after each epoch.

    Raises:
        TrainingError: the loss is NaN or inf.
    """
    step_loss = loss or functools.partial(objective.loss, label_smoothing=settings.label_smoothing)
    num_steps = math.ceil(len(train.labels) / settings.global_batch_size)
    optimizer = _optimizer(net, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, num_steps * settings.epochs, settings.warmup_ratio),
    )
    epochs: list[Epoch] = []
    best: tuple[Epoch, dict[str, torch.Tensor]] | None = None
    with deterministic(seed):
        order, noise = (torch.Generator().manual_seed(seed) for _ in range(2))
        change = augmentation.of(settings.augmentation, noise)
        for number in range(1, settings.epochs + 1):
            rate = float(optimizer.param_groups[0]["lr"])
            mean_loss = _epoch(net, train, num_steps, order, change, step_loss, optimizer, schedule)
            found = evaluate(net, validation, objective)
            epoch = Epoch(number, mean_loss, found.loss, found.quality, rate)
            _check_finite(epoch, settings)
            epochs.append(epoch)
            if on_epoch:
                on_epoch(epoch)
            if best is None or _rank(epoch, objective) > _rank(best[0], objective):
                best = epoch, {name: value.clone() for name, value in net.state_dict().items()}
            if number - best[0].epoch >= settings.patience:
                break
    assert best is not None  # params asks for at least one epoch
    net.load_state_dict(best[1])
    net.eval()
    return Fit(tuple(epochs), best[0].epoch)


def learnable(train: Tensors, objective: Objective) -> Tensors:
    """Keep what the task learns from: all of train, or its normal samples."""
    chosen = objective.learns_from(train.labels)
    return train if bool(chosen.all()) else train.select(chosen)


def evaluate(net: nn.Module, tensors: Tensors, objective: Objective = CLASSIFICATION) -> Evaluation:
    """Run the net in eval mode over all samples; its mode is put back.

    The loss is over what the task learns from, the quality over all.
    """
    found = outputs(net, tensors.inputs)
    chosen = objective.learns_from(tensors.labels)
    kept = learnable(tensors, objective)
    # inputs are judged where the net is to give them back, and are as large as what it gives
    inputs = kept.inputs[:] if objective.kind == "anomaly" else kept.inputs[:0]
    batch = Batch(inputs, kept.labels, chosen.nonzero().flatten())
    loss = objective.loss(found[chosen], batch).item()
    quality = objective.quality(found.numpy(), tensors.inputs, tensors.labels.numpy())
    return Evaluation(quality, loss, found.numpy())


def outputs(net: nn.Module, inputs: Inputs) -> torch.Tensor:
    """Run the net in eval mode over samples [N, ...]; its mode is put back."""
    training = net.training
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(batch) for batch in batches(inputs)])
    net.train(training)
    return found


def batches(samples: Inputs) -> Iterator[torch.Tensor]:
    """Cut [N, ...] into pieces of EVALUATION_BATCH for passes that do not learn."""
    for start in range(0, len(samples), EVALUATION_BATCH):
        yield samples[start : start + EVALUATION_BATCH]


def _optimizer(net: nn.Module, settings: params.Training) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), **shared)
    return torch.optim.SGD(net.parameters(), momentum=MOMENTUM, nesterov=True, **shared)


def _epoch(
    net: nn.Module,
    train: Tensors,
    num_steps: int,
    order: torch.Generator,
    change: Augment,
    step_loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Make one pass in a fresh order; return the mean loss a sample. NaN or inf ends it early."""
    net.train()
    total = 0.0
    for indices in torch.randperm(len(train.labels), generator=order).tensor_split(num_steps):
        optimizer.zero_grad()
        batch = Batch(change(train.inputs[indices]), train.labels[indices], indices)
        loss = step_loss(net(batch.inputs), batch)
        total += loss.item() * len(indices)
        if not math.isfinite(total):
            break
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return total / len(train.labels)


def _rank(epoch: Epoch, objective: Objective) -> tuple[float, float]:
    return objective.rank(epoch.quality), -epoch.validation_loss


def _check_finite(epoch: Epoch, settings: params.Training) -> None:
    for where, loss in (("training", epoch.loss), ("validation", epoch.validation_loss)):
        if not math.isfinite(loss):
            raise TrainingError(
                f"{where} loss is {loss:g} in epoch {epoch.epoch} of {settings.epochs}; "
                f"lower learning_rate (now {settings.learning_rate:g}) or raise warmup_ratio "
                f"(now {settings.warmup_ratio:g})"
            )
