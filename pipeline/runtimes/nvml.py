"""The energy of the first GPU by NVML through ctypes, whose library comes with every driver.

Names are those of nvml.h (any version since 8). Numbers are of the GPU with its memory and the
circuits around them, not of the host; where the GPU is divided (MIG), of its other instances too.
"""

from __future__ import annotations

import ctypes
from typing import Any

from pipeline.runtimes import cuda
from pipeline.runtimes.errors import RunnerError

LIBRARY = "libnvidia-ml.so.1"
_NOT_SUPPORTED = 3  # nvmlReturn_t


class Gpu:
    """The GPU that CUDA counts first; ``counts_energy`` is of Volta and later."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            RunnerError: there is no GPU, no driver, or it tells no power.
        """
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise RunnerError(
                "nvml: %s is absent; install NVIDIA's driver, or take another meter (a Jetson has "
                "ina)" % LIBRARY
            ) from error
        # NVML counts GPUs in another order than CUDA, and does not see CUDA_VISIBLE_DEVICES
        bus_id = cuda.Driver().pci_bus_id()
        self._call("nvmlInit_v2")
        self._handle = ctypes.c_void_p()
        handle = ctypes.byref(self._handle)
        self._call("nvmlDeviceGetHandleByPciBusId_v2", ctypes.c_char_p(bus_id), handle)
        millijoules = ctypes.byref(ctypes.c_ulonglong())
        code = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, millijoules)
        self.counts_energy = code != _NOT_SUPPORTED
        self.joules() if self.counts_energy else self.watts()  # say now what fails

    def joules(self) -> float:
        """Return the energy since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    def watts(self) -> float:
        """Return the power now."""
        milliwatts = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._handle, ctypes.byref(milliwatts))
        return milliwatts.value / 1e3

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise RunnerError(
                "nvml: %s fails with nvmlReturn_t %d; this GPU tells no energy, take another meter "
                "(a Jetson has ina)" % (name, code)
            )
