"""What a wider quality budget would change: which candidate wins from which budget on."""

import msgspec

from pipeline.measurement import Measurement
from pipeline.planning.selection import Rejection, Selection, strength
from pipeline.reporting.answer import Answer


class Alternative(msgspec.Struct, frozen=True):
    """A candidate that only the quality budget keeps out.

    ``cost_ratio`` is its latency (or size, or energy: what is minimized) over that of what ships;
    None when nothing ships. ``wins`` is false for one that no budget puts first: ``cheaper`` then
    names what costs no more and needs no wider budget.
    """

    candidate: str
    max_quality_drop: float
    widening: float
    cost_ratio: float | None
    wins: bool
    cheaper: str | None = None


def alternatives(answer: Answer) -> tuple[Alternative, ...]:
    """List what a wider budget would let in, by the budget that each needs.

    A drop is judged by its upper bound, so that is the budget it needs. As the budget grows, the
    winner changes only to something cheaper than every winner before.
    """
    s = answer.selection
    if s is None:
        return ()
    chosen = next((m for m in answer.candidates if m.candidate == s.chosen), None)
    waiting = _waiting(answer, s, chosen)
    best = chosen
    found = []
    for m, rejection in waiting:
        (breach,) = rejection.breaches
        wins = best is None or _cost(m, s) < _cost(best, s)
        found.append(
            Alternative(
                candidate=m.candidate,
                max_quality_drop=breach.measured,
                widening=breach.measured - breach.allowed,
                cost_ratio=_cost(m, s) / _cost(chosen, s) if chosen else None,
                wins=wins,
                cheaper=None if wins or best is None else best.candidate,
            )
        )
        best = m if wins else best
    return tuple(found)


def _waiting(
    answer: Answer, s: Selection, chosen: Measurement | None
) -> list[tuple[Measurement, Rejection]]:
    """Pair what broke the quality limit alone with its rejection; one kind of evidence only."""
    by_name = {m.candidate: m for m in answer.candidates}
    pairs = [
        (by_name[r.candidate], r)
        for r in s.rejected
        if len(r.breaches) == 1 and r.breaches[0].limit.startswith("quality drop")
    ]
    known = [chosen] if chosen else [m for m, _ in pairs]
    strongest = min((strength(m, s.objective) for m in known), default=None)
    pairs = [
        (m, r)
        for m, r in pairs
        if strength(m, s.objective) == strongest and _cost(m, s) < float("inf")
    ]
    return sorted(pairs, key=lambda pair: (pair[1].breaches[0].measured, _cost(pair[0], s)))


def _cost(m: Measurement, s: Selection) -> float:
    if s.objective == "size":
        return float(m.size_bytes)
    if s.objective == "energy":
        return float("inf") if m.energy is None else m.energy.value_mj
    return float("inf") if m.latency_ms.p50 is None else m.latency_ms.p50
