"""Adapter ``onnxruntime``: an ONNX file on ONNX Runtime's CPU provider."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Tensor

PROVIDER = "CPUExecutionProvider"
LOG_ERRORS = 3
# ONNX Runtime's exceptions share no base class of their own.
REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def load(model: str, num_threads: int) -> OnnxSession:
    """Load an ONNX file. Raises `RunnerError` when ONNX Runtime or its CPU provider refuses it."""
    return OnnxSession(model, num_threads)


class OnnxSession:
    """See `pipeline.runtimes.session.Session`."""

    def __init__(self, model: str, num_threads: int) -> None:
        """Load the file; ``num_threads`` work on one operator at a time."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_ERRORS
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
        except REFUSALS as error:
            raise RunnerError(
                "ONNX Runtime %s refuses the model: %s" % (onnxruntime.__version__, error)
            ) from error
        assert self._session.get_providers() == [PROVIDER]
        self.inputs = tuple(_tensor(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value) for value in self._session.get_outputs())
        self.facts: Dict[str, Any] = {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": PROVIDER,
            "kernel_library": "MLAS",
            "graph_optimization_level": options.graph_optimization_level.name,
            "num_threads": num_threads,
        }
        self._names = [tensor.name for tensor in self.inputs]

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        try:
            feed = dict(zip(self._names, inputs))  # noqa: B905 - Python 3.8
            outputs: List[Array] = self._session.run(None, feed)
        except REFUSALS as error:
            raise RunnerError("ONNX Runtime refuses the request: %s" % error) from error
        return outputs


def _tensor(value: Any) -> Tensor:
    if value.type not in DTYPES:
        raise RunnerError("%r has type %s; use one of %s" % (value.name, value.type, list(DTYPES)))
    # an axis without a name arrives as None
    shape = tuple(axis if isinstance(axis, (int, str)) else "?" for axis in value.shape)
    return Tensor(value.name, DTYPES[value.type], shape)
