"""The machine while it measures: load, clocks, memory, time of others. Linux; elsewhere unknown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

STATUS = Path("/proc/self/status")
CPU_FILES = {
    "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "clock_khz": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "temperature_millicelsius": "/sys/class/thermal/thermal_zone0/temp",
}
THROTTLE_COUNTS = "cpu[0-9]*/thermal_throttle/core_throttle_count"


class CpuTime(NamedTuple):
    """Processor time in clock ticks since boot: all cores together, and this process."""

    total: int
    idle: int
    own: int


def state() -> Dict[str, Any]:
    """Return what can be read now; what this machine does not tell is absent."""
    found: Dict[str, Any] = {"num_throttled": _num_throttled()}
    for name, path in CPU_FILES.items():
        text = _read(Path(path))
        if text is not None:
            found[name] = int(text) if text.lstrip("-").isdigit() else text
    if hasattr(os, "getloadavg"):
        found["load_average"] = round(os.getloadavg()[0], 2)
    if hasattr(os, "sched_getaffinity"):
        found["affinity"] = sorted(os.sched_getaffinity(0))
    return {name: value for name, value in found.items() if value is not None}


def cpu_time() -> Optional[CpuTime]:
    """Read the processor time used so far."""
    text = _read(Path("/proc/stat"))
    if text is None:
        return None
    # user nice system idle iowait irq softirq steal; guest time is already inside user
    ticks = [int(value) for value in text.splitlines()[0].split()[1:9]]
    used = os.times()
    own = (used.user + used.system) * os.sysconf("SC_CLK_TCK")
    return CpuTime(sum(ticks), ticks[3] + ticks[4], round(own))


def others_ratio(before: Optional[CpuTime], after: Optional[CpuTime]) -> Optional[float]:
    """Return the part of all cores that other processes and other virtual machines used, 0..1."""
    if before is None or after is None or after.total <= before.total:
        return None
    total = after.total - before.total
    others = total - (after.idle - before.idle) - (after.own - before.own)
    return round(min(max(others / total, 0.0), 1.0), 4)


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


def _num_throttled() -> Optional[int]:
    found = list(Path("/sys/devices/system/cpu").glob(THROTTLE_COUNTS))
    counts = [_read(path) for path in found]
    return sum(int(count) for count in counts if count) if found else None


def _read(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
