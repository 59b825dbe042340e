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
    "batch 1; points lost are the accuracy of fp32 minus the artifact's, paired on equal inputs; "
    "ratios are paired by round, so they need not be the quotient of two p50.\n"
)
HEADER = ("target", "artifact", "size", "p50", "test accuracy", "latency, fp32 = 1", "points lost")


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


# The stages in the order of the chain, and headings of their figures; others go by their keys.
STAGES = ("train", "prune", "distill", "quantize", "export")
HEADINGS = {
    "parameters": "parameters",
    "macs": "MACs",
    "size_bytes": "bytes",
    "validation_accuracy": "validation accuracy, %",
    "distilled_accuracy": "distilled, %",
    "fine_tuned_accuracy": "fine-tuned alone, %",
    "max_abs_error": "largest error against PyTorch",
    "top1_agreement_ratio": "equal classes, ratio",
    "num_layers": "layers scored",
    "most_sensitive": "most sensitive layer",
    "lowest_sqnr_db": "its SQNR, dB",
    "lowest_top1_agreement": "its equal classes, ratio",
    "winner": "kept",
}


def _stages(stages: dict[str, dict[str, Any]]) -> str:
    """Show each stage's figures, before -> after: one row a variant, one column a figure."""
    parts = ["## How the variants were made\n"]
    ordered = [name for name in STAGES if name in stages]
    for stage in [*ordered, *sorted(stages.keys() - set(ordered))]:
        variants = {name: _merge(figures) for name, figures in stages[stage].items()}
        known = {key for figures in variants.values() for key in figures}
        columns = [key for key in HEADINGS if key in known] + sorted(known - HEADINGS.keys())
        rows = [
            [name, *(figures.get(c, "") for c in columns)] for name, figures in variants.items()
        ]
        header = ["variant", *(HEADINGS.get(column, column) for column in columns)]
        parts += [f"### {stage}\n", _table(header, rows)]
    return "\n".join(parts)


def _merge(figures: dict[str, Any]) -> dict[str, str]:
    """Write ``x_before`` and ``x`` as one cell, and a difference with its interval and n."""
    merged = {
        key: _change(figures.get(f"{key}_before"), value)
        for key, value in figures.items()
        if not key.endswith("_before") and not key.startswith("difference") and key != "n"
    }
    if "difference" in figures:
        merged["distilled - fine-tuned, points [95 %]"] = (
            f"{figures['difference']:+.2f} [{figures['difference_lower']:+.2f}.."
            f"{figures['difference_upper']:+.2f}], n={figures['n']}"
        )
    return merged


def _change(before: Any, after: Any) -> str:
    old, new = _figure(before), _figure(after)
    return new if before is None or old == new else f"{old} -> {new}"


def _figure(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
