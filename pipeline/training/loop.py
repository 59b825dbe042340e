"""The training loop: one process, on the CPU, the same bytes from the same seed.

Shapes: N samples, B of one batch, K classes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.data import splits
from pipeline.errors import TrainingError
from pipeline.training.schedule import learning_rate_factor

# Sums over a batch are split by thread, so another number of threads gives other weights (seen with
# torch 2.13 on 1, 2 and 4). One thread is the number that every machine has.
NUM_THREADS = 1
MOMENTUM = 0.9
EVALUATION_BATCH = 64  # fixed, because kernels may round differently in batches of another size

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Tensors:
    """Preprocessed ``inputs`` float32 [N, ...] and ``labels`` int64 [N]."""

    inputs: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> "Tensors":
        """Copy arrays of the same length into tensors."""
        return cls(torch.tensor(inputs), torch.tensor(labels))

    @classmethod
    def read(cls, path: Path) -> "Tensors":
        """Read one split's file and preprocess it."""
        split = splits.read(path)
        return cls.of(split.tensors(), split.labels)


@dataclass(frozen=True)
class Epoch:
    """One pass over train, counted from 1; accuracy in percent, losses in nats a sample."""

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float
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
    """``accuracy`` in percent, mean cross entropy ``loss`` in nats, ``outputs`` [N, K]."""

    accuracy: float
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
    loss: Loss | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fit:
    """Train the net in place; leave it in eval mode with the weights that were best on validation.

    Best is the highest validation accuracy, then the lowest validation loss, then the earliest. It
    stops after ``settings.patience`` epochs without a better one. Every epoch sees all of train, in
    batches whose sizes differ by at most one.

    Args:
        net: maps [B, ...] to logits [B, K].
        train: what is learned from.
        validation: what chooses the epoch.
        settings: optimizer, schedule and length; ``learning_rate`` is the peak.
        seed: of the order of samples and of the net's own noise (dropout).
        loss: ``(outputs [B, K], labels [B], indices [B] into train) -> scalar``; None is cross
            entropy with ``settings.label_smoothing``.
        on_epoch: called after each epoch.

    Raises:
        TrainingError: the loss is NaN or inf.
    """
    step_loss = loss or cross_entropy(settings.label_smoothing)
    num_steps = math.ceil(len(train.labels) / settings.global_batch_size)
    optimizer = _optimizer(net, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, num_steps * settings.epochs, settings.warmup_ratio),
    )
    epochs: list[Epoch] = []
    best: tuple[Epoch, dict[str, torch.Tensor]] | None = None
    with deterministic(seed):
        order = torch.Generator().manual_seed(seed)
        for number in range(1, settings.epochs + 1):
            rate = float(optimizer.param_groups[0]["lr"])
            mean_loss = _epoch(net, train, num_steps, order, step_loss, optimizer, schedule)
            found = evaluate(net, validation)
            epoch = Epoch(number, mean_loss, found.loss, found.accuracy, rate)
            _check_finite(epoch, settings)
            epochs.append(epoch)
            if on_epoch:
                on_epoch(epoch)
            if best is None or _rank(epoch) > _rank(best[0]):
                best = epoch, {name: value.clone() for name, value in net.state_dict().items()}
            if number - best[0].epoch >= settings.patience:
                break
    assert best is not None  # params asks for at least one epoch
    net.load_state_dict(best[1])
    net.eval()
    return Fit(tuple(epochs), best[0].epoch)


def cross_entropy(label_smoothing: float) -> Loss:
    """Return the plain loss: mean cross entropy in nats against smoothed labels."""

    def loss(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, labels, label_smoothing=label_smoothing)

    return loss


def evaluate(net: nn.Module, tensors: Tensors) -> Evaluation:
    """Run the net in eval mode over all samples; its mode is put back."""
    training = net.training
    net.eval()
    with torch.no_grad():
        outputs = torch.cat([net(batch) for batch in batches(tensors.inputs)])
        loss = F.cross_entropy(outputs, tensors.labels).item()
    net.train(training)
    num_correct = int((outputs.argmax(1) == tensors.labels).sum())
    return Evaluation(100 * num_correct / len(tensors.labels), loss, outputs.numpy())


def batches(samples: torch.Tensor) -> list[torch.Tensor]:
    """Cut [N, ...] into pieces of EVALUATION_BATCH for passes that do not learn."""
    starts = range(0, len(samples), EVALUATION_BATCH)
    return [samples[start : start + EVALUATION_BATCH] for start in starts]


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
    step_loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Make one pass in a fresh order; return the mean loss a sample. NaN or inf ends it early."""
    net.train()
    total = 0.0
    for indices in torch.randperm(len(train.labels), generator=order).tensor_split(num_steps):
        optimizer.zero_grad()
        loss = step_loss(net(train.inputs[indices]), train.labels[indices], indices)
        total += loss.item() * len(indices)
        if not math.isfinite(total):
            break
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return total / len(train.labels)


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def _check_finite(epoch: Epoch, settings: params.Training) -> None:
    for where, loss in (("training", epoch.loss), ("validation", epoch.validation_loss)):
        if not math.isfinite(loss):
            raise TrainingError(
                f"{where} loss is {loss:g} in epoch {epoch.epoch} of {settings.epochs}; "
                f"lower learning_rate (now {settings.learning_rate:g}) or raise warmup_ratio "
                f"(now {settings.warmup_ratio:g})"
            )
