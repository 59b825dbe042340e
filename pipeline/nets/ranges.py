"""What quantization-aware training settled on: the range of each layer's input and weights.

A net and its ranges are all that int8 needs; `on_grids` puts both together. Shapes: O output
channels of a layer.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline import files
from pipeline.errors import NetError

FILE_NAME = "ranges.json"


class Range(msgspec.Struct, frozen=True):
    """One layer's grids: symmetric int8, the scale is amax / 127.

    ``activation_amax`` is of its input, ``activation_min`` the smallest input seen (0 behind a
    ReLU), never below -amax. ``weight_amax`` [O] is of its weight with batch norm folded;
    ``weight_norm`` is the root of that weight's sum of squares, by which a converter finds the
    layer in a graph of its own.
    """

    layer: str
    activation_amax: float
    activation_min: float
    weight_amax: tuple[float, ...]
    weight_norm: float


def write(directory: Path, ranges: Sequence[Range]) -> None:
    """Write the ranges, in the order in which layers run, into a net directory."""
    files.write_atomic(directory / FILE_NAME, files.encode_json(list(ranges)))


def read(directory: Path) -> tuple[Range, ...] | None:
    """Return the ranges of a net directory, None where the net was not trained for int8.

    Raises:
        NetError: the file is malformed.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Range, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NetError(f"{path} cannot be read: {error}; restore it (dvc checkout)") from error
