"""A TFLite interpreter as a session: what LiteRT and tflite-runtime have in common."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Tensor, check_batch

# What the interpreters raise when they refuse a file, an operator or a tensor.
REFUSALS = (ValueError, RuntimeError)


class InterpreterSession:
    """See `pipeline.runtimes.session.Session`."""

    def __init__(
        self,
        interpreter: Callable[..., Any],
        model: str,
        num_threads: int,
        facts: Dict[str, Any],
        batch_size: int = 1,
    ) -> None:
        """Load the file and allocate its tensors; ``facts`` names the runtime and its version."""
        what = "the model" if batch_size == 1 else "a batch of %d of the model" % batch_size
        try:
            self._interpreter = interpreter(model_path=model, num_threads=num_threads)
            if batch_size != 1:
                _widen(self._interpreter, batch_size)
            self._interpreter.allocate_tensors()
        except REFUSALS as error:
            raise RunnerError(
                "%s %s refuses %s: %s" % (facts["runtime"], facts["version"], what, error)
            ) from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        names = _signature_names(self._interpreter)
        self.inputs = tuple(_tensor(detail, names) for detail in inputs)
        self.outputs = tuple(_tensor(detail, names) for detail in outputs)
        check_batch((*self.inputs, *self.outputs), batch_size, "the .tflite file")
        self._inputs = [detail["index"] for detail in inputs]
        self._outputs = [detail["index"] for detail in outputs]
        self.facts = {**facts, **_placement(self._interpreter), "num_threads": num_threads}

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        interpreter = self._interpreter
        try:
            for index, value in zip(self._inputs, inputs):  # noqa: B905 - Python 3.8
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]
        except REFUSALS as error:
            raise RunnerError(
                "%s refuses the request: %s" % (self.facts["runtime"], error)
            ) from error


def _widen(interpreter: Any, batch_size: int) -> None:
    """Ask for a batch; what the graph makes of it shows when its tensors are allocated."""
    for detail in interpreter.get_input_details():
        shape = [int(axis) for axis in detail["shape"]]
        if shape:
            interpreter.resize_tensor_input(detail["index"], [batch_size, *shape[1:]])


def _signature_names(interpreter: Any) -> Dict[int, str]:
    """Map tensors to the names of the file's one signature; a tensor's own name is the tool's."""
    # private, but the public list has no tensors; there in tflite-runtime 2.14.0 and LiteRT 2.3.0
    signatures = list(interpreter._get_full_signature_list().values())
    if len(signatures) != 1:
        return {}
    (signature,) = signatures
    return {
        int(index): str(name)
        for role in ("inputs", "outputs")
        for name, index in signature[role].items()
    }


def _tensor(detail: Dict[str, Any], names: Mapping[int, str]) -> Tensor:
    scales = detail["quantization_parameters"]["scales"]
    zero_points = detail["quantization_parameters"]["zero_points"]
    if len(scales) > 1:
        raise RunnerError(
            "%r has %d scales; inputs and outputs take one scale each"
            % (detail["name"], len(scales))
        )
    return Tensor(
        name=names.get(int(detail["index"]), str(detail["name"])),
        dtype=np.dtype(detail["dtype"]).name,
        shape=tuple(int(axis) for axis in detail["shape"]),
        scale=float(scales[0]) if len(scales) else None,
        zero_point=int(zero_points[0]) if len(zero_points) else None,
    )


def _placement(interpreter: Any) -> Dict[str, Any]:
    """Say which kernels run: XNNPACK takes partitions, the rest has built-in kernels."""
    # private, but the only way to learn it; there in tflite-runtime 2.14.0 and ai-edge-litert 2.3.0
    operators = [detail["op_name"] for detail in interpreter._get_ops_details()]
    num_partitions = operators.count("DELEGATE")
    return {
        "provider": "CPU",
        "kernel_library": "XNNPACK" if num_partitions else "built-in",
        "num_operators": len(operators) - num_partitions,
        "num_xnnpack_partitions": num_partitions,
    }
