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


def test_spans_count_together_and_what_lies_between_them_does_not(monkeypatch):
    readings = [CpuTime(0, 0, 0), CpuTime(10, 0, 10), CpuTime(90, 0, 10), CpuTime(100, 0, 15)]
    monkeypatch.setattr(host, "cpu_time", iter(readings).__next__)
    watch = host.OthersWatch()
    assert watch.ratio() is None
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.ratio() == 0.25


def test_a_span_ends_once(monkeypatch):
    readings = [CpuTime(0, 0, 0), CpuTime(10, 0, 10), CpuTime(20, 0, 10)]
    monkeypatch.setattr(host, "cpu_time", iter(readings).__next__)
    watch = host.OthersWatch()
    watch.start()
    watch.stop()
    watch.stop()
    assert watch.ratio() == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, Linux only")
def test_own_work_counts_as_own():
    before, end = host.cpu_time(), time.process_time() + 0.1
    while time.process_time() < end:  # of this process's own, however busy the machine is
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
    assert found.keys() <= {*sensors, "throttled_bits", "load_average", "affinity"}


@pytest.fixture
def make_system(tmp_path, monkeypatch):
    """A /sys of these files, on a machine without the firmware's tool."""
    monkeypatch.setenv("PATH", "")

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


CPU = "devices/system/cpu/cpu{}/"
FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"
FIRMWARE_5 = "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
SYSTEMS = {
    "a machine that tells nothing": ({}, {}),
    "four cores": (
        {CPU.format(i) + "cpufreq/scaling_cur_freq": khz for i, khz in enumerate((6, 24, 15, 9))},
        {"clock_khz": [6, 24]},
    ),
    "a core that is off and a file beside cores": (
        {
            CPU.format(0) + "cpufreq/scaling_cur_freq": 1500000,
            CPU.format(1) + "cpufreq/scaling_cur_freq": "<unknown>",
            "devices/system/cpu/cpufreq/scaling_cur_freq": 1,
        },
        {"clock_khz": [1500000, 1500000]},
    ),
    "two sensors, one below zero": (
        {
            "class/thermal/thermal_zone0/temp": 48300,
            "class/thermal/thermal_zone12/temp": -2000,
        },
        {"temperature_millicelsius": [-2000, 48300]},
    ),
    "one governor": (
        {CPU.format(i) + "cpufreq/scaling_governor": "performance" for i in range(4)},
        {"governor": "performance"},
    ),
    "big and little cores are governed apart": (
        {
            CPU.format(0) + "cpufreq/scaling_governor": "powersave",
            CPU.format(4) + "cpufreq/scaling_governor": "performance",
        },
        {"governor": "performance+powersave"},
    ),
    "every core's events are counted": (
        {CPU.format(i) + "thermal_throttle/core_throttle_count": i for i in range(4)},
        {"num_throttled": 6},
    ),
    "a Raspberry Pi 4": ({FIRMWARE: "50005"}, {"throttled_bits": 0x50005}),
    "a Raspberry Pi 5 at ease": ({FIRMWARE_5: "0x0"}, {"throttled_bits": 0}),
    "a firmware that answers something else": ({FIRMWARE: "error"}, {}),
}


@pytest.mark.parametrize(("files", "expected"), SYSTEMS.values(), ids=SYSTEMS)
def test_clocks_heat_and_throttling_are_read_of_all_cores(files, expected, make_system):
    found = host.state(make_system(files))
    assert {k: v for k, v in found.items() if k not in {"load_average", "affinity"}} == expected


TOOLS = {
    "it answers": ("echo throttled=0x80008", {"throttled_bits": 0x80008}),
    "it fails": ("echo VCHI initialization failed; exit 255", {}),
}


@pytest.mark.skipif(sys.platform != "linux", reason="a shell script, Linux only")
@pytest.mark.parametrize(("script", "expected"), TOOLS.values(), ids=TOOLS)
def test_where_the_kernel_does_not_tell_the_firmwares_tool_is_asked(
    script, expected, tmp_path, monkeypatch
):
    tool = tmp_path / "vcgencmd"
    tool.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 1\n{script}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = host.state(tmp_path / "sys")
    assert {k: v for k, v in found.items() if k == "throttled_bits"} == expected


THROTTLED = {
    "nothing is known": ({}, {}, False),
    "no new event": ({"num_throttled": 7}, {"num_throttled": 7}, False),
    "another event": ({"num_throttled": 7}, {"num_throttled": 8}, True),
    "at ease": ({"throttled_bits": 0}, {"throttled_bits": 0}, False),
    "long ago, since boot": ({"throttled_bits": 0x50000}, {"throttled_bits": 0x50000}, False),
    "throttled at the end": ({"throttled_bits": 0x50000}, {"throttled_bits": 0x50004}, True),
    "throttled at the start": ({"throttled_bits": 0x40004}, {"throttled_bits": 0x40000}, True),
    "the voltage is too low": ({"throttled_bits": 0}, {"throttled_bits": 1}, True),
    "for the first time, and over": ({"throttled_bits": 0}, {"throttled_bits": 0x20000}, True),
    "bits of no meaning": ({"throttled_bits": 0}, {"throttled_bits": 0x100}, False),
}


@pytest.mark.parametrize(("before", "after", "expected"), THROTTLED.values(), ids=THROTTLED)
def test_throttling_counts_when_it_fell_into_the_run(before, after, expected):
    assert host.was_throttled(before, after) is expected
