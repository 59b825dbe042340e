"""The machine while it measures: load, clocks, memory, time of others. Linux; elsewhere unknown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

STATUS = Path("/proc/self/status")
SYSTEM = Path("/sys")
# Of all cores, or all sensors: the lowest and the highest are told.
RANGES = {
    "clock_khz": "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "temperature_millicelsius": "class/thermal/thermal_zone[0-9]*/temp",
}
GOVERNORS = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
THROTTLE_COUNTS = "devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
# A Raspberry Pi's firmware tells by bits what it does to the clocks: hexadecimal text here, and by
# `vcgencmd get_throttled` where the kernel does not show it.
FIRMWARE_BITS = "devices/platform/soc*/soc*firmware/get_throttled"
VCGENCMD, VCGENCMD_LIMIT_S = "vcgencmd", 5.0
# Bits 0 to 3 are now: voltage too low, clock capped, throttled, soft temperature limit. The same 16
# bits higher: since boot (Raspberry Pi documentation, "vcgencmd", get_throttled).
BITS_NOW, BITS_SINCE_BOOT = 0xF, 0xF0000


class CpuTime(NamedTuple):
    """Processor time in clock ticks since boot: all cores together, and this process."""

    total: int
    idle: int
    own: float


def state(system: Path = SYSTEM) -> Dict[str, Any]:
    """Return what can be read now; what this machine does not tell is absent.

    ``clock_khz`` and ``temperature_millicelsius`` are ``[lowest, highest]`` of all cores and all
    sensors; ``num_throttled`` counts since boot; ``throttled_bits`` as in `was_throttled`.
    """
    found: Dict[str, Any] = {
        "governor": "+".join(sorted(set(_texts(system, GOVERNORS)))) or None,
        "num_throttled": _num_throttled(system),
        "throttled_bits": _throttled_bits(system),
    }
    for name, pattern in RANGES.items():
        values = [int(text) for text in _texts(system, pattern) if text.lstrip("-").isdigit()]
        found[name] = [min(values), max(values)] if values else None
    if hasattr(os, "getloadavg"):
        found["load_average"] = round(os.getloadavg()[0], 2)
    if hasattr(os, "sched_getaffinity"):
        found["affinity"] = sorted(os.sched_getaffinity(0))
    return {name: value for name, value in found.items() if value is not None}


def was_throttled(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Say whether the clocks were held down between two states, as far as the machine tells.

    Either a core counts another event; or a Raspberry Pi's firmware holds them down at one of both
    moments, or has for the first time since boot in between. What it does again and ends again in
    between, nobody can see.
    """
    if after.get("num_throttled", 0) > before.get("num_throttled", 0):
        return True
    first, last = before.get("throttled_bits", 0), after.get("throttled_bits", 0)
    return bool((first | last) & BITS_NOW or last & ~first & BITS_SINCE_BOOT)


def cpu_time() -> Optional[CpuTime]:
    """Read the processor time used so far."""
    text = _read(Path("/proc/stat"))
    if text is None:
        return None
    # user nice system idle iowait irq softirq steal; guest time is already inside user
    ticks = [int(value) for value in text.splitlines()[0].split()[1:9]]
    own = time.process_time() * os.sysconf("SC_CLK_TCK")
    return CpuTime(sum(ticks), ticks[3] + ticks[4], own)


def others_ratio(before: Optional[CpuTime], after: Optional[CpuTime]) -> Optional[float]:
    """Return the part of all cores that other processes and other virtual machines used, 0..1."""
    if before is None or after is None:
        return None
    return _others_ratio(
        after.total - before.total, after.idle - before.idle, after.own - before.own
    )


def _others_ratio(total: float, idle: float, own: float) -> Optional[float]:
    if total <= 0:
        return None
    return round(min(max((total - idle - own) / total, 0.0), 1.0), 4)


class OthersWatch:
    """Finds `others_ratio` of several spans of time together."""

    _spent = (0.0, 0.0, 0.0)
    _start: Optional[CpuTime] = None

    def start(self) -> None:
        """Begin a span."""
        self._start = cpu_time()

    def stop(self) -> None:
        """End it, if it is not ended."""
        start, end, self._start = self._start, cpu_time(), None
        if start is not None and end is not None:
            total, idle, own = self._spent
            self._spent = (
                total + end.total - start.total,
                idle + end.idle - start.idle,
                own + end.own - start.own,
            )

    def ratio(self) -> Optional[float]:
        """Return the part of all cores, 0..1; None where the machine does not tell."""
        return _others_ratio(*self._spent)


def resident_bytes() -> Optional[int]:
    """Return this process's resident memory (VmRSS)."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> Optional[int]:
    """Return this process's highest resident memory since `reset_peak` (VmHWM).

    Not ru_maxrss: that of a new process starts at the peak of the one that started it.
    """
    return _status_bytes("VmHWM")


def reset_peak() -> bool:
    """Let VmHWM start again from what is resident now; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> Optional[int]:
    for line in (_read(STATUS) or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _num_throttled(system: Path) -> Optional[int]:
    counts = _texts(system, THROTTLE_COUNTS)
    return sum(int(count) for count in counts) if counts else None


def _throttled_bits(system: Path) -> Optional[int]:
    """Read the firmware's bits from the kernel, else from the tool; None on other machines."""
    texts = _texts(system, FIRMWARE_BITS)
    tool = shutil.which(VCGENCMD)
    if not texts and tool is not None:
        command = [tool, "get_throttled"]
        try:
            said = subprocess.check_output(
                command, stderr=subprocess.DEVNULL, timeout=VCGENCMD_LIMIT_S
            )
        except (OSError, subprocess.SubprocessError):
            return None  # as on a machine without it: it may need a group that this user is not in
        texts = [said.decode("ascii", "replace").strip()]
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", texts[0]) if texts else None
    return int(found[1], 16) if found else None


def _texts(system: Path, pattern: str) -> List[str]:
    """Return what stands in the files that can be read; a sensor may be there and refuse."""
    texts = [_read(path) for path in sorted(system.glob(pattern))]
    return [text for text in texts if text]


def _read(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
