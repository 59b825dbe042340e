"""What every runtime adapter gives: a loaded model with typed inputs and outputs.

An adapter is a module with ``load(model: str, num_threads: int, batch_size: int = 1) -> Session``
that raises `RunnerError` when the runtime refuses the model, or cannot take so many samples at
once. A request is one sample, or ``batch_size`` of them along the first axis of every tensor, in
the artifact's own dtypes.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from pipeline.runtimes import structured
from pipeline.runtimes.errors import RunnerError

Array = NDArray[Any]


class Tensor(NamedTuple):
    """One input or output as the runtime reports it; a string in ``shape`` is a dynamic axis."""

    name: str
    dtype: str
    shape: Tuple[Union[int, str], ...]
    scale: Optional[float] = None
    zero_point: Optional[int] = None


class Session(Protocol):
    """A loaded model. ``facts`` says what really runs: runtime, version, provider, kernels."""

    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    facts: Dict[str, Any]

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Copy in, run, copy out: one request in the artifact's own dtypes."""
        ...


def check_batch(tensors: Sequence[Tensor], batch_size: int, what: str) -> None:
    """Refuse a model whose inputs and outputs do not all have room for that many samples.

    Args:
        tensors: of a model loaded for ``batch_size``; one sample fits everywhere.
        batch_size: how many samples a request has.
        what: the runtime, for the message.
    """
    for tensor in tensors if batch_size != 1 else ():
        has_room = [isinstance(axis, str) or axis == batch_size for axis in tensor.shape[:1]]
        if has_room != [True]:
            raise RunnerError(
                "%s takes no batch of %d: the first axis of %r is fixed, its shape is %s; leave "
                "batch_size at 1, or make a file with a free batch axis"
                % (what, batch_size, tensor.name, list(tensor.shape))
            )


def refuse_batch(batch_size: int, what: str) -> None:
    """Refuse more than one sample a request where the runtime's files fix it at one."""
    if batch_size != 1:
        raise RunnerError(
            "%s takes no batch of %d: its files are made for one sample; leave batch_size at 1"
            % (what, batch_size)
        )


def of_one(tensors: Sequence[Tensor]) -> List[Tensor]:
    """Return a batch's inputs as they are for one sample of it, to encode that one."""
    return [tensor._replace(shape=(1, *tensor.shape[1:])) for tensor in tensors]


def encode(sample: Array, tensor: Tensor) -> Array:
    """Turn floats into what the artifact takes: a cast, or q = round(r / scale) + zero_point.

    Rounds half to even and saturates. Raises `RunnerError` when the shape differs or an integer
    input states no scale.
    """
    if not _fits(sample.shape, tensor.shape):
        raise RunnerError(
            "input %r takes shape %s, the preprocessed sample has %s; correct data.preprocessing"
            % (tensor.name, list(tensor.shape), list(sample.shape))
        )
    dtype = np.dtype(tensor.dtype)
    if not np.issubdtype(dtype, np.integer):
        return np.ascontiguousarray(sample, dtype=dtype)
    scale, zero_point = _quantization(tensor)
    limits = np.iinfo(dtype)
    # float64: at int16 and above a float32 quotient would already be off by one step
    levels = np.rint(sample.astype(np.float64) / scale) + zero_point
    return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), dtype=dtype)


def decode(output: Array, tensor: Tensor) -> NDArray[np.float32]:
    """Turn what the artifact gives into float32: a cast, or r = scale * (q - zero_point)."""
    if not np.issubdtype(output.dtype, np.integer):
        return output.astype(np.float32)
    scale, zero_point = _quantization(tensor)
    return ((output.astype(np.float64) - zero_point) * scale).astype(np.float32)


def encode_all(sample: Array, tensors: Sequence[Tensor]) -> List[Array]:
    """Encode one preprocessed sample for every input of a session, in the session's order.

    Args:
        sample: [1, ...] goes to the only input, whatever its name; a structured array [1] goes to
            the inputs by name.
        tensors: the session's inputs.

    Raises:
        RunnerError: the names differ, or as `encode`.
    """
    names = sample.dtype.names
    if names is None and len(tensors) == 1:
        return [encode(sample, tensors[0])]
    if set(names or ()) != {tensor.name for tensor in tensors}:
        raise RunnerError(
            "the model takes inputs %s, the samples have %s; give each input its array inputs.NAME"
            % (sorted(tensor.name for tensor in tensors), sorted(names or ("one without a name",)))
        )
    return [encode(sample[tensor.name], tensor) for tensor in tensors]


def decode_all(outputs: Sequence[Array], tensors: Sequence[Tensor]) -> Array:
    """Decode a session's outputs to one sample: [1, ...], or structured [1] when there are several.

    Raises:
        RunnerError: the first axis of one of several is not the batch of one, or as `decode`.
    """
    if len(tensors) == 1:
        return decode(outputs[0], tensors[0])
    decoded = {}
    for output, tensor in zip(outputs, tensors):  # noqa: B905 - Python 3.8
        if output.shape[:1] != (1,):
            raise RunnerError(
                "output %r has shape %s, its first axis must be the batch of 1; mend the model"
                % (tensor.name, list(output.shape))
            )
        decoded[tensor.name] = decode(output, tensor)
    return structured.join(decoded)


def _quantization(tensor: Tensor) -> Tuple[float, int]:
    if tensor.scale is None or tensor.zero_point is None:
        raise RunnerError(
            "%r is %s but states no scale; convert it with quantized or float inputs and outputs"
            % (tensor.name, tensor.dtype)
        )
    return tensor.scale, tensor.zero_point


def _fits(shape: Tuple[int, ...], expected: Tuple[Union[int, str], ...]) -> bool:
    return len(shape) == len(expected) and all(
        isinstance(want, str) or have == want
        for have, want in zip(shape, expected)  # noqa: B905 - Python 3.8
    )
