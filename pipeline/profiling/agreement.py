"""What an artifact says, against the labels and against the reference, on identical inputs.

Outputs are float arrays [N samples, C classes]; a prediction is the class of the largest output,
the first of equals. Accuracy and its differences are in percent points.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.measurement import Agreement, Drop, Quality

Outputs = NDArray[np.float32]
Labels = NDArray[np.int64]

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
NUM_BISECTIONS = 60  # halves an interval of 2 to below the spacing of doubles near 1


def quality(outputs: Outputs, labels: Labels) -> Quality:
    """Return the accuracy in % with the half-width of its Wilson (1927) 95 % interval."""
    n = len(labels)
    accuracy = float(np.mean(_predictions(outputs) == labels))
    spread = accuracy * (1 - accuracy) / n + Z**2 / (4 * n**2)
    half_width = Z * math.sqrt(spread) / (1 + Z**2 / n)
    return Quality(
        metric="accuracy",
        direction="higher",
        unit="%",
        value=100 * accuracy,
        n=n,
        half_width=100 * half_width,
    )


def drop(outputs: Outputs, reference_outputs: Outputs, labels: Labels) -> Drop:
    """Return the accuracy lost against the reference, paired, with Tango's score interval.

    Positive is worse. The interval (Tango 1998, Statistics in Medicine 17:891, eq. 3 and 4) keeps
    its coverage when few pairs differ, and has a width of z^2 / (n + z^2) to either side when none
    does.
    """
    right = _predictions(outputs) == labels
    reference_right = _predictions(reference_outputs) == labels
    lost = int(np.sum(reference_right & ~right))
    gained = int(np.sum(~reference_right & right))
    n = len(labels)
    lower, upper = paired_interval(lost, gained, n)
    return Drop(
        value=100 * (lost - gained) / n,
        lower=100 * lower,
        upper=100 * upper,
        n=n,
        num_discordant=lost + gained,
    )


def paired_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of (lost - gained) / n, both bounds within -1..1."""
    value = (lost - gained) / n
    return (
        _bound(-1.0, value, lambda delta: _score(lost, gained, n, delta) > Z),
        _bound(value, 1.0, lambda delta: _score(lost, gained, n, delta) > -Z),
    )


def agreement(outputs: Outputs, reference_outputs: Outputs) -> Agreement:
    """Compare outputs: largest absolute difference, signal to error in dB, share of equal classes.

    ``top1_agreement`` is 0..1. ``sqnr_db`` = 10 log10(sum r^2 / sum (r - o)^2), None where no
    difference is or no signal.
    """
    reference = np.asarray(reference_outputs, np.float64)
    error = reference - np.asarray(outputs, np.float64)
    signal, noise = float(np.sum(reference**2)), float(np.sum(error**2))
    same = _predictions(outputs) == _predictions(reference_outputs)
    return Agreement(
        max_abs_error=float(np.max(np.abs(error))),
        sqnr_db=10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None,
        top1_agreement=float(np.mean(same)),
    )


def _predictions(outputs: Outputs) -> NDArray[np.int64]:
    classes: NDArray[np.int64] = np.argmax(outputs.reshape(len(outputs), -1), axis=1)
    return classes


def _score(lost: int, gained: int, n: int, delta: float) -> float:
    """Tango's statistic for a true difference of ``delta``; it falls as delta grows."""
    difference = lost - gained - n * delta
    a = 2 * n
    b = -lost - gained + (2 * n - lost + gained) * delta
    c = -gained * delta * (1 - delta)
    # the probability of a gain under the hypothesis, by maximum likelihood
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)


def _bound(low: float, high: float, still_below: Callable[[float], bool]) -> float:
    """Bisect for where the predicate turns from true (low) to false (high)."""
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        if still_below(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
