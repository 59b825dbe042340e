"""All samples of a data source, before they are split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw ``inputs`` [N, ...], ``labels`` [N] in 0..len(label_names)-1."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
