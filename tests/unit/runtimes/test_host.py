import sys
import time

import numpy as np
import pytest

from pipeline.runtimes import host
from pipeline.runtimes.host import CpuTime

MIB = 1 << 20

OTHERS = {
    "nobody else": (CpuTime(0, 0, 0), CpuTime(200, 100, 100), 0.0),
    "one other core": (CpuTime(0, 0, 0), CpuTime(200, 0, 100), 0.5),
    "all idle": (CpuTime(10, 10, 0), CpuTime(20, 20, 0), 0.0),
    "rounding cannot make it negative": (CpuTime(0, 0, 0), CpuTime(200, 100, 101), 0.0),
    "no time passed": (CpuTime(5, 5, 0), CpuTime(5, 5, 0), None),
    "nothing is known": (None, CpuTime(5, 5, 0), None),
}


@pytest.mark.parametrize(("before", "after", "expected"), OTHERS.values(), ids=OTHERS)
def test_time_of_others_is_what_is_neither_idle_nor_own(before, after, expected):
    assert host.others_ratio(before, after) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, Linux only")
def test_own_work_counts_as_own():
    before, end = host.cpu_time(), time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    assert host.cpu_time().own - before.own >= 5  # of 10 ticks of 10 ms; the rest is for the timer


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, Linux only")
def test_peak_memory_starts_again_and_holds_what_was_freed():
    if not host.reset_peak():
        pytest.skip("this kernel does not reset VmHWM")
    before = host.resident_bytes()
    np.ones(64 * MIB, np.uint8).sum()
    grown = host.peak_resident_bytes() - before
    assert 60 * MIB < grown < 80 * MIB
    host.reset_peak()
    assert host.peak_resident_bytes() - before < 32 * MIB


def test_state_says_only_what_the_machine_tells():
    found = host.state()
    assert None not in found.values()
    sensors = {"num_throttled", "governor", "clock_khz", "temperature_millicelsius"}
    assert found.keys() <= {*sensors, "load_average", "affinity"}
