"""What a change does to each target: before and after, with intervals and a verdict.

Two builds are two sessions, so a verdict asks for intervals that are apart by more than the
tolerance, and for the same machine; what is not decided is called inconclusive.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pipeline import measurement
from pipeline.measurement import Measurement
from pipeline.reporting import words

Verdict = Literal["better", "worse", "inconclusive", "unchanged", "new", "gone"]
HEADER = ("target", "verdict", "ships now", "p50 before", "p50 now", "size before", "size now",
          "quality before", "quality now")  # fmt: skip


class Shipped(msgspec.Struct, frozen=True):
    """What a target's release directory holds: a measurement, or the reason for none."""

    measurement: Measurement | None
    reason: str | None = None


class Difference(msgspec.Struct, frozen=True):
    """One target's row; ``why`` says in a few words what the verdict rests on."""

    target: str
    verdict: Verdict
    why: str
    before: Measurement | None
    after: Measurement | None


def read(folder: Path) -> Shipped | None:
    """Read a release directory of `register`; None where there is none."""
    described = folder / "release.json"
    if not described.is_file():
        return None
    told = json.loads(described.read_bytes())
    if not told["shipped"]:
        return Shipped(None, told.get("reason"))
    return Shipped(measurement.read(folder / measurement.FILE_NAME))


def compare(
    before: Mapping[str, Shipped | None], after: Mapping[str, Shipped | None], tolerance: float
) -> list[Difference]:
    """Compare what shipped with what ships, target by target.

    Args:
        before: by target; None where the base has no such release.
        after: likewise, of this build.
        tolerance: the ratio by which latency or size may grow before it is worse, such as 0.05.
    """
    names = list(dict.fromkeys([*after, *before]))
    return [_difference(name, before.get(name), after.get(name), tolerance) for name in names]


def _difference(
    target: str, before: Shipped | None, after: Shipped | None, tolerance: float
) -> Difference:
    old = before.measurement if before else None
    new = after.measurement if after else None
    if new is None:
        reason = (after.reason if after else None) or "the target is switched off"
        verdict: Verdict = "gone" if old else "unchanged"
        return Difference(target, verdict, reason, old, new)
    if old is None:
        return Difference(target, "new", "nothing shipped before", old, new)
    if old == new:
        return Difference(target, "unchanged", "the same artifact and measurement", old, new)
    verdict, why = _judge(old, new, tolerance)
    return Difference(target, verdict, why, old, new)


def _judge(old: Measurement, new: Measurement, tolerance: float) -> tuple[Verdict, str]:
    """Judge by what has no noise first: size; then quality, then latency."""
    found: list[tuple[Verdict, str]] = []
    growth = new.size_bytes / old.size_bytes
    if growth > 1 + tolerance or growth < 1 - tolerance:
        found.append(("worse" if growth > 1 else "better", f"size {growth:.2f} x"))
    if old.kind == new.kind:
        found += [*quality(old, new), *_latency(old, new, tolerance)]
    else:
        found.append(("inconclusive", f"it was {old.kind}, is {new.kind}: never compared"))
    for verdict in ("worse", "inconclusive", "better"):
        reasons = [why for said, why in found if said == verdict]
        if reasons:
            return verdict, "; ".join(reasons)
    return "unchanged", "within the tolerance"


def quality(old: Measurement, new: Measurement) -> list[tuple[Verdict, str]]:
    """Judge quality by intervals that are apart: two figures of two builds are not paired."""
    if old.quality is None or new.quality is None or old.quality.metric != new.quality.metric:
        return [("inconclusive", "quality was not measured by one metric on both sides")]
    gain = new.quality.value - old.quality.value
    if old.quality.direction == "lower":
        gain = -gain
    noise = old.quality.half_width + new.quality.half_width
    if abs(gain) <= noise:
        return []
    name, unit = new.quality.metric, "points" if new.quality.unit == "%" else new.quality.unit
    return [("better" if gain > 0 else "worse", f"{name} {gain:+.2f} {unit}".rstrip())]


def _latency(old: Measurement, new: Measurement, tolerance: float) -> list[tuple[Verdict, str]]:
    if old.fingerprint != new.fingerprint and old.kind == "measured":
        return [("inconclusive", "latency was measured on another machine")]
    a, b = old.latency_ms, new.latency_ms
    if a.p50 is None or b.p50 is None:
        return []
    if (b.p50_lower or b.p50) > (a.p50_upper or a.p50) * (1 + tolerance):
        return [("worse", f"p50 {b.p50 / a.p50:.2f} x")]
    if (b.p50_upper or b.p50) < (a.p50_lower or a.p50) * (1 - tolerance):
        return [("better", f"p50 {b.p50 / a.p50:.2f} x")]
    within = (b.p50_upper or b.p50) <= (a.p50_lower or a.p50) * (1 + tolerance)
    return [] if within else [("inconclusive", "p50 intervals overlap")]


def markdown(differences: Sequence[Difference], base: str) -> str:
    """Write the comment of a pull request: the first line says whether something got worse."""
    worse = [d for d in differences if d.verdict in {"worse", "gone"}]
    first = "; ".join(f"**{d.target} is {d.verdict}**: {d.why}" for d in worse)
    lines = [
        first or f"No target is worse than {base}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *(f"| {' | '.join(_row(d))} |" for d in differences),
        "",
        "Intervals are 95 %. Two builds are two sessions: only intervals that are apart decide.",
    ]
    return "\n".join(lines) + "\n"


def _row(d: Difference) -> tuple[str, ...]:
    ships = "nothing" if d.after is None else words.readable(d.after.candidate)
    cells: list[str] = [d.target, f"{d.verdict}: {d.why}", ships]
    for told in (words.latency, lambda m: words.size(m.size_bytes), words.quality):
        cells += ["-" if m is None else told(m) for m in (d.before, d.after)]
    return tuple(cell.replace("|", "\\|") for cell in cells)
