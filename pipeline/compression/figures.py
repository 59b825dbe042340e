"""What a net costs and how well it does, before and after a step: as metrics and as a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from pipeline import files
from pipeline.nets.count import count
from pipeline.training.loop import Tensors, evaluate

Rows = Mapping[str, tuple["Figures | None", "Figures"]]  # variant -> before, after


@dataclass(frozen=True)
class Figures:
    """Costs as `nets.count` gives them; ``validation_accuracy`` in percent."""

    parameters: int
    macs: int
    size_bytes: int
    validation_accuracy: float


def measure(net: nn.Module, input_shape: tuple[int, ...], validation: Tensors) -> Figures:
    """Count the net and evaluate it on validation."""
    counts = count(net, input_shape)
    accuracy = evaluate(net, validation).accuracy
    return Figures(counts.parameters, counts.macs, counts.size_bytes, accuracy)


def write(path: Path, rows: Rows, more: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write DVC metrics: a variant's figures, those before as ``*_before``, ``more`` of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    laid_out = {
        name: {
            **asdict(after),
            **({f"{key}_before": v for key, v in asdict(before).items()} if before else {}),
            **(more or {}).get(name, {}),
        }
        for name, (before, after) in rows.items()
    }
    files.write_atomic(path, files.encode_json(laid_out))


def table(rows: Rows) -> Table:
    """Draw one row a variant, each cell ``before -> after``; before is None for a first net."""
    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "parameters", "MACs", "size", "validation"):
        drawn.add_column(heading, justify="left" if not heading else "right")
    for name, (before, after) in rows.items():
        cells = zip(_cells(before or after), _cells(after), strict=True)
        drawn.add_row(name, *(_change(old, new) for old, new in cells))
    return drawn


def costs(before: Figures, after: Figures) -> str:
    """Say in one line what a step did to the costs."""
    old, new = _cells(before), _cells(after)
    return f"MACs {_change(old[1], new[1])}   parameters {_change(old[0], new[0])}"


def scaled(value: float, unit: str = "") -> str:
    """Write a count with three digits and a prefix: ``77.4 k``, ``12.5 MB``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.5 and above would be written as 1e+03
        if value >= 0.9995 * factor:
            return f"{value / factor:#.3g}".rstrip(".") + f" {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def _change(old: str, new: str) -> str:
    return new if old == new else f"{old} -> {new}"


def _cells(figures: Figures) -> tuple[str, str, str, str]:
    return (
        scaled(figures.parameters),
        scaled(figures.macs),
        scaled(figures.size_bytes, "B"),
        f"{figures.validation_accuracy:.1f} %",
    )
