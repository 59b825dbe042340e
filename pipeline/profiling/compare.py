"""Two artifacts on one target: is the second better, worse, unchanged, or can nobody tell?

Quality is paired on identical inputs. Latency is timed in rounds, in which both take turns of some
milliseconds on the same cores (`measure.time_in_rounds`). It is judged twice at most, after few
rounds and, if these decide nothing, after all; each time by an interval of 97.5 %, so that both
looks together err in 5 % of cases at most (Bonferroni).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.errors import TargetError
from pipeline.measurement import INVALID, Drop, Interval, Measurement
from pipeline.profiling import measure, summary
from pipeline.profiling.bench import Bench, Candidate

Verdict = Literal["better", "worse", "unchanged", "inconclusive"]

CONFIDENCE = 97.5  # %, of each of two looks


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both measurements and the verdicts on ``after``; what it is against is ``before``.

    ``ratio`` is after / before with the interval of `CONFIDENCE` that decided. ``quality`` is None
    where the task is judged against the fp32 net, which is not among the two.
    """

    before: Measurement
    after: Measurement
    tolerance_ratio: float
    ratio: Interval
    latency: Verdict
    quality: Verdict | None


def compare(
    before: Candidate,
    after: Candidate,
    bench: Bench,
    *,
    tolerance_ratio: float,
    max_rounds: int,
    on_step: Callable[[str], None] = lambda _note: None,
) -> Comparison:
    """Measure two artifacts beside each other, as often as it takes.

    Args:
        before: what is compared with.
        after: what the verdicts are on.
        bench: where, on what, and how much in a round. ``preset.num_restarts`` rounds, made even,
            are the first look.
        tolerance_ratio: a latency whose whole interval is within 1 +- this is unchanged.
        max_rounds: of the second look, 2 at least.
        on_step: called with a short note at each first pass and each round.

    Raises:
        TargetError: one of them does not run, a worker failed, or the machine throttled.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        sample = measure.first_sample(bench.inputs, Path(folder))
        found = measure.first_passes([before, after], bench, on_step)
        for each in found:
            if each.reason is not None:
                raise TargetError(f"{each.candidate.name} cannot be compared: {each.reason}")
        first = min(bench.preset.num_restarts + bench.preset.num_restarts % 2, max_rounds)
        for rounds in (range(first), range(first, max_rounds)):
            measure.time_in_rounds(found, bench, sample, rounds, on_step)
            ratio = summary.ratio(found[1], found[0], CONFIDENCE)
            if of_latency(ratio, tolerance_ratio) != "inconclusive":
                break
    reference, compared = (summary.summarize(each, found[0], bench).measurement for each in found)
    for measured in (reference, compared):
        if measured.kind != "measured":
            raise TargetError(f"{measured.candidate} cannot be compared: {measured.reason}")
        for flag in INVALID.keys() & set(measured.flags):
            what = f"{INVALID[flag]} while {measured.candidate} was timed"
            raise TargetError(f"{what}; let the machine rest, and compare again")
    quality = of_quality(compared.drop)
    if bench.judge.needs_reference:
        quality = None
        reference, compared = (
            msgspec.structs.replace(each, quality=None, drop=None) for each in (reference, compared)
        )
    return Comparison(
        before=reference,
        after=compared,
        tolerance_ratio=tolerance_ratio,
        ratio=ratio,
        latency=of_latency(ratio, tolerance_ratio),
        quality=quality,
    )


def of_latency(ratio: Interval, tolerance_ratio: float) -> Verdict:
    """Judge latency after / before by its whole interval: beyond the tolerance, or within."""
    if ratio.lower > 1 + tolerance_ratio:
        return "worse"
    if ratio.upper < 1 - tolerance_ratio:
        return "better"
    within = 1 - tolerance_ratio <= ratio.lower and ratio.upper <= 1 + tolerance_ratio
    return "unchanged" if within else "inconclusive"


def of_quality(drop: Drop | None) -> Verdict | None:
    """Judge the paired drop: only by an interval that does not hold 0."""
    if drop is None:
        return None
    if drop.lower > 0:
        return "worse"
    return "better" if drop.upper < 0 else "inconclusive"
