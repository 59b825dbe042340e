"""The page report.html: one file, no script, nothing from the network (ADR 0010)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup, escape

from pipeline.measurement import Kind, Measurement
from pipeline.reporting import across_view, chain_view, figures, stage_tables, target_view, words
from pipeline.reporting.across import NO_AGREEMENTS, Agreements
from pipeline.reporting.answer import Answer
from pipeline.reporting.charts import marks, ratios
from pipeline.reporting.charts.scales import Scale
from pipeline.reporting.evidence import Evidence
from pipeline.reporting.figures import Figure

# How each kind of evidence is called and what it is worth, in the order of trust.
MEANINGS: dict[Kind, str] = {
    "measured": "timed on the hardware named, with 95 % intervals",
    "emulated": "run on an emulator: quality holds, time does not",
    "estimated": "computed by the target's compiler; never compared with a measured time",
    "built": "built and never run: neither time nor quality is known",
}


NO_FIGURE = Figure("")


@dataclass(frozen=True)
class AnswerRow:
    """One line of the table on top."""

    target: str
    where: tuple[str, ...]
    status: str
    reason: str
    variant: str = ""
    precision: str = ""
    kind: str = ""
    latency: Figure = NO_FIGURE
    size: Figure = NO_FIGURE
    quality: Figure = NO_FIGURE
    lost: Figure = NO_FIGURE
    ratio: Figure = NO_FIGURE
    interval: Markup | None = None
    noise: str = ""
    changes: tuple[str, ...] = ()


def render(
    model: str,
    answers: Sequence[Answer],
    stages: dict[str, dict[str, Any]],
    evidence: Evidence,
    agreements: Agreements = NO_AGREEMENTS,
) -> str:
    """Write the page; every text from outside is escaped."""
    series = marks.series_of(answers)
    shown = {a.artifact.kind for a in answers if a.artifact is not None}
    template = _environment().get_template("report.html")
    return template.render(
        model=model,
        summary=_summary(answers),
        newest=max((a.artifact.time for a in answers if a.artifact), default=""),
        rows=_rows(answers),
        metrics=_metrics(answers),
        meanings={kind: text for kind, text in MEANINGS.items() if kind in shown},
        targets=[target_view.view(a, i, evidence, series) for i, a in enumerate(answers)],
        agreement=across_view.tables(agreements),
        left_out=agreements.left_out,
        stages=stage_tables.tables(stages),
        sensitivity=chain_view.sensitivity_plot(evidence.sensitivity, series),
        curves=chain_view.curve_plots(evidence.curves),
        lineage=chain_view.lineage_plot(evidence.lineage),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "sentence": sentence}
    return environment


def prose(line: str) -> Markup:
    """Set what stands in backticks in bold, and intervals in words; all else is escaped text."""
    written = re.sub(r"(?<=\d) us\b", " \N{MICRO SIGN}s", line)
    written = re.sub(
        r"(?<=\d) (?=(\N{MICRO SIGN}s|ms|B|kB|MB|%|points?)\b)", figures.SPACE, written
    )
    written = re.sub(r"\[(\S[^\[\]]*?)\.\.([^\[\]]*\S)\]", r"(\1 to \2)", written)
    return Markup(re.sub(r"`([^`]*)`", r"<b>\1</b>", str(escape(written))))  # noqa: S704 - escaped


def sentence(line: str) -> str:
    """Begin a reason with a capital and end it with a full stop."""
    return f"{line[:1].upper()}{line[1:].rstrip('.')}."


def _summary(answers: Sequence[Answer]) -> str:
    ships = sum(answer.status == "ships" for answer in answers)
    if len(answers) == 1:
        return "The target ships." if ships else "Nothing ships on the target."
    if ships == len(answers):
        return f"All {ships} targets ship."
    return f"{ships or 'None'} of {len(answers)} targets {'ships' if ships == 1 else 'ship'}."


def _metrics(answers: Sequence[Answer]) -> str:
    """Name the metric if all targets share one."""
    found = {a.artifact.quality.metric for a in answers if a.artifact and a.artifact.quality}
    return found.pop() if len(found) == 1 else "quality"


def _rows(answers: Sequence[Answer]) -> list[AnswerRow]:
    """Make the table on top; intervals share one scale, for measured targets alone."""
    measured = [
        a.artifact.latency_ratio
        for a in answers
        if a.artifact and a.artifact.kind == "measured" and a.artifact.latency_ratio
    ]
    scale = ratios.shared_scale(measured)
    return [_row(answer, scale) for answer in answers]


def _row(answer: Answer, scale: Scale) -> AnswerRow:
    m = answer.artifact
    if m is None:
        reason = answer.reason or "no candidate can ship"
        changes = target_view.changes(answer)
        return AnswerRow(answer.target, (), answer.status, reason, changes=changes)
    variant, precision = words.parts(m.candidate)
    drawn = m.latency_ratio if m.kind == "measured" else None
    return AnswerRow(
        target=answer.target,
        where=_where(m),
        status=answer.status,
        reason="",
        variant=variant,
        precision=precision,
        kind=m.kind,
        latency=figures.latency(m),
        size=Figure(figures.size(m.size_bytes), _against(m, answer.reference)),
        quality=figures.quality(m.quality),
        lost=figures.lost(m.drop, m.quality) if m.drop else NO_FIGURE,
        ratio=_ratio(m, answer),
        interval=ratios.chart(drawn, scale) if drawn else None,
        noise=figures.noise(m),
        changes=target_view.changes(answer),
    )


def _where(m: Measurement) -> tuple[str, ...]:
    runtime = " ".join(filter(None, (m.runtime, m.runtime_version)))
    return tuple(filter(None, (runtime, str(m.device.get("cpu_model", "")))))


def _against(m: Measurement, reference: Measurement | None) -> str:
    if reference is None or reference.candidate == m.candidate:
        return ""
    return f"{figures.ratio(m.size_bytes / max(1, reference.size_bytes))} of fp32"


def _ratio(m: Measurement, answer: Answer) -> Figure:
    if answer.selection is not None and m.candidate == answer.selection.reference:
        return Figure(f"1{figures.TIMES}", "the fp32 reference itself")
    if m.latency_ratio is None:
        return Figure(figures.ABSENT)
    if m.kind != "measured":
        return Figure(figures.ratio(m.latency_ratio.value), m.kind)
    value, interval = figures.ratio_interval(m.latency_ratio)
    doubt = "" if figures.is_settled(m.latency_ratio) else ", not shown to differ"
    return Figure(value, interval + doubt)
