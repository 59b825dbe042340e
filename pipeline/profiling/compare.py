"""Two artifacts on one target: is the second better, worse, or can nobody tell?

Quality is paired on identical inputs. Latency is timed in rounds of both, forwards and backwards by
turns; while its interval decides nothing, rounds are added.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.errors import TargetError
from pipeline.measurement import Drop, Interval, Measurement
from pipeline.profiling import measure, summary
from pipeline.profiling.bench import Bench, Candidate

Verdict = Literal["better", "worse", "inconclusive"]

# Two sessions of the same file differ by this much in their medians (measurement.md); less is no
# difference that a user would feel.
TOLERANCE_RATIO = 0.02
MAX_ROUNDS = 12
MORE_ROUNDS = 2  # forwards and backwards: a drift meets both alike


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both measurements and the verdicts on ``after``; what it is against is ``before``.

    ``after`` holds the latency ratio, and the quality drop (absent without labels, or where both
    are the same file).
    """

    before: Measurement
    after: Measurement
    tolerance_ratio: float
    latency: Verdict
    quality: Verdict | None


def compare(
    before: Candidate,
    after: Candidate,
    bench: Bench,
    *,
    tolerance_ratio: float = TOLERANCE_RATIO,
    max_rounds: int = MAX_ROUNDS,
    on_step: Callable[[str], None] = lambda _note: None,
) -> Comparison:
    """Measure two artifacts beside each other, as often as it takes.

    Args:
        before: what is compared with.
        after: what the verdicts are on.
        bench: where, on what, and how much in a round; ``preset.num_restarts`` rounds at least,
            and an even number.
        tolerance_ratio: a latency within 1 +- this is no difference.
        max_rounds: after these an undecided comparison is inconclusive.
        on_step: called with a short note at each worker.

    Raises:
        TargetError: one of them does not run, or a worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        sample = measure.first_sample(bench.inputs, Path(folder))
        found = measure.first_passes([before, after], bench, on_step)
        for each in found:
            if each.reason is not None:
                raise TargetError(f"{each.candidate.name} cannot be compared: {each.reason}")
        done, more = 0, bench.preset.num_restarts + bench.preset.num_restarts % 2
        while True:
            measure.time_in_rounds(found, bench, sample, range(done, done + more), on_step)
            done, more = done + more, MORE_ROUNDS
            ratio = summary.ratio(found[1], found[0])
            if is_settled(ratio, tolerance_ratio) or done + more > max_rounds:
                break
    reference, compared = (summary.summarize(each, found[0], bench).measurement for each in found)
    if compared.kind != "measured":
        raise TargetError(f"{after.name} cannot be compared: {compared.reason}")
    return Comparison(
        before=reference,
        after=compared,
        tolerance_ratio=tolerance_ratio,
        latency=of_latency(ratio, tolerance_ratio),
        quality=of_quality(compared.drop),
    )


def of_latency(ratio: Interval, tolerance_ratio: float) -> Verdict:
    """Judge latency after / before: only by an interval that lies beyond the tolerance whole."""
    if ratio.lower > 1 + tolerance_ratio:
        return "worse"
    if ratio.upper < 1 - tolerance_ratio:
        return "better"
    return "inconclusive"


def of_quality(drop: Drop | None) -> Verdict | None:
    """Judge the paired drop: only by an interval that does not hold 0."""
    if drop is None:
        return None
    if drop.lower > 0:
        return "worse"
    return "better" if drop.upper < 0 else "inconclusive"


def is_settled(ratio: Interval, tolerance_ratio: float) -> bool:
    """Tell whether more rounds can change nothing: decided, or within the tolerance whole."""
    within = 1 - tolerance_ratio <= ratio.lower and ratio.upper <= 1 + tolerance_ratio
    return within or of_latency(ratio, tolerance_ratio) != "inconclusive"
