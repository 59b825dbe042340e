"""All samples of a data source, before they are split."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pipeline.data.rows import Rows


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw ``inputs`` [N, ...], in memory or waiting on disk, structured where there are several.

    ``labels`` are int64 [N] in 0..len(label_names)-1; float32 [N] or [N, K] where the task is
    regression; zeros, without names, where it needs none. ``groups`` [N] says whose each sample is,
    such as a speaker, where the source knows that.
    """

    inputs: NDArray[Any] | Rows
    labels: NDArray[Any]
    label_names: tuple[str, ...]
    groups: tuple[str, ...] = ()
