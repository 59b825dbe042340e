"""Ranges that quantization-aware training learned, found again in a converter's own graph.

A converter lays a net out anew: other names, other axes, batch norm folded. The weights stay, and
by their number and the root of their sum of squares each layer is known again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConversionError
from pipeline.nets.ranges import FILE_NAME, Range

RELATIVE_TOLERANCE = 1e-4  # folding batch norm in another order of float32 operations


def said(directory: Path | None, precision: str) -> tuple[dict[str, str], dict[str, Path]]:
    """Return the settings and sources that an int8-static candidate with learned ranges adds."""
    path = None if directory is None else directory / FILE_NAME
    if path is None or precision != "int8-static" or not path.is_file():
        return {}, {}
    return {"ranges": "learned"}, {"ranges": path}


@dataclass(frozen=True)
class Reader:
    """An operator that multiplies an activation, by name, with a constant weight."""

    activation: str
    weight: NDArray[np.float32]


def by_activation(
    ranges: Sequence[Range], readers: Sequence[Reader]
) -> Mapping[str, tuple[float, float]]:
    """Map each activation that a layer reads to its learned (lowest, highest) value.

    An activation with several readers gets the widest range.

    Raises:
        ConversionError: a layer is not found, or two could be the same.
    """
    found: dict[str, tuple[float, float]] = {}
    taken: set[int] = set()
    for entry in ranges:
        fitting = [
            number
            for number, reader in enumerate(readers)
            if number not in taken and _fits(entry, reader.weight)
        ]
        if len(fitting) != 1:
            raise ConversionError(
                f"the learned range of layer {entry.layer} fits {len(fitting)} operators of the "
                "converted graph, one is needed; let the recipe's quantize settings go without qat"
            )
        taken.add(fitting[0])
        name = readers[fitting[0]].activation
        low, high = found.get(name, (0.0, 0.0))
        # never beyond the layer's own grid, and 0 always has a place
        found[name] = min(low, entry.activation_min), max(high, entry.activation_amax)
    return found


def _fits(entry: Range, weight: NDArray[np.float32]) -> bool:
    if weight.size % len(entry.weight_amax):
        return False
    norm = float(np.linalg.norm(weight.astype(np.float64)))
    return abs(norm - entry.weight_norm) <= RELATIVE_TOLERANCE * entry.weight_norm
