"""The CUDA driver by ctypes: which GPU is here, and memory on it. The standard library alone.

``libcuda.so.1`` comes with every driver, on boards too, so no package is needed for it. Names are
those of cuda.h (CUDA driver API 12 and 13 keep them).
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Optional, Union

from pipeline.runtimes.errors import RunnerError

LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
_BUS_ID_BYTES = 16  # the driver writes 12 characters, as in 0000:01:00.0
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute

Pointer = ctypes.c_uint64  # CUdeviceptr


class Device(NamedTuple):
    """The first GPU; ``compute_capability`` as in ``8.9``."""

    name: str
    compute_capability: str


class Driver:
    """The driver with the first GPU's primary context current on this thread."""

    def __init__(self) -> None:
        """Open the driver; raises `RunnerError` without a driver or without a GPU."""
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise RunnerError(
                "no CUDA device: %s is absent; install NVIDIA's driver, or run this where a GPU is"
                % LIBRARY
            ) from error
        self._call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if count.value == 0:
            raise RunnerError("no CUDA device: the driver lists none; run this where a GPU is")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), device)
        major, minor = (
            self._attribute(which, device) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        self._device = device
        self.device = Device(name.value.decode("utf-8", "replace"), "%d.%d" % (major, minor))

    def pci_bus_id(self) -> bytes:
        """Return where the GPU sits, as in ``0000:01:00.0``."""
        found = ctypes.create_string_buffer(_BUS_ID_BYTES)
        self._call("cuDeviceGetPCIBusId", found, ctypes.c_int(_BUS_ID_BYTES), self._device)
        return found.value

    def allocate(self, num_bytes: int) -> Pointer:
        """Return device memory, which the process keeps to its end."""
        pointer = Pointer()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(num_bytes, 1)))
        return pointer

    def create_stream(self) -> ctypes.c_void_p:
        """Return a stream that does not wait for the default one."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))
        return stream

    def copy_in(self, pointer: Pointer, address: int, num_bytes: int, stream: Any) -> None:
        """Start copying host memory to the device, in the stream's order."""
        host, size = ctypes.c_void_p(address), ctypes.c_size_t(num_bytes)
        self._call("cuMemcpyHtoDAsync_v2", pointer, host, size, stream)

    def copy_out(self, address: int, pointer: Pointer, num_bytes: int, stream: Any) -> None:
        """Start copying device memory to the host, in the stream's order."""
        host, size = ctypes.c_void_p(address), ctypes.c_size_t(num_bytes)
        self._call("cuMemcpyDtoHAsync_v2", host, pointer, size, stream)

    def wait(self, stream: Any) -> None:
        """Wait until all that was started in the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def _attribute(self, which: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise RunnerError("no CUDA device answers: %s fails with CUresult %d" % (name, code))


def find() -> Union[Device, str]:
    """Return the first GPU, or one line on why there is none."""
    try:
        return Driver().device
    except RunnerError as error:
        return str(error)


def compute_capability() -> Optional[str]:
    """Return the first GPU's compute capability, None without a GPU."""
    found = find()
    return None if isinstance(found, str) else found.compute_capability
