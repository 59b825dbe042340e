"""Inputs that stay in their file: preprocessed batch by batch, in memory that does not grow.

Shapes: N samples, B of one batch.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.splits import Split


class Streamed:
    """The inputs [N, ...] of a split, read and preprocessed when they are asked for.

    What is asked for is the same, bit for bit, as that part of all inputs preprocessed at once.
    """

    def __init__(self, split: Split, chosen: NDArray[np.int64] | None = None) -> None:
        """View the samples that ``chosen`` numbers, or all."""
        self._split = split
        self._chosen = np.arange(len(split.labels)) if chosen is None else chosen
        self.shape = torch.Size((len(self._chosen), *split.tensors(slice(0, 1)).shape[1:]))

    def __len__(self) -> int:
        """N."""
        return len(self._chosen)

    def __getitem__(self, key: slice | torch.Tensor) -> torch.Tensor:
        """Return samples [B, ...] by a slice or by their numbers [B]."""
        return torch.from_numpy(self._tensors(key if isinstance(key, slice) else key.numpy()))

    def select(self, chosen: torch.Tensor) -> "Streamed":
        """View those samples for which ``chosen`` [N] is true."""
        return Streamed(self._split, self._chosen[chosen.numpy()])

    def numpy(self) -> NDArray[np.float32]:
        """Read all inputs into memory, as a tensor's ``numpy`` gives them."""
        return self._tensors(slice(None))

    def _tensors(self, key: Any) -> NDArray[np.float32]:
        return self._split.tensors(self._chosen[key])


Inputs = torch.Tensor | Streamed
