"""Adapter ``tflite_micro``: a .tflite file on TensorFlow Lite for Microcontrollers' own kernels.

These are the reference kernels that run on a microcontroller, here on the host: outputs and arena
are what counts, not time. Of an artifact compiled for Ethos-U ``uncompiled.tflite`` is run
(`pipeline.runtimes.ethos_u`).
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from pipeline.runtimes import ethos_u
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Tensor, refuse_batch

IDENTIFIER, IDENTIFIER_AT = b"TFL3", slice(4, 8)
# Room for the arena; pages that are not touched cost nothing.
ARENA_LIMIT_BYTES = 512 * 1024 * 1024
REFUSALS = (ValueError, RuntimeError, IndexError, TypeError)
# What reading a damaged flatbuffer raises; the interpreter itself would read past its end.
DAMAGES = (struct.error, ValueError, IndexError, TypeError, AttributeError, OverflowError)
_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'|Node (\w+) \(number \d+\)")
_ARENA = re.compile(r"Arena allocation total (\d+) bytes")


def load(model: str, num_threads: int, batch_size: int = 1) -> TfliteMicroSession:
    """Load a .tflite file. Raises `RunnerError` when tflite-micro refuses it."""
    refuse_batch(batch_size, "tflite-micro")
    return TfliteMicroSession(model, num_threads)


class TfliteMicroSession:
    """See `pipeline.runtimes.session.Session`. ``facts["arena_bytes"]`` is the recorded arena."""

    def __init__(self, model: str, num_threads: int) -> None:
        """Load the file that the host can run, allocate its tensors and record the arena."""
        if num_threads != 1:
            raise RunnerError(
                "tflite-micro runs in one thread, profile.num_threads is %d; set it to 1"
                % num_threads
            )
        content, described, name = _runnable(Path(model))
        self._content = content  # the interpreter reads weights from these bytes
        with _standard_error() as said:
            try:
                interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA_LIMIT_BYTES)
                interpreter.print_allocations()
            except REFUSALS as error:
                raise RunnerError(_refusal(said(), error, described)) from error
            allocations = said()
        inputs, outputs = _names(described)
        self._interpreter = interpreter
        self.inputs = tuple(
            _tensor(n, interpreter.get_input_details(i)) for i, n in enumerate(inputs)
        )
        self.outputs = tuple(
            _tensor(n, interpreter.get_output_details(i)) for i, n in enumerate(outputs)
        )
        self.facts: Dict[str, Any] = {
            "runtime": "tflite_micro",
            "version": _version(),
            "provider": "CPU",
            "kernel_library": "reference",
            "num_threads": 1,
            "num_operators": sum(len(graph.operators or ()) for graph in described.subgraphs),
            "executed_file": name,
            "arena_bytes": _arena_bytes(allocations),
        }

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        interpreter = self._interpreter
        try:
            for index, value in enumerate(inputs):
                interpreter.set_input(value, index)
            interpreter.invoke()
            return [np.array(interpreter.get_output(i)) for i in range(len(self.outputs))]
        except REFUSALS as error:
            raise RunnerError("tflite-micro refuses the request: %s" % error) from error


def _runnable(path: Path) -> Tuple[bytes, Any, str]:
    """Return bytes, parsed model and name of the file that the host runs for an artifact's file."""
    content, described = _read(path)
    if ethos_u.COMPILED_OPERATOR in _custom_operators(described):
        path = path.with_name(ethos_u.UNCOMPILED)
        if not path.is_file():
            raise RunnerError(
                "the model is compiled for Ethos-U, which the host has not, and %s is not beside "
                "it; take the whole artifact" % path.name
            )
        content, described = _read(path)
    if ethos_u.EDGE_TPU_OPERATOR in _custom_operators(described):
        raise RunnerError(
            "%s is compiled for a Coral Edge TPU (operator %s); give the file from before "
            "edgetpu_compiler" % (path.name, ethos_u.EDGE_TPU_OPERATOR)
        )
    if any(buffer.offset > 1 for buffer in described.buffers or ()):
        # it would run with other bytes for weights, and nothing would say so
        raise RunnerError(
            "%s has weights behind the flatbuffer, which tflite-micro does not read; convert the "
            "model again" % path.name
        )
    return content, described, path.name


def _read(path: Path) -> Tuple[bytes, Any]:
    """Parse all of a file, which also shows whether all of it is there."""
    content = path.read_bytes()
    if content[IDENTIFIER_AT] != IDENTIFIER:
        raise RunnerError("%s is no .tflite file; convert the model again" % path.name)
    try:
        described = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        if not described.subgraphs:
            raise ValueError("it holds no graph")
    except DAMAGES as error:
        raise RunnerError(
            "%s is damaged or cut off: %s; restore it, or convert the model again"
            % (path.name, error)
        ) from error
    return content, described


def _custom_operators(described: Any) -> List[str]:
    codes = [code.customCode for code in described.operatorCodes or () if code.customCode]
    return [code.decode(errors="replace") for code in codes]


def _names(described: Any) -> Tuple[List[str], List[str]]:
    """Name inputs and outputs as the file's one signature does; else as its tensors are named."""
    graph = described.subgraphs[0]
    signatures = list(described.signatureDefs or ())
    names = {}
    if len(signatures) == 1:
        for entry in (*signatures[0].inputs, *signatures[0].outputs):
            names[entry.tensorIndex] = entry.name
    return (
        [_text(names.get(index, graph.tensors[index].name)) for index in graph.inputs],
        [_text(names.get(index, graph.tensors[index].name)) for index in graph.outputs],
    )


def _text(name: Any) -> str:
    return str(name.decode(errors="replace") if isinstance(name, bytes) else name)


def _tensor(name: str, detail: Dict[str, Any]) -> Tensor:
    scales = detail["quantization_parameters"]["scales"]
    zero_points = detail["quantization_parameters"]["zero_points"]
    if len(scales) > 1:
        raise RunnerError(
            "%r has %d scales; inputs and outputs take one scale each" % (name, len(scales))
        )
    return Tensor(
        name=name,
        dtype=np.dtype(detail["dtype"]).name,
        shape=tuple(int(axis) for axis in detail["shape"]),
        scale=float(scales[0]) if len(scales) else None,
        zero_point=int(zero_points[0]) if len(zero_points) else None,
    )


def _refusal(said: str, error: Exception, described: Any) -> str:
    """Say in one line what tflite-micro refuses; it names the operator on standard error only."""
    custom = _custom_operators(described)
    found = _OPERATOR.search(said)
    if custom and "CUSTOM" in said:
        what = "does not know custom operator %s" % ", ".join(custom)
    elif found and found[1]:
        what = "has no kernel for operator %s" % found[1]
    elif found:
        what = "refuses operator %s" % found[2]
    else:
        what = "refuses the model"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "tflite-micro %s %s: %s; replace the layer" % (
        _version(),
        what,
        lines[0] if lines else error,
    )


def _arena_bytes(allocations: str) -> int:
    found = _ARENA.search(allocations)
    if found is None:
        raise RunnerError(
            "tflite-micro %s does not tell the size of its arena; install another version"
            % _version()
        )
    return int(found[1])


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """Catch what C++ writes to standard error, where alone tflite-micro gives figures and reasons.

    Yields a function that returns what was written up to then. The whole process is concerned.
    """
    with tempfile.TemporaryFile() as file:
        ours = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        finally:
            os.dup2(ours, 2)
            os.close(ours)


def _version() -> str:
    return metadata.version("tflite-micro")
