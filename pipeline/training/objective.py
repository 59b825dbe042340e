"""What a net is trained for: its loss, what it learns from, and the figure that chooses the epoch.

Shapes: N samples, B of one batch, K values of an output.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline import metrics, params, users_code
from pipeline.errors import DataError, MetricError, ParamsError
from pipeline.training.streaming import Inputs

NORMAL = 0  # the label of a sample that is no anomaly


class Batch(NamedTuple):
    """Samples of one step: ``inputs`` [B, ...], ``labels`` [B] and ``indices`` [B] into train."""

    inputs: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


Loss = Callable[[torch.Tensor, Batch], torch.Tensor]
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


@dataclass(frozen=True)
class Objective:
    """One kind of task; ``users_metric`` takes the place of the kind's own figure.

    Classification learns by cross entropy, regression by the mean squared error, and anomaly
    detection to give back normal samples (label 0), by the mean squared error too.
    """

    kind: Literal["classification", "regression", "anomaly"]
    metric: str
    direction: metrics.Direction
    unit: str
    users_metric: Metric | None = None

    @property
    def has_classes(self) -> bool:
        """Tell whether outputs are logits, so that it means something which is the largest."""
        return self.kind == "classification"

    def num_outputs(
        self, input_shape: Sequence[int], labels: torch.Tensor, label_names: Sequence[str]
    ) -> int:
        """Return the length of the net's output for one sample."""
        if self.kind == "classification":
            return len(label_names)
        return math.prod(input_shape if self.kind == "anomaly" else labels.shape[1:])

    def learns_from(self, labels: torch.Tensor) -> torch.Tensor:
        """Say of each sample [N] whether it is learned from: all, or the normal ones.

        Raises:
            DataError: there is none.
        """
        if self.kind != "anomaly":
            return torch.ones(len(labels), dtype=torch.bool)
        if not (labels == NORMAL).any():
            raise DataError(
                f"task.kind anomaly learns from normal samples, label {NORMAL}, and there is none "
                f"among {len(labels)}; mend the labels"
            )
        return labels == NORMAL

    def loss(
        self,
        outputs: torch.Tensor,
        batch: Batch,
        *,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> torch.Tensor:
        """Return the mean (or sum) over the batch of cross entropy in nats or of squared errors.

        The squared error of a sample is the mean over its values. ``label_smoothing`` is of classes
        only.
        """
        if self.kind == "classification":
            return F.cross_entropy(
                outputs, batch.labels, label_smoothing=label_smoothing, reduction=reduction
            )
        wanted = batch.inputs if self.kind == "anomaly" else batch.labels.to(outputs.dtype)
        errors = squared_errors(outputs, wanted)
        return errors.mean() if reduction == "mean" else errors.sum()

    def quality(self, outputs: NDArray[Any], inputs: Inputs, labels: NDArray[Any]) -> float:
        """Judge outputs [N, K] by the task's metric, in its unit.

        Raises:
            DataError: anomaly detection is judged on samples of which none, or all, are normal.
        """
        judged = outputs
        if self.kind == "anomaly":
            judged = metrics.reconstruction_scores(outputs, inputs.numpy())
            num_normal = int((labels == NORMAL).sum())
            if num_normal in (0, len(labels)):
                raise DataError(
                    f"task.kind anomaly is judged on normal samples and on anomalies, got "
                    f"{num_normal} normal of {len(labels)}; give both, with label 0 for normal"
                )
        if self.users_metric is not None:
            with users_code.running(f"task.metric {self.metric!r}", MetricError):
                return float(self.users_metric(judged, labels))
        return _OWN[self.kind](judged, labels)

    @property
    def name(self) -> str:
        """Return the metric's name, of the user's own the function's."""
        return self.metric.rpartition(":")[2]

    @property
    def validation_key(self) -> str:
        """Name the figure on validation, in curves and metrics: ``validation_accuracy``."""
        return f"validation_{self.name}"

    def rank(self, quality: float) -> float:
        """Turn a figure of the metric into one of which more is better."""
        return quality if self.direction == "higher" else -quality

    def words(self, quality: float) -> str:
        """Write a figure with its unit: ``98.9 %``, ``0.0312``."""
        return f"{quality:.1f} %" if self.unit == "%" else f"{quality:.4g} {self.unit}".rstrip()

    def words_of_difference(self, value: float, lower: float, upper: float) -> str:
        """Write a difference with its interval: ``+0.18 [-0.31..+0.68] point``."""
        if self.unit == "%":
            return f"{value:+.2f} [{lower:+.2f}..{upper:+.2f}] point"
        return f"{value:+.3g} [{lower:+.3g}..{upper:+.3g}] {self.unit}".rstrip()


_OWN: dict[str, Metric] = {
    "classification": metrics.accuracy,
    "regression": metrics.mean_absolute_error,
    "anomaly": metrics.auc,
}


def squared_errors(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return each sample's mean squared error [B]; both hold as many values a sample."""
    return (outputs.flatten(1) - wanted.reshape(outputs.flatten(1).shape)).square().mean(1)


def of(task: params.Task) -> Objective:
    """Return what params.yaml asks for; the user's metric is imported, compared with its pin.

    Raises:
        ParamsError: the task has no labels to learn from.
        MetricError: the user's metric cannot be imported.
        InputsError: the metric's file has other bytes than ``task.metric_digest`` pins.
    """
    if task.kind == "agreement":
        raise ParamsError(
            "task.kind agreement has no labels to train by; give net.onnx, or another task.kind"
        )
    if task.metric == params.METRICS[task.kind]:
        direction, unit = metrics.DIRECTIONS[task.metric], metrics.UNITS[task.metric]
        return Objective(task.kind, task.metric, direction, unit)
    users = users_code.load("task.metric", task.metric, task.metric_digest, MetricError)
    assert task.direction is not None  # rules ask for it
    return Objective(task.kind, task.metric, task.direction, task.unit or "", users)


CLASSIFICATION = Objective("classification", "accuracy", "higher", "%")
