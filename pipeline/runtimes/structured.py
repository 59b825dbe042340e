"""Several inputs or outputs in one array: a numpy structured array [N] with a field for each.

A net with one input or one output has a plain array [N, ...] instead; every function takes both.
"""

from __future__ import annotations

from typing import Any, List, Mapping, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def parts(array: Array) -> List[Array]:
    """Return the plain arrays [N, ...] within: every field in order, or the array itself."""
    names = array.dtype.names
    return [array] if names is None else [array[name] for name in names]


def join(named: Mapping[str, Array]) -> Array:
    """Return a structured array [N] with a field for each array [N, ...], in their order."""
    fields = [(name, array.dtype, array.shape[1:]) for name, array in named.items()]
    joined = np.empty(len(next(iter(named.values()))), dtype=np.dtype(cast(Any, fields)))
    for name, array in named.items():
        joined[name] = array
    return joined


def finite_rows(array: Array) -> NDArray[np.bool_]:
    """Say of each sample [N] whether all of its values are finite."""
    found = np.ones(len(array), np.bool_)
    for part in parts(array):
        found &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    return found
