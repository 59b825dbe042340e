"""The answer for one target, as data: what ships and why, how sure, what comes next."""

from pathlib import Path
from typing import Literal

import msgspec

from pipeline import measurement
from pipeline.measurement import Measurement
from pipeline.planning.selection import FILE_NAME as SELECTION_FILE
from pipeline.planning.selection import Selection


class NotBuilt(msgspec.Struct, frozen=True):
    """A candidate for which there is no artifact."""

    candidate: str
    reason: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one target.

    ``candidates`` are measured on validation; ``artifact`` and ``reference`` carry test quality.
    ``status`` is ``failed`` when the target's chain did not run to its end, ``none`` when no
    candidate can ship.
    """

    target: str
    status: Literal["ships", "none", "failed"]
    reason: str | None = None
    artifact: Measurement | None = None
    reference: Measurement | None = None
    selection: Selection | None = None
    candidates: tuple[Measurement, ...] = ()
    not_built: tuple[NotBuilt, ...] = ()


class _Outcome(msgspec.Struct):
    candidate: str
    status: str
    reason: str | None = None


def failed(target: str, reason: str) -> Answer:
    """Give the answer for a target whose chain failed half-way."""
    return Answer(target=target, status="failed", reason=reason)


def gather(target: str, selected: Path, certified: Path, profiled: Path) -> Answer:
    """Read what the stages of one target wrote."""
    selection = msgspec.json.decode((selected / SELECTION_FILE).read_bytes(), type=Selection)
    measured = [
        measurement.read(path) for path in sorted(profiled.glob(f"*/{measurement.FILE_NAME}"))
    ]
    outcomes = msgspec.json.decode((profiled / "candidates.json").read_bytes(), type=list[_Outcome])
    ships = selection.chosen is not None
    return Answer(
        target=target,
        status="ships" if ships else "none",
        reason=None if ships else "no candidate meets the budget",
        artifact=measurement.read(certified / "measurement.json") if ships else None,
        reference=measurement.read(certified / "reference.json") if ships else None,
        selection=selection,
        candidates=tuple(measured),
        not_built=tuple(
            NotBuilt(outcome.candidate, outcome.reason or "")
            for outcome in outcomes
            if outcome.status == "not_built"
        ),
    )


def ordered(answer: Answer) -> list[Measurement]:
    """Put the ranked candidates first, best first; then the rejected ones by name."""
    ranking = answer.selection.ranking if answer.selection else ()
    place = {candidate: index for index, candidate in enumerate(ranking)}
    return sorted(
        answer.candidates, key=lambda m: (place.get(m.candidate, len(place)), m.candidate)
    )
