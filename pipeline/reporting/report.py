"""The report: models/report/report.md and report.json, from the answers and the stages' figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline import files
from pipeline.measurement import Measurement
from pipeline.reporting import words
from pipeline.reporting.answer import Answer

NOTE = (
    "Accuracy is on the test split, read once; intervals are 95 %; latency is p50, SingleStream, "
    "batch 1; - and + of accuracy are paired differences on identical inputs.\n"
)
HEADER = ("target", "artifact", "size", "p50", "test accuracy", "against fp32")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `slipway report` writes as report.json. ``stages`` holds each stage's own metrics."""

    schema_version: int = 1
    model: str
    answers: tuple[Answer, ...]
    stages: dict[str, dict[str, Any]]


def ships_table(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Give one row a target for the table "What ships"."""
    rows: list[tuple[str, ...]] = []
    for answer in answers:
        m = answer.artifact
        if m is None:
            rows.append((answer.target, "nothing (why: below)", "", "", "", ""))
            continue
        against = f"{m.latency_ratio.value:.2f} x latency" if m.latency_ratio else "the reference"
        if m.drop is not None:
            against += f", {-m.drop.value:+.2f} pt"
        rows.append(
            (
                answer.target,
                words.readable(m.candidate),
                words.size(m.size_bytes),
                words.duration(m.latency_ms.p50),
                words.quality(m),
                against,
            )
        )
    return rows


def write(report: Report, out: Path) -> None:
    """Write report.json and report.md."""
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomic(out / "report.json", files.encode_json(report))
    files.write_atomic(out / "report.md", markdown(report).encode())


def read(path: Path) -> Report:
    """Read report.json."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def markdown(report: Report) -> str:
    """Write the report as a page: the answer first, then the evidence for it."""
    parts = [
        f"# {report.model}: what ships\n",
        *(f"- {words.headline(answer)}" for answer in report.answers),
        "",
        _table(HEADER, ships_table(report.answers)),
        NOTE,
        *(_target(answer) for answer in report.answers),
        _stages(report.stages),
    ]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _target(answer: Answer) -> str:
    lines = [f"## {answer.target}\n", *(f"- {line}" for line in words.explain(answer)), ""]
    if answer.candidates:
        header = ("candidate", "size", "p50 [95 %]", "p90", "against fp32 [95 %]",
                  "validation accuracy", "drop [95 %]", "load", "peak memory", "")  # fmt: skip
        lines.append(_table(header, [_row(answer, m) for m in _ordered(answer)]))
    return "\n".join(lines)


def _ordered(answer: Answer) -> list[Measurement]:
    """Put the ranked candidates first, best first; then the rejected ones by name."""
    ranking = answer.selection.ranking if answer.selection else ()
    place = {candidate: index for index, candidate in enumerate(ranking)}
    return sorted(
        answer.candidates, key=lambda m: (place.get(m.candidate, len(place)), m.candidate)
    )


def _row(answer: Answer, m: Measurement) -> tuple[str, ...]:
    s = answer.selection
    verdict = "rejected"
    if s is not None and m.candidate in s.ranking:
        verdict = "ships" if m.candidate == s.chosen else ""
    peak = "absent" if m.peak_memory_bytes is None else words.size(m.peak_memory_bytes)
    if m.kind == "not_measured":
        verdict = f"not measured: {m.reason}"
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


def _stages(stages: dict[str, dict[str, Any]]) -> str:
    """Show each stage's figures as they are: one row a variant, one column a figure."""
    parts = ["## How the variants were made\n"]
    for stage, variants in stages.items():
        columns = sorted({key for figures in variants.values() for key in figures})
        rows = [
            [variant, *(_figure(figures.get(column)) for column in columns)]
            for variant, figures in variants.items()
        ]
        parts += [f"### {stage}\n", _table(["variant", *columns], rows)]
    return "\n".join(parts)


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )
