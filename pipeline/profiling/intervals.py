"""95 % intervals of a quality figure and of its paired difference, over samples.

A share of samples has score intervals, which hold their coverage when few samples differ; any other
statistic has a percentile bootstrap (Efron 1979, Annals of Statistics 7:1), which is paired when
both sides are drawn by the same rows. A bootstrap of samples that are all alike has no width.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
PERCENTS = (2.5, 97.5)
NUM_BISECTIONS = 60  # halves an interval of 2 to below the spacing of doubles near 1


def wilson_half_width(ratio: float, n: int) -> float:
    """Return the half-width of Wilson's (1927) interval of a share 0..1 of n samples."""
    spread = ratio * (1 - ratio) / n + Z**2 / (4 * n**2)
    return Z * math.sqrt(spread) / (1 + Z**2 / n)


def paired_share(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Return Tango's score interval of (lost - gained) / n, both bounds within -1..1.

    Tango 1998, Statistics in Medicine 17:891, eq. 3 and 4. It keeps its coverage when few pairs
    differ, and has a width of z^2 / (n + z^2) to either side when none does.
    """
    value = (lost - gained) / n
    return (
        _bound(-1.0, value, lambda delta: _score(lost, gained, n, delta) > Z),
        _bound(value, 1.0, lambda delta: _score(lost, gained, n, delta) > -Z),
    )


def resamples(num_resamples: int, strata: NDArray[np.int64], seed: int) -> Iterator[Rows]:
    """Yield rows drawn with replacement, as many of each stratum [N] as it has.

    The same arguments give the same draws, so that two nets judged on them are paired.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for _ in range(num_resamples):
        yield np.concatenate(
            [rows[generator.integers(len(rows), size=len(rows))] for rows in members]
        )


def bootstrap(
    statistic: Callable[[Rows], float], value: float, draws: Iterator[Rows]
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of rows, widened to hold its ``value``."""
    lower, upper = np.percentile([statistic(rows) for rows in draws], PERCENTS)
    return min(float(lower), value), max(float(upper), value)


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
