"""Adapter ``tensorrt``: an engine file on TensorRT or TensorRT-RTX, whichever wrote it.

Both have one API. Copies and runs go through one stream; a request waits for its end.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np

from pipeline.runtimes.cuda import Driver
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Tensor, refuse_batch

RTX_MAGIC = b"vtrt"  # how TensorRT-RTX 1.7 begins an engine; any other is TensorRT's to judge
DISTRIBUTIONS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}


def load(model: str, num_threads: int, batch_size: int = 1) -> TensorRTSession:
    """Load an engine. Raises `RunnerError` without a GPU, without its library, or when refused."""
    refuse_batch(batch_size, "TensorRT")
    content = Path(model).read_bytes()
    module = "tensorrt_rtx" if content.startswith(RTX_MAGIC) else "tensorrt"
    driver = Driver()
    try:
        tensorrt = importlib.import_module(module)
    except ImportError as error:
        raise RunnerError(
            "%s is not installed, which this engine needs; pip install %s"
            % (module, DISTRIBUTIONS[module])
        ) from error
    return TensorRTSession(tensorrt, content, driver, num_threads)


class TensorRTSession:
    """See `pipeline.runtimes.session.Session`."""

    def __init__(self, tensorrt: Any, content: bytes, driver: Driver, num_threads: int) -> None:
        """Deserialize the engine and allocate its inputs and outputs on the GPU."""
        self._driver = driver
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._runtime = tensorrt.Runtime(logger)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise RunnerError(
                "%s %s on %s (compute capability %s) refuses the model; convert it for this one"
                % (tensorrt.__name__, tensorrt.__version__, *driver.device)
            )
        self._context = self._engine.create_execution_context()
        self._stream = driver.create_stream()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {
            name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            for name in names
        }
        for name in names:
            if is_input[name]:  # smallest, best, largest: converters pin all three to one
                shape = self._engine.get_tensor_profile_shape(name, 0)[1]
                self._context.set_input_shape(name, shape)
        self.inputs = tuple(self._tensor(tensorrt, name) for name in names if is_input[name])
        self.outputs = tuple(self._tensor(tensorrt, name) for name in names if not is_input[name])
        self._pointers = [self._bind(tensor) for tensor in (*self.inputs, *self.outputs)]
        self.facts = {
            "runtime": "tensorrt",
            "version": tensorrt.__version__,
            "provider": "CUDA",
            "kernel_library": tensorrt.__name__,
            "device": driver.device.name,
            "compute_capability": driver.device.compute_capability,
            "num_threads": num_threads,
        }

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        driver, stream = self._driver, self._stream
        kept = [np.ascontiguousarray(value) for value in inputs]  # alive until the copies end
        for value, pointer in zip(kept, self._pointers):  # noqa: B905 - Python 3.8
            driver.copy_in(pointer, value.ctypes.data, value.nbytes, stream)
        if not self._context.execute_async_v3(stream.value):
            raise RunnerError("tensorrt refuses the request")
        outputs = [_empty(tensor) for tensor in self.outputs]
        for value, pointer in zip(outputs, self._pointers[len(self.inputs) :]):  # noqa: B905
            driver.copy_out(value.ctypes.data, pointer, value.nbytes, stream)
        driver.wait(stream)
        return outputs

    def _tensor(self, tensorrt: Any, name: str) -> Tensor:
        dtype = np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))).name
        return Tensor(
            name, dtype, tuple(int(axis) for axis in self._context.get_tensor_shape(name))
        )

    def _bind(self, tensor: Tensor) -> Any:
        pointer = self._driver.allocate(_empty(tensor).nbytes)
        self._context.set_tensor_address(tensor.name, pointer.value)
        return pointer


def _empty(tensor: Tensor) -> Array:
    return np.empty([int(axis) for axis in tensor.shape], tensor.dtype)
