"""The section of one target: why, the charts, every candidate, and what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.measurement import KINDS, Measurement
from pipeline.planning.selection import Selection
from pipeline.reporting import figures, further_view, load_view, pareto, words
from pipeline.reporting.alternatives import Alternative, alternatives
from pipeline.reporting.answer import Answer, ordered
from pipeline.reporting.charts import bars, distributions, marks, tradeoff
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.evidence import Distributions, Evidence
from pipeline.reporting.figures import Figure
from pipeline.reporting.views import Column, Key, Plot, Table, table

DEARER = {"latency": "is slower", "size": "is larger", "energy": "takes more energy"}
SHOWN = 2  # alternatives in the table on top; all are in the target's section


@dataclass(frozen=True)
class Refusal:
    """A candidate that does not ship, and why."""

    icon: Markup
    candidate: str
    state: str
    reason: str


@dataclass(frozen=True)
class TargetView:
    """All that the page shows of one target below the answer."""

    target: str
    status: str
    reason: str
    artifact: str
    kind: str
    reasons: tuple[str, ...]
    candidates: Table | None
    loads: Table | None
    plots: tuple[Plot, ...]
    absent: tuple[str, ...]
    refusals: tuple[Refusal, ...]


def view(answer: Answer, index: int, evidence: Evidence, series: dict[str, int]) -> TargetView:
    """Make the section of one target; ``index`` keeps the keys of its charts apart."""
    measured = ordered(answer)
    look = marks.of(answer, measured, series)
    plots, absent = _plots(answer, f"t{index}", measured, evidence, look)
    return TargetView(
        target=answer.target,
        status=answer.status,
        reason=answer.reason or "",
        artifact=words.readable(answer.artifact.candidate) if answer.artifact else "",
        kind=answer.artifact.kind if answer.artifact else "",
        reasons=tuple(_reasons(answer)),
        candidates=_candidates(answer, measured, look) if measured else None,
        loads=load_view.loads(answer.target, measured, look),
        plots=tuple(plots),
        absent=tuple(absent),
        refusals=tuple(_refusals(answer, look)),
    )


def _reasons(answer: Answer) -> list[str]:
    """Say why, what comes next, every budget that would change it, and on what evidence."""
    changing = [_change(answer, found) for found in alternatives(answer)]
    if answer.artifact is None or answer.artifact.kind == "built":
        return [*words.reasons(answer), *_unproven(answer), *changing]
    changing = changing or words.would_change(answer)
    return [words.why(answer), *words.next_best(answer), *changing, words.evidence(answer)]


def _unproven(answer: Answer) -> list[str]:
    reason = answer.artifact.reason if answer.artifact else None
    return [f"Why it was not measured: {reason}."] if reason else []


def changes(answer: Answer) -> tuple[str, ...]:
    """Say in short what would change the answer: the first wider budgets, then the next best."""
    if answer.artifact is not None and answer.artifact.kind == "built":
        return ("Measuring it on the hardware.", *_next_best(answer))
    winning = [found for found in alternatives(answer) if found.wins]
    lines = [_widening(answer, found) for found in winning[:SHOWN]]
    if not winning and answer.selection is not None:
        lines.append("No wider quality budget would.")
    return (*lines, *_next_best(answer))


def _widening(answer: Answer, found: Alternative) -> str:
    """Say what more budget one alternative needs, and what it would bring."""
    s = answer.selection
    assert s is not None
    m = next(c for c in answer.candidates if c.candidate == found.candidate)
    wider = figures.budget(found.widening, figures.loss_unit(m.quality), signed=True)
    name = words.readable(found.candidate)
    if found.cost_ratio is None:
        return f"{wider} of budget: `{name}` would ship."
    return f"{wider} of budget: `{name}`, {figures.ratio(found.cost_ratio)} the {s.objective}."


def _change(answer: Answer, found: Alternative) -> str:
    """Say from which budget on an alternative wins, or why none makes it win."""
    s = answer.selection
    assert s is not None
    m = next(c for c in answer.candidates if c.candidate == found.candidate)
    needed = figures.budget(found.max_quality_drop, figures.loss_unit(m.quality))
    name = words.readable(found.candidate)
    if not found.wins:
        other = words.readable(found.cheaper or "")
        dearer = DEARER[s.objective]
        return f"No budget makes `{name}` win: it needs {needed} and {dearer} than `{other}`."
    return f"{_widening(answer, found)[:-1]}, from max_quality_drop {needed} on."


def _next_best(answer: Answer) -> list[str]:
    s = answer.selection
    second = next((m for m in answer.candidates if s and m.candidate == s.next_best), None)
    if s is None or second is None:
        return []
    cost = figures.size(second.size_bytes)
    if s.objective == "latency" and second.latency_ms.p50 is not None:
        cost = figures.latency(second).value
    elif s.objective == "energy":
        cost = words.energy(second)
    may_be_chance = second.kind == "measured" and not s.distinguishable
    doubt = "; the order may be chance" if may_be_chance else ""
    return [f"Next best: `{words.readable(second.candidate)}`, {cost}{doubt}."]


def _candidates(answer: Answer, measured: Sequence[Measurement], look: dict[str, Mark]) -> Table:
    fronts = {m.candidate for kind in KINDS for m in pareto.front(_of_kind(measured, kind))}
    kinds = {m.kind for m in measured}
    of_one_kind = f", all {measured[0].kind.replace('_', ' ')}" if len(kinds) == 1 else ""
    columns: list[Column[Measurement]] = [
        ("candidate", lambda m: f"{look[m.candidate].number} {look[m.candidate].name}"),
        ("verdict", lambda m: Figure(look[m.candidate].standing, figures.noise(m))),
        ("evidence", lambda m: "" if len(kinds) == 1 else m.kind.replace("_", " ")),
        ("size", lambda m: figures.size(m.size_bytes)),
        ("p50", _latency),
        ("p90", lambda m: figures.duration(m.latency_ms.p90)),
        ("p99", lambda m: figures.duration(m.latency_ms.p99)),
        ("against fp32", lambda m: _ratio(m, answer.selection)),
        ("quality on validation", _quality),
        ("quality lost", _lost),
        ("Pareto front", lambda m: "yes" if m.candidate in fronts else ""),
        ("load", lambda m: figures.duration(m.load_ms)),
        ("peak memory", _memory),
        ("on the accelerator", _placement),
    ]
    shipped = [i for i, m in enumerate(measured) if look[m.candidate].standing == "ships"]
    return table(
        f"Every candidate of {answer.target}{of_one_kind}",
        columns,
        measured,
        [marks.icon(look[m.candidate]) for m in measured],
        shipped[0] if shipped else None,
    )


def _ratio(m: Measurement, s: Selection | None) -> str | Figure:
    if s is not None and m.candidate == s.reference and m.latency_ms.p50 is not None:
        return f"1{figures.TIMES}"
    if m.latency_ratio is None:
        return figures.ABSENT
    return figures.ratio_interval(m.latency_ratio)


def _latency(m: Measurement) -> str | Figure:
    return figures.ABSENT if m.latency_ms.p50 is None else figures.latency(m)


def _quality(m: Measurement) -> str | Figure:
    return figures.ABSENT if m.quality is None else figures.quality(m.quality)


def _lost(m: Measurement) -> str | Figure:
    return figures.ABSENT if m.drop is None else figures.lost(m.drop, m.quality)


def _memory(m: Measurement) -> str:
    return figures.ABSENT if m.peak_memory_bytes is None else figures.size(m.peak_memory_bytes)


def _placement(m: Measurement) -> str:
    if m.placement is None:
        return figures.ABSENT
    total = m.placement.num_accelerated + m.placement.num_fallback
    return f"{m.placement.num_accelerated} of {total} operators"


def _of_kind(measured: Sequence[Measurement], kind: str) -> list[Measurement]:
    return [m for m in measured if m.kind == kind]


def _plots(
    answer: Answer,
    key: str,
    measured: Sequence[Measurement],
    evidence: Evidence,
    look: dict[str, Mark],
) -> tuple[list[Plot], list[str]]:
    """Draw all that there is, and say why not what was asked for and is not there."""
    target, spread = answer.target, evidence.distributions.get(answer.target)
    plots = [_sizes(target, f"{key}-sizes", measured, look)] if measured else []
    plots += [
        _tradeoff(target, f"{key}-tradeoff-{kind}", kind, of_kind, look)
        for kind in KINDS
        if tradeoff.drawable(of_kind := _of_kind(measured, kind))
    ]
    if spread is not None and any(m.candidate in spread.of for m in measured):
        plots.append(_distributions(target, f"{key}-times", measured, spread, look))
    further, absent = further_view.plots(answer, key, measured, evidence, look)
    return [*plots, *further], absent


def _tradeoff(
    target: str, key: str, kind: str, of_kind: Sequence[Measurement], look: dict[str, Mark]
) -> Plot:
    title = f"Quality against latency, {kind}"
    front = {m.candidate for m in pareto.front(of_kind)}
    missing = [m for m in of_kind if m not in tradeoff.drawable(of_kind)]
    notes = ["Arrows point to better; the dashed line is the Pareto front, by point values."]
    if kind == "measured":
        notes.append("Bars are 95 % intervals.")
    if kind == "estimated":
        notes.append("Latency is the compiler's estimate: one number, without an interval.")
    if any(look[m.candidate].standing == "ships" for m in of_kind):
        notes.append("What ships has a ring; what is rejected is hollow.")
    if far := tradeoff.far_off(of_kind, look):
        names = ", ".join(look[m.candidate].name for m in far)
        notes.append(f"Off the scale, drawn at its border: {names}.")
    if missing:
        names = ", ".join(look[m.candidate].name for m in missing)
        notes.append(f"Without a figure for both axes, so not drawn: {names}.")
    columns: list[Column[Measurement]] = [
        ("candidate", lambda m: look[m.candidate].name),
        ("p50", figures.latency),
        ("quality on validation", lambda m: figures.quality(m.quality)),
        ("Pareto front", lambda m: "yes" if m.candidate in front else "no"),
    ]
    return Plot(
        key,
        title,
        tradeoff.chart(key, f"{title}, {target}", of_kind, look),
        table(f"{title}: {target}", columns, of_kind),
        tuple(notes),
        _legend(of_kind, look),
    )


def _legend(measured: Sequence[Measurement], look: dict[str, Mark]) -> tuple[Key, ...]:
    return tuple(
        Key(
            marks.icon(mark),
            f"{mark.number} {mark.name}",
            "" if mark.standing == "fits" else mark.standing,
        )
        for mark in (look[m.candidate] for m in measured)
    )


def _sizes(target: str, key: str, measured: Sequence[Measurement], look: dict[str, Mark]) -> Plot:
    columns: list[Column[Measurement]] = [
        ("candidate", lambda m: look[m.candidate].name),
        ("size", lambda m: figures.size(m.size_bytes)),
        ("bytes", lambda m: f"{m.size_bytes:,}"),
    ]
    return Plot(
        key,
        "Size of the artifact",
        bars.chart(key, f"Size of the artifact, {target}", measured, look),
        table(f"Sizes: {target}", columns, measured),
    )


def _distributions(
    target: str,
    key: str,
    measured: Sequence[Measurement],
    spread: Distributions,
    look: dict[str, Mark],
) -> Plot:
    shown = [m for m in measured if m.candidate in spread.of]
    notes = ["The long line is p50; short ticks below are the medians of each restart."]
    beyond = sum(spread.of[m.candidate].num_beyond for m in shown)
    total = sum(spread.of[m.candidate].num_samples for m in shown)
    if beyond:
        notes.append(f"{beyond:,} of {total:,} samples lie beyond the axis.")
    batched = [m for m in shown if spread.of[m.candidate].runs_per_sample > 1]
    if batched:
        names = ", ".join(look[m.candidate].name for m in batched)
        notes.append(f"A sample is the mean of several runs, so no p90 or p99: {names}.")
    columns: list[Column[Measurement]] = [
        ("candidate", lambda m: look[m.candidate].name),
        ("samples", lambda m: f"{spread.of[m.candidate].num_samples:,}"),
        ("p50", figures.latency),
        ("p90", lambda m: figures.duration(m.latency_ms.p90)),
        ("p99", lambda m: figures.duration(m.latency_ms.p99)),
        ("medians of the restarts", lambda m: ", ".join(
            figures.duration(median) for median in spread.of[m.candidate].medians_ms
        )),
        ("beyond the axis", lambda m: f"{spread.of[m.candidate].num_beyond:,}"),
    ]  # fmt: skip
    title = "How latencies are spread"
    by_name = {m.candidate: m for m in shown}
    return Plot(
        key,
        title,
        distributions.chart(key, f"{title}, {target}", by_name, spread, look),
        table(f"Latency distributions: {target}", columns, shown),
        tuple(notes),
    )


def _refusals(answer: Answer, look: dict[str, Mark]) -> list[Refusal]:
    rejected = answer.selection.rejected if answer.selection else ()
    refusals = [
        Refusal(
            marks.icon(look[r.candidate]) if r.candidate in look else Markup(),
            words.readable(r.candidate),
            look[r.candidate].standing if r.candidate in look else "rejected",
            r.reason,
        )
        for r in rejected
    ]
    refusals += [
        Refusal(Markup(), words.readable(n.candidate), "not built", n.reason)
        for n in answer.not_built
    ]
    return refusals
