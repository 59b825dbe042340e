"""The stages' own figures as tables: one row a variant, before -> after."""

from typing import Any, NamedTuple

# The stages in the order of the chain, and headings of their figures; others go by their keys.
STAGES = ("train", "prune", "distill", "quantize", "adopt", "export")
HEADINGS = {
    "parameters": "parameters",
    "macs": "MACs",
    "size_bytes": "bytes",
    "validation_accuracy": "validation accuracy, %",
    "distilled_accuracy": "distilled, %",
    "fine_tuned_accuracy": "fine-tuned alone, %",
    "max_abs_error": "largest error against the source",
    "top1_agreement_ratio": "equal classes, ratio",
    "num_layers": "layers scored",
    "most_sensitive": "most sensitive layer",
    "lowest_sqnr_db": "its SQNR, dB",
    "lowest_top1_agreement": "its equal classes, ratio",
    "winner": "kept",
}


class StageTable(NamedTuple):
    """The figures of one stage."""

    stage: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(stages: dict[str, dict[str, Any]]) -> list[StageTable]:
    """Make a table a stage: one row a variant, one column a figure."""
    ordered = [name for name in STAGES if name in stages]
    ordered += sorted(stages.keys() - set(ordered))
    return [_table(name, stages[name]) for name in ordered]


def _table(stage: str, metrics: dict[str, Any]) -> StageTable:
    variants = {name: _merge(figures) for name, figures in metrics.items()}
    known = {key for figures in variants.values() for key in figures}
    columns = [key for key in HEADINGS if key in known] + sorted(known - HEADINGS.keys())
    return StageTable(
        stage,
        ("variant", *(HEADINGS.get(column, column) for column in columns)),
        tuple(
            (name, *(figures.get(column, "") for column in columns))
            for name, figures in variants.items()
        ),
    )


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
