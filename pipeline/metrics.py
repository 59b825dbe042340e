"""How good outputs are, as one number: the metric of each kind of task, in numpy.

Shapes: N samples, C classes. Accuracy and AUC are in percent, an error in the labels' own unit.
Training, profiling and the report all judge by these, so that they never disagree.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["higher", "lower"]

# what is better, and the unit, of each of `params.METRICS`
DIRECTIONS: dict[str, Direction] = {
    "accuracy": "higher",
    "mae": "lower",
    "auc": "higher",
    "top1": "higher",
}
UNITS: dict[str, str] = {"accuracy": "%", "mae": "", "auc": "%", "top1": "%"}


def accuracy(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of samples, in %, whose largest output [N, C] is the label's [N].

    The first of equal outputs counts.
    """
    predictions = outputs.reshape(len(outputs), -1).argmax(axis=1)
    return 100 * int((predictions == labels).sum()) / len(labels)


def mean_absolute_error(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the mean of |output - label| over samples and values; both hold as many values."""
    return float(absolute_errors(outputs, labels).mean())


def absolute_errors(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return each sample's mean absolute error [N], for labels [N] or [N, ...]."""
    expected = np.asarray(labels, np.float64).reshape(len(labels), -1)
    found = np.asarray(outputs, np.float64).reshape(expected.shape)
    errors: NDArray[np.float64] = np.abs(found - expected).mean(axis=1)
    return errors


def auc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the area under the ROC curve in %: how often an anomaly scores above a normal sample.

    Label 0 is normal, every other an anomaly; equal scores count half (Mann and Whitney 1947). Both
    must be there.

    >>> auc(np.array([0.1, 0.2, 0.2, 0.9]), np.array([0, 0, 1, 1]))
    87.5
    """
    normal, anomalies = np.sort(scores[labels == 0]), scores[labels != 0]
    assert len(normal) > 0, "auc needs normal samples and anomalies"
    assert len(anomalies) > 0, "auc needs normal samples and anomalies"
    below = np.searchsorted(normal, anomalies, side="left")
    not_above = np.searchsorted(normal, anomalies, side="right")
    return 100 * float((below + not_above).mean()) / (2 * len(normal))


def reconstruction_scores(outputs: NDArray[Any], inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return each sample's mean squared difference [N] of an autoencoder's output and its input.

    ``inputs`` are the preprocessed ones, and may have another shape of as many values.
    """
    expected = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    found = np.asarray(outputs, np.float64).reshape(expected.shape)
    scores: NDArray[np.float64] = np.square(found - expected).mean(axis=1)
    return scores
