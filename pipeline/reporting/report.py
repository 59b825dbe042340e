"""The report as report.json, report.md and report.html: the answers and what lies behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline import files
from pipeline.measurement import Measurement
from pipeline.reporting import stage_tables, words
from pipeline.reporting.across import NO_AGREEMENTS, Agreements
from pipeline.reporting.answer import Answer, ordered
from pipeline.reporting.evidence import Sources


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `slipway report` writes as report.json. ``stages`` holds each stage's own metrics."""

    schema_version: int = 1
    model: str
    answers: tuple[Answer, ...]
    stages: dict[str, dict[str, Any]]
    agreements: Agreements = NO_AGREEMENTS


def header(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Head the columns of `ships_table`."""
    metric, lost = words.metric(answers), words.lost(answers)
    return ("target", "artifact", "size", "p50", f"test {metric}", "latency, fp32 = 1", lost)


def note(answers: Sequence[Answer]) -> str:
    """Say how the figures of `ships_table` are to be read."""
    metric, lost = words.metric(answers), words.lost(answers)
    of_fp32, of_artifact = f"the {metric} of fp32", "the artifact's"
    minus = f"{of_fp32} minus {of_artifact}"
    if words.lower_is_better(answers):
        minus = f"{of_artifact} minus {of_fp32}"
    return (
        f"{metric[:1].upper()}{metric[1:]} is on the test split, read once; intervals are 95 %; "
        f"latency is p50, SingleStream, batch 1; {lost} are {minus}, paired on equal inputs; "
        "ratios are paired by round, so they need not be the quotient of two p50.\n"
    )


def ships_table(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Give one row a target for the table "What ships"."""
    rows: list[tuple[str, ...]] = []
    for answer in answers:
        m = answer.artifact
        if m is None:
            rows.append((answer.target, "nothing (why: below)", "", "", "", "", ""))
            continue
        rows.append(
            (
                answer.target,
                words.readable(m.candidate),
                words.size(m.size_bytes),
                words.latency(m),
                words.quality(m),
                words.ratio(m),
                words.drop(m),
            )
        )
    return rows


def write(report: Report, out: Path, sources: Sources) -> None:
    """Write report.json, report.md and the page report.html, which also shows the evidence."""
    from pipeline.reporting import evidence, page  # the template engine

    found = evidence.read(sources)
    shown = page.render(report.model, report.answers, report.stages, found, report.agreements)
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomic(out / "report.json", files.encode_json(report))
    files.write_atomic(out / "report.md", markdown(report).encode())
    files.write_atomic(out / "report.html", shown.encode())


def read(path: Path) -> Report:
    """Read report.json."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def markdown(report: Report) -> str:
    """Write the report as a page: the answer first, then the evidence for it."""
    parts = [
        f"# {report.model}: what ships\n",
        *(f"- {words.headline(answer)}" for answer in report.answers),
        "",
        _table(header(report.answers), ships_table(report.answers)),
        note(report.answers),
        *(_target(answer) for answer in report.answers),
        *_agreements(report.agreements),
        "## How the variants were made\n",
    ]
    for made in stage_tables.tables(report.stages):
        parts += [f"### {made.stage}\n", _table(made.header, made.rows)]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _target(answer: Answer) -> str:
    lines = [f"## {answer.target}\n", *(f"- {line}" for line in words.explain(answer)), ""]
    if answer.candidates:
        columns = ("candidate", "size", "p50 [95 %]", "p90", "against fp32 [95 %]",
                   f"validation {words.metric([answer])}", "drop [95 %]", "load", "peak memory",
                   "")  # fmt: skip
        lines.append(_table(columns, [_row(answer, m) for m in ordered(answer)]))
    return "\n".join(lines)


def _agreements(found: Agreements) -> list[str]:
    from pipeline.reporting import across_view  # views hold markup

    parts = ["## How far outputs agree\n"] if found.against_fp32 or found.between else []
    for made in across_view.tables(found):
        rows = [[str(cell) for cell in row] for row in made.rows]
        parts += [f"### {made.caption}\n", _table(made.header, rows)]
    return [*parts, *(f"- Not compared: {line}." for line in found.left_out)]


def _row(answer: Answer, m: Measurement) -> tuple[str, ...]:
    s = answer.selection
    verdict = "rejected"
    if s is not None and m.candidate in s.ranking:
        verdict = "ships" if m.candidate == s.chosen else ""
    peak = "absent" if m.peak_memory_bytes is None else words.size(m.peak_memory_bytes)
    if m.kind == "not_measured":
        verdict = f"not measured: {m.reason}"
    if m.kind == "built":
        verdict = f"{verdict}; {words.unproven(m)}".removeprefix("; ")
    return (
        words.readable(m.candidate),
        words.size(m.size_bytes),
        words.latency(m),
        words.duration(m.latency_ms.p90),
        words.ratio(m),
        words.quality(m),
        words.drop(m),
        words.duration(m.load_ms),
        peak,
        verdict,
    )
