# ruff: noqa: A005 - the room is in the name; imports are absolute
"""Percentiles and intervals of latency; nothing is guessed from too few samples.

Shapes: R restarts, B blocks of consecutive samples, T turns, K bootstrap resamples.

The restart is the unit of an interval: medians differ more between processes (1.6 to 5.4 % were
measured on a virtual machine) than within one, so more samples of the same process do not make a
number surer.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measurement import Interval, Latency

Array = NDArray[np.float64]

# Smallest n for which one slower sample still leaves 99 % confidence that the percentile holds: the
# least n with P(Binomial(n, 1 - p) <= 1) <= 0.01 (MLPerf Inference rules, early stopping, tolerance
# 0).
MIN_SAMPLES = {50: 11, 90: 64, 95: 130, 97: 219, 99: 662}
NUM_RESAMPLES = 2000
MAX_BLOCKS = 20
# Two-sided quantiles of Student's t by confidence in %, then by degrees of freedom from 1 on.
STUDENT_T = {
    95.0: (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    97.5: (25.452, 6.205, 4.177, 3.495, 3.163, 2.969, 2.841, 2.752, 2.685, 2.634),
}


def percentile(samples: Sequence[float] | Array, percent: int) -> float | None:
    """Return the percentile (linear between samples), or None below its sample count."""
    if len(samples) < MIN_SAMPLES[percent]:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def latency(restarts_ms: Sequence[Array], *, batched: bool, seed: int) -> Latency:
    """Summarize the samples of all restarts.

    Args:
        restarts_ms: per restart its samples, each the mean time of one run in its batch.
        batched: samples hold several runs; then p90 and p99 are absent, because the percentile of
            a mean is not that of a request.
        seed: of the bootstrap.
    """
    pooled = np.concatenate(restarts_ms)
    p50 = percentile(pooled, 50)
    if p50 is None:
        return Latency()
    interval = median_interval(restarts_ms, seed)
    return Latency(
        p50=p50,
        p90=None if batched else percentile(pooled, 90),
        p99=None if batched else percentile(pooled, 99),
        p50_lower=interval.lower,
        p50_upper=interval.upper,
    )


def median_interval(restarts: Sequence[Array], seed: int) -> Interval:
    """Return the median of all samples with its 95 % interval.

    A hierarchical bootstrap (restarts, then blocks within each) gives the standard error of the log
    median. It is widened by sqrt(R / (R - 1)), the bootstrap's own bias with R units, and by
    Student's t with R - 1 degrees of freedom (Hesterberg 2015, arXiv:1411.5279, section 4): the
    percentiles of a bootstrap of 3 restarts lie between their extremes and so hold the truth in at
    most 75 % of cases.
    """
    value = float(np.median(np.concatenate(restarts)))
    generator = np.random.default_rng(seed)
    drawn = _draw_medians([_log_block_medians(samples) for samples in restarts], generator)
    return _interval(value, _resample(drawn, generator), len(restarts))


def ratio_interval(
    candidate: Sequence[Array], reference: Sequence[Array], seed: int, confidence: float = 95.0
) -> Interval:
    """Return the ratio of medians, candidate to reference, with its interval (confidence in %).

    Restart r of both was measured in round r, one soon after the other; what slowed the whole round
    cancels. The value is the geometric mean of the rounds' ratios; the interval as in
    `median_interval`, with the round as the unit.
    """
    assert len(candidate) == len(reference)
    ratios = [np.median(c) / np.median(r) for c, r in zip(candidate, reference, strict=True)]
    value = float(np.exp(np.mean(np.log(ratios))))
    generator = np.random.default_rng(seed)
    blocks = ([_log_block_medians(samples) for samples in side] for side in (candidate, reference))
    ours, theirs = (_draw_medians(side, generator) for side in blocks)
    return _interval(value, _resample(ours - theirs, generator), len(candidate), confidence)


def turns_ratio_interval(rounds: Sequence[Array], seed: int, confidence: float = 95.0) -> Interval:
    """Return the ratio of latencies that were timed by turns, with its interval (confidence in %).

    ``rounds`` hold [T] ratios each, of turns that were milliseconds apart. The value is the
    geometric mean over rounds of their medians: a turn in which the machine changed its speed is an
    outlier. The interval as in `median_interval`, with the round as the unit and a turn as a block.
    """
    logs = [np.log(ratios) for ratios in rounds]
    value = float(np.exp(np.mean([np.median(each) for each in logs])))
    generator = np.random.default_rng(seed)
    errors = _resample(_draw_medians(logs, generator), generator)
    return _interval(value, errors, len(rounds), confidence)


def _log_block_medians(samples: Array) -> Array:
    """Return [B] log medians of blocks of neighbours, which share what slowed them."""
    blocks = np.array_split(np.asarray(samples, np.float64), min(MAX_BLOCKS, len(samples)))
    return np.log([np.median(block) for block in blocks])


def _resample(drawn: Array, generator: np.random.Generator) -> Array:
    """Draw restarts of [R, K] whose blocks were drawn: [K] means over R."""
    num_restarts = len(drawn)
    chosen = generator.integers(num_restarts, size=(num_restarts, NUM_RESAMPLES))
    # each place of the draw takes its own resample of its restart's blocks
    shifted = (np.arange(NUM_RESAMPLES) + np.arange(num_restarts)[:, None]) % NUM_RESAMPLES
    means: Array = drawn[chosen, shifted].mean(axis=0)
    return means


def _draw_medians(restarts: list[Array], generator: np.random.Generator) -> Array:
    """Draw the blocks of each restart: [R, K] medians."""

    def draw(medians: Array) -> Any:
        size = (NUM_RESAMPLES, len(medians))
        return np.median(medians[generator.integers(len(medians), size=size)], axis=1)

    return np.stack([draw(medians) for medians in restarts])


def _interval(value: float, errors: Array, num_restarts: int, confidence: float = 95.0) -> Interval:
    assert num_restarts >= 2, "one restart says nothing about the next"
    quantiles = STUDENT_T[confidence]
    quantile = quantiles[min(num_restarts - 1, len(quantiles)) - 1]
    widening = math.sqrt(num_restarts / (num_restarts - 1))
    half = quantile * widening * float(errors.std())
    return Interval(value, value * math.exp(-half), value * math.exp(half))
