"""Raw samples that wait on disk: as many as there is room for, in memory that does not grow."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 4 << 20  # of raw samples at once; their tensors take four times that and more


class _Spool:
    """A file without a name, closed when nobody views it any longer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - see __del__

    def __del__(self) -> None:
        self.file.close()


class Rows:
    """Samples [N, ...] of one shape and dtype in a file without a name, read when they are asked.

    The file lies in the folder of the project, not in the system's own for temporary files, which
    may be memory; it is gone with the process, however that ends.
    """

    def __init__(
        self, spool: _Spool, dtype: np.dtype[Any], sample_shape: tuple[int, ...], order: Any
    ) -> None:
        """View the samples of the spool that ``order`` names by their numbers, in that order."""
        self._spool = spool
        self._order = np.asarray(order, dtype=np.int64)
        self._sample_shape = sample_shape
        self.dtype = dtype
        self.sample_bytes = dtype.itemsize * int(np.prod(sample_shape, dtype=np.int64))

    @classmethod
    def spool(cls, samples: Iterable[NDArray[Any]], folder: Path) -> "Rows | None":
        """Write the samples, all alike, to a file in the folder; None when there are none."""
        spool = _Spool(folder)
        first, count = None, 0
        for sample in samples:
            first = sample if first is None else first
            assert (sample.shape, sample.dtype) == (first.shape, first.dtype)
            spool.file.write(np.ascontiguousarray(sample).tobytes())
            count += 1
        if first is None:
            return None
        return cls(spool, first.dtype, first.shape, np.arange(count))

    @property
    def nbytes(self) -> int:
        """As of an array."""
        return self.sample_bytes * len(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array: [N, ...]."""
        return (len(self._order), *self._sample_shape)

    def __len__(self) -> int:
        """N."""
        return len(self._order)

    def select(self, chosen: Any) -> "Rows":
        """View some of these rows, by their numbers here, in that order."""
        return Rows(self._spool, self.dtype, self._sample_shape, self._order[chosen])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Read one sample after the other."""
        file = self._spool.file
        for number in self._order:
            file.seek(int(number) * self.sample_bytes)
            content = file.read(self.sample_bytes)
            yield np.frombuffer(content, self.dtype).reshape(self._sample_shape)

    def load(self) -> NDArray[Any]:
        """Read all of these rows into memory."""
        return np.stack(list(self))


def chunks(inputs: "NDArray[Any] | Rows") -> Iterator[slice]:
    """Cut samples [N, ...] into runs of about CHUNK_BYTES, of at least one sample each."""
    num_bytes = inputs.dtype.itemsize * int(np.prod(inputs.shape[1:], dtype=np.int64))
    size = max(1, CHUNK_BYTES // max(1, num_bytes))
    for start in range(0, len(inputs), size):
        yield slice(start, start + size)
