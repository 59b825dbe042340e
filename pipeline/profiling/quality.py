"""How good outputs are by the project's task, with intervals: a judge is made once of the task.

Shapes: N samples. Outputs are float arrays [N, ...], or a structured array [N] with a field for
each output of a net that has several; of these the first is judged, but the user's own metric gets
them all. Positive drops are worse, whatever the metric's direction.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import metrics, params, users_code
from pipeline.data.rows import chunks
from pipeline.data.splits import Split
from pipeline.errors import DataError, MetricError
from pipeline.measurement import Drop, Quality
from pipeline.profiling import intervals
from pipeline.profiling.agreement import Outputs, num_values, predictions
from pipeline.profiling.intervals import Rows
from pipeline.runtimes import structured

Array = NDArray[Any]
Statistic = Callable[[Array, Array, Rows], float]

SEED = 0  # of the bootstrap
NUM_RESAMPLES = 1000
NUM_USERS_RESAMPLES = 200  # nobody knows how long the user's function takes


@dataclass(frozen=True, eq=False)
class Truth:
    """What outputs are held against.

    Args:
        labels: [N] classes, or values [N] or [N, K]; None where the task has none.
        inputs: [N, ...] as the net sees them, which an autoencoder is to give back.
        reference_outputs: of the fp32 reference, which tasks without labels agree with.
    """

    labels: Array | None = None
    inputs: Array | None = None
    reference_outputs: Outputs | None = None


class Judge(Protocol):
    """Gives a quality with its interval, and the quality lost against the reference, paired."""

    @property
    def needs_reference(self) -> bool:
        """Tell whether quality itself is against the reference."""
        ...

    def quality(self, outputs: Outputs, truth: Truth) -> Quality:
        """Judge outputs."""
        ...

    def drop(self, outputs: Outputs, reference_outputs: Outputs, truth: Truth) -> Drop:
        """Compare outputs with the reference's on identical inputs."""
        ...


def judge_of(task: params.Task) -> Judge:
    """Make the judge of a task.

    Raises:
        InputsError: the metric's source file has other bytes than ``task.metric_digest`` pins.
        MetricError: the user's metric cannot be imported.
    """
    if task.metric != params.METRICS[task.kind]:
        return _users(task)
    return JUDGES[task.metric]


def truth_of(task: params.Task, split: Split) -> Truth:
    """Take from a split what the task's judge holds outputs against."""
    inputs = None
    if task.kind == "anomaly":
        # a few at once: steps need more memory than what they give
        inputs = np.concatenate([split.tensors(few) for few in chunks(split.inputs)])
    return Truth(None if task.kind == "agreement" else split.labels, inputs)


@dataclass(frozen=True)
class Share:
    """A share of samples in %: those whose class is the expected one. Score intervals."""

    metric: str
    expected: Callable[[Outputs, Truth], Array]  # classes [N]
    needs_reference: bool = False

    def quality(self, outputs: Outputs, truth: Truth) -> Quality:
        """Give the share with the half-width of its Wilson (1927) interval."""
        right = predictions(outputs) == self.expected(outputs, truth)
        ratio, n = float(np.mean(right)), len(right)
        return Quality(
            metric=self.metric,
            direction="higher",
            unit="%",
            value=100 * ratio,
            n=n,
            half_width=100 * intervals.wilson_half_width(ratio, n),
        )

    def drop(self, outputs: Outputs, reference_outputs: Outputs, truth: Truth) -> Drop:
        """Give the points lost with Tango's (1998) paired score interval."""
        expected = self.expected(outputs, truth)
        right = predictions(outputs) == expected
        reference_right = predictions(reference_outputs) == expected
        lost = int(np.sum(reference_right & ~right))
        gained = int(np.sum(~reference_right & right))
        n = len(expected)
        lower, upper = intervals.paired_share(lost, gained, n)
        return Drop(
            value=100 * (lost - gained) / n,
            lower=100 * lower,
            upper=100 * upper,
            n=n,
            num_discordant=lost + gained,
        )


@dataclass(frozen=True)
class Estimate:
    """A statistic of values [N, ...] made of the outputs. Bootstrap intervals."""

    metric: str
    direction: Literal["higher", "lower"]
    unit: str
    values: Callable[[Outputs, Truth], Array]
    statistic: Statistic  # of values [N, ...] and labels [N, ...], at some rows of both
    num_resamples: int = NUM_RESAMPLES
    needs_reference: bool = False

    def quality(self, outputs: Outputs, truth: Truth) -> Quality:
        """Give the statistic with half the width of its bootstrap interval."""
        values, labels = self.values(outputs, truth), _labels(truth)

        def statistic(rows: Rows) -> float:
            return self.statistic(values, labels, rows)

        value = statistic(np.arange(len(values)))
        lower, upper = intervals.bootstrap(statistic, value, self._draws(labels))
        return Quality(
            metric=self.metric,
            direction=self.direction,
            unit=self.unit,
            value=value,
            n=len(values),
            half_width=(upper - lower) / 2,
        )

    def drop(self, outputs: Outputs, reference_outputs: Outputs, truth: Truth) -> Drop:
        """Give the difference with its bootstrap interval, both sides drawn by the same rows.

        ``num_discordant`` counts the samples that the metric sees differ at all.
        """
        values, labels = self.values(outputs, truth), _labels(truth)
        expected = self.values(reference_outputs, truth)
        sign = 1 if self.direction == "higher" else -1

        def statistic(rows: Rows) -> float:
            reference = self.statistic(expected, labels, rows)
            return sign * (reference - self.statistic(values, labels, rows))

        value = statistic(np.arange(len(values)))
        lower, upper = intervals.bootstrap(statistic, value, self._draws(labels))
        differ = np.zeros(len(values), np.bool_)
        for one, other in zip(structured.parts(values), structured.parts(expected), strict=True):
            differ |= (one != other).reshape(len(values), -1).any(axis=1)
        return Drop(value, lower, upper, n=len(values), num_discordant=int(differ.sum()))

    def _draws(self, labels: Array) -> Iterator[Rows]:
        """Draw within each class, so that a metric of classes always has them all."""
        strata = labels if labels.dtype.kind in "iu" and labels.ndim == 1 else np.zeros(len(labels))
        return intervals.resamples(self.num_resamples, strata.astype(np.int64), SEED)


def _labels(truth: Truth) -> Array:
    assert truth.labels is not None, "a task with such a metric has labels"
    return truth.labels


def _classes(_outputs: Outputs, truth: Truth) -> Array:
    return _labels(truth)


def _reference_classes(outputs: Outputs, truth: Truth) -> Array:
    assert truth.reference_outputs is not None, "without a reference there is no agreement with it"
    if num_values(outputs) < 2:
        raise DataError(
            "task.kind agreement compares the largest of a sample's outputs, and the first output "
            "has one value; give labels and task.kind regression"
        )
    return predictions(truth.reference_outputs)


def _errors(outputs: Outputs, truth: Truth) -> Array:
    first, labels = structured.parts(outputs)[0], _labels(truth)
    wanted = labels.size // len(labels)
    if num_values(outputs) != wanted:
        raise DataError(
            f"task.metric mae: the net gives {num_values(outputs)} values a sample, labels have "
            f"{wanted}; give labels [N] or [N, K] with a value for each of the first output"
        )
    return metrics.absolute_errors(first, labels)


def _mean(errors: Array, _labels: Array, rows: Rows) -> float:
    return float(errors[rows].mean())


def _anomaly_scores(outputs: Outputs, truth: Truth) -> Array:
    """Score each sample [N]: its reconstruction error, or what the net says where that is a value.

    Raises:
        DataError: the net's output is neither, or one of the two classes is missing.
    """
    num_anomalies = int(np.count_nonzero(_labels(truth)))
    if num_anomalies in (0, len(_labels(truth))):
        raise DataError(
            f"task.kind anomaly needs labels 0 (normal) and 1 (anomaly), {num_anomalies} of "
            f"{len(_labels(truth))} samples are anomalies; add the others"
        )
    first, inputs = structured.parts(outputs)[0], truth.inputs
    if inputs is not None and inputs.dtype.names is None and inputs.size == first.size:
        return metrics.reconstruction_scores(first, inputs)
    if num_values(outputs) == 1:
        return first.reshape(-1).astype(np.float64)
    shape = None if inputs is None or inputs.dtype.names else list(inputs.shape[1:])
    raise DataError(
        f"task.kind anomaly takes an output of the input's shape {shape} (an autoencoder) or of "
        f"one value a sample, got {list(first.shape[1:])}; mend the net"
    )


def _auc(scores: Array, labels: Array, rows: Rows) -> float:
    return metrics.auc(scores[rows], labels[rows])


def _whole(outputs: Outputs, _truth: Truth) -> Outputs:
    return outputs


def _users(task: params.Task) -> Estimate:
    """Judge by the user's ``function(outputs, labels) -> float``; an anomaly's outputs are scores.

    The function also gets the bootstrap's resamples, so any N must do.
    """
    function = users_code.load("task.metric", task.metric, task.metric_digest, MetricError)
    assert task.direction is not None  # rules ask for it
    return Estimate(
        metric=task.metric,
        direction=task.direction,
        unit=task.unit or "",
        values=_anomaly_scores if task.kind == "anomaly" else _whole,
        statistic=partial(_call, function, f"task.metric {task.metric!r}"),
        num_resamples=NUM_USERS_RESAMPLES,
    )


def _call(
    function: Callable[..., Any], what: str, outputs: Array, labels: Array, rows: Rows
) -> float:
    n = len(rows)
    with users_code.running(f"{what} on {n} samples", MetricError):
        value = function(outputs[rows], labels[rows])  # copies, which the user may change
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise MetricError(
            f"{what} gave {value!r} ({type(value).__name__}) on {n} samples; it must return a "
            "finite float"
        )
    return float(value)


ACCURACY = Share("accuracy", _classes)
JUDGES: dict[str, Judge] = {
    "accuracy": ACCURACY,
    "mae": Estimate("mean absolute error", "lower", "", _errors, _mean),
    "auc": Estimate("AUC", "higher", "%", _anomaly_scores, _auc),
    "top1": Share("top-1 agreement with fp32", _reference_classes, needs_reference=True),
}
