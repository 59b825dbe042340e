"""What a net costs and how well it does, before and after a step: as metrics and as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from pipeline import files
from pipeline.console import scaled
from pipeline.nets.count import count
from pipeline.training.loop import Tensors, evaluate
from pipeline.training.objective import CLASSIFICATION, Objective

Rows = Mapping[str, tuple["Figures | None", "Figures"]]  # variant -> before, after


@dataclass(frozen=True)
class Figures:
    """Costs as `nets.count` gives them; ``quality`` by the objective's metric on validation."""

    parameters: int
    macs: int
    size_bytes: int
    quality: float
    objective: Objective = CLASSIFICATION

    def as_metrics(self) -> dict[str, Any]:
        """Return what a metrics file holds; the quality's key names its metric."""
        return {
            "parameters": self.parameters,
            "macs": self.macs,
            "size_bytes": self.size_bytes,
            self.objective.validation_key: self.quality,
        }


def measure(
    net: nn.Module,
    input_shape: tuple[int, ...],
    validation: Tensors,
    objective: Objective = CLASSIFICATION,
) -> Figures:
    """Count the net and evaluate it on validation."""
    counts = count(net, input_shape)
    quality = evaluate(net, validation, objective).quality
    return Figures(counts.parameters, counts.macs, counts.size_bytes, quality, objective)


def write(path: Path, rows: Rows, more: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write DVC metrics: a variant's figures, those before as ``*_before``, ``more`` of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    laid_out = {
        name: {
            **after.as_metrics(),
            **({f"{key}_before": v for key, v in before.as_metrics().items()} if before else {}),
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


def _change(old: str, new: str) -> str:
    return new if old == new else f"{old} -> {new}"


def _cells(figures: Figures) -> tuple[str, str, str, str]:
    return (
        scaled(figures.parameters),
        scaled(figures.macs),
        scaled(figures.size_bytes, "B"),
        figures.objective.words(figures.quality),
    )
