"""What an ONNX file gives: samples through ONNX Runtime's CPU provider. Shapes: N samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from pipeline.conversion import candidates
from pipeline.errors import ConversionError

LOG_ERRORS = 3
# What a session raises for a model that it does not take; none of them is a RuntimeError.
REFUSALS = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NotImplemented,
    states.RuntimeException,
)


def feeds(names: Sequence[str], samples: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Give each input its samples [N, ...]: a plain array to the one, fields to those of the name.

    Raises:
        ConversionError: the names differ.
    """
    fields = samples.dtype.names
    if fields is None and len(names) == 1:
        return {names[0]: samples}
    if set(fields or ()) != set(names):
        raise ConversionError(
            f"the model takes inputs {sorted(names)}, the samples have "
            f"{sorted(fields) if fields else 'one without a name'}; give each input its array "
            "inputs.NAME in the data"
        )
    return {name: np.ascontiguousarray(samples[name]) for name in names}


def run(content: bytes, samples: NDArray[Any], batch: int) -> dict[str, NDArray[Any]]:
    """Run all samples, ``batch`` at once, and return each output [N, ...] by name.

    The last batch is filled up with the last sample, so that a file with a fixed batch runs too.

    Raises:
        ConversionError: ONNX Runtime refuses the file or the samples, or an output does not have
            the batch for its first axis.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS
    with candidates.refusals("onnxruntime", *REFUSALS):
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        given = feeds([value.name for value in session.get_inputs()], samples)
        pieces = [
            _checked(names, session.run(None, piece), batch) for piece in _pieces(given, batch)
        ]
    return {
        name: np.concatenate([piece[number] for piece in pieces])[: len(samples)]
        for number, name in enumerate(names)
    }


def _pieces(given: Mapping[str, NDArray[Any]], batch: int) -> list[dict[str, NDArray[Any]]]:
    num_samples = len(next(iter(given.values())))
    rows = [
        np.minimum(np.arange(start, start + batch), num_samples - 1)
        for start in range(0, num_samples, batch)
    ]
    return [{name: values[chosen] for name, values in given.items()} for chosen in rows]


def _checked(names: Sequence[str], outputs: list[Any], batch: int) -> list[NDArray[Any]]:
    for name, value in zip(names, outputs, strict=True):
        if not isinstance(value, np.ndarray) or value.shape[:1] != (batch,):
            shape = list(value.shape) if isinstance(value, np.ndarray) else "no tensor"
            raise ConversionError(
                f"output {name!r} has shape {shape} for a batch of {batch}; every output must have "
                "the batch for its first axis, mend the model"
            )
    return outputs
