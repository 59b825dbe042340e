"""Meters on fake trees and a scripted clock: every joule is known."""

import ctypes
import gc
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.runtimes import clock, cuda, ina, meters, nvml, rapl
from pipeline.runtimes.errors import RunnerError

MS, S = 1_000_000, 1_000_000_000
WINDOW_NS = 10 * S


class Machine:
    """Time passes while a request runs (``run_ns``) or while it sleeps; ``draw`` gets each step."""

    def __init__(self, draw, run_ns=100 * MS, idle_w=10.0, busy_w=30.0):
        self.draw, self.run_ns, self.idle_w, self.busy_w = draw, run_ns, idle_w, busy_w
        self.now_ns = 0

    def now(self):
        return self.now_ns

    def run(self):
        self.pass_by(self.run_ns, self.busy_w)

    def sleep(self, seconds):
        self.pass_by(round(seconds * S), self.idle_w)

    def pass_by(self, time_ns, watts):
        self.draw(time_ns, watts)
        self.now_ns += time_ns

    def measure(self, meter, root, window_ns=WINDOW_NS, **more):
        return meters.measure(
            self.run, meter, window_ns, now=self.now, sleep=self.sleep, root=root, **more
        )


class Powercap:
    """A tree of zones; each takes its share of what the machine draws, and starts again."""

    def __init__(self, root, zones, full_uj=10**12):
        self.zones, self.full_uj = {}, full_uj
        for name, (label, share) in zones.items():
            folder = root / "class/powercap" / name
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{label}\n")
            (folder / "max_energy_range_uj").write_text(f"{full_uj}\n")
            self.zones[folder / "energy_uj"] = [full_uj - 1, share]  # about to start again
            (folder / "energy_uj").write_text(f"{full_uj - 1}\n")

    def draw(self, time_ns, watts):
        for path, zone in self.zones.items():
            zone[0] = (zone[0] + round(time_ns * watts * zone[1] / 1000)) % self.full_uj
            path.write_text(f"{zone[0]}\n")


PACKAGE = {"intel-rapl:0": ("package-0", 1.0)}
ZONES = {
    "one package": (PACKAGE, 1.0),
    "two packages are added": (
        {"intel-rapl:0": ("package-0", 0.75), "intel-rapl:1": ("package-1", 0.5)},
        1.25,
    ),
    "zones inside a package are in it already": (
        {**PACKAGE, "intel-rapl:0:0": ("core", 0.5), "intel-rapl:0:1": ("dram", 0.2)},
        1.0,
    ),
    "psys holds more than the processor": ({**PACKAGE, "intel-rapl:1": ("psys", 2.0)}, 1.0),
    "another driver shows the same package again": (
        {**PACKAGE, "intel-rapl-mmio:0": ("package-0", 1.0)},
        1.0,
    ),
}


@pytest.mark.parametrize(("zones", "share"), ZONES.values(), ids=ZONES)
def test_rapl_reads_processor_packages_at_both_ends(tmp_path, zones, share):
    found = Machine(Powercap(tmp_path, zones).draw).measure("rapl", tmp_path)
    assert found["window_ns"] == WINDOW_NS
    assert found["num_runs"] == 100
    assert found["joules"] == pytest.approx(300 * share, abs=1e-5)
    assert found["idle_w"] == pytest.approx([10 * share, 10 * share], abs=1e-5)
    assert found["facts"]["reads"] == "energy"


def test_a_counter_may_start_again_in_every_reading(tmp_path):
    """At 30 W a range of 310 J lasts 10.3 s: three windows' worth, looked at every ten seconds."""
    machine = Machine(Powercap(tmp_path, PACKAGE, full_uj=310_000_000).draw)
    found = machine.measure("rapl", tmp_path, 30 * S)
    assert found["joules"] == pytest.approx(900, abs=1e-5)


def test_there_is_no_rapl_on_a_machine_without_packages(tmp_path):
    with pytest.raises(RunnerError, match=r"^rapl: .*/class/powercap has no processor package; "):
        meters.measure(lambda: None, "rapl", WINDOW_NS, root=tmp_path)


@pytest.fixture
def as_nobody():
    """A folder that everybody may enter, and no more rights than everybody has."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        user = os.geteuid()
        yield Path(name), lambda: os.seteuid(65534) if user == 0 else None
        os.seteuid(user)


def test_a_counter_that_root_alone_may_read_is_one_line_with_the_remedy(as_nobody):
    root, drop_rights = as_nobody
    Powercap(root, PACKAGE)
    (root / "class/powercap/intel-rapl:0/energy_uj").chmod(0o400 if os.geteuid() == 0 else 0)
    drop_rights()
    with pytest.raises(RunnerError, match=r"energy_uj may be read by root alone; let .*, or take"):
        rapl.Packages(root)


def test_a_counter_that_is_no_number_is_said(tmp_path):
    Powercap(tmp_path, PACKAGE)
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text("\n")
    with pytest.raises(RunnerError, match=r"energy_uj holds no number, got ''"):
        rapl.Packages(tmp_path)


class Monitors:
    """INA3221 monitors at 5 V, each channel with its share of 10 W."""

    def __init__(self, root, monitors):
        self.shares = {}
        for address, labels in monitors.items():
            folder = root / f"bus/i2c/drivers/ina3221/{address}/hwmon/hwmon3"
            folder.mkdir(parents=True)
            (folder / "in7_label").write_text("sum of shunt voltages\n")
            for channel, (label, share) in enumerate(labels, start=1):
                (folder / f"in{channel}_label").write_text(f"{label}\n")
                (folder / f"in{channel}_input").write_text("5000\n")
                self.shares[folder / f"curr{channel}_input"] = share
        for path, share in self.shares.items():
            path.write_text(f"{round(10.0 * share / 5 * 1000)}\n")


ORIN_NANO = {"1-0040": [("VDD_IN", 1.0), ("VDD_CPU_GPU_CV", 0.5), ("VDD_SOC", 0.2)]}
AGX_ORIN = {
    "1-0040": [("VDD_GPU_SOC", 0.4), ("VDD_CPU_CV", 0.2), ("VIN_SYS_5V0", 0.3)],
    "1-0041": [("NC", 7.0), ("VDDQ_VDD2_1V8AO", 0.1), ("NC", 7.0)],
}
RAILS = {
    "the input rail alone, which holds the others": (ORIN_NANO, ["VDD_IN"], False),
    "all that are connected, where there is no input rail": (
        AGX_ORIN,
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"],
        True,
    ),
}


@pytest.mark.parametrize(("monitors", "rails", "summed"), RAILS.values(), ids=RAILS)
def test_a_jetsons_power_is(tmp_path, monitors, rails, summed):
    Monitors(tmp_path, monitors)
    found = ina.Rails(tmp_path)
    assert found.facts == {"rails": rails, "summed": summed}
    assert found.watts() == pytest.approx(10.0)


def test_a_constant_power_is_integrated_exactly_however_often_it_is_sampled(tmp_path):
    Monitors(tmp_path, ORIN_NANO)
    found = Machine(lambda *_: None).measure("ina", tmp_path)
    assert found["joules"] == pytest.approx(100)
    assert found["idle_w"] == pytest.approx([10, 10])
    assert found["facts"] == {
        "reads": "power", "samples_per_s": 50, "rails": ["VDD_IN"], "summed": False,
    }  # fmt: skip


def test_straight_lines_join_the_samples(monkeypatch):
    monkeypatch.setattr(meters, "SAMPLES_PER_S", 1e-6)  # the thread takes none
    times, power = iter([0, 2 * S, 3 * S]), iter([4.0, 8.0, 0.0])
    sampled = meters.Sampled(lambda: next(times), lambda: next(power), {})
    assert [sampled.read(), sampled.read()] == [(2 * S, 12.0), (3 * S, 16.0)]
    sampled.close()


def test_a_thread_takes_samples_between_the_readings():
    taken = []
    sampled = meters.Sampled(lambda: len(taken), lambda: taken.append(1) or 1.0, {})
    while len(taken) < 5:
        sampled._stopped.wait(0.01)
    sampled.close()
    num_taken = len(taken)
    assert not sampled._thread.is_alive()
    sampled.read()
    assert len(taken) == num_taken + 1


def test_a_rail_that_goes_away_meanwhile_is_said_at_the_next_reading(tmp_path):
    Monitors(tmp_path, ORIN_NANO)
    sampled = meters.Sampled(lambda: 0, ina.Rails(tmp_path).watts, {})
    (tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input").unlink()
    sampled._thread.join()
    with pytest.raises(RunnerError, match=r"the meter stopped: .*curr1_input cannot be read: No"):
        sampled.read()


def test_there_is_no_rail_on_another_device(tmp_path):
    with pytest.raises(RunnerError, match=r"^ina: .*/ina3221 has no rail; .*take another meter"):
        ina.Rails(tmp_path)


BUS_ID = b"0000:1B:00.0"
VOID, INT, UINT, ULONGLONG = (
    ctypes.POINTER(kind)
    for kind in (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_ulonglong)
)


def function(*types):
    """A C function of those arguments that gives 0, or what the Python function gives."""
    return lambda python: ctypes.CFUNCTYPE(ctypes.c_int, *types)(lambda *a: python(*a) or 0)


class Board:
    """The two libraries of a driver, with one GPU that draws as the machine does."""

    def __init__(self, energy_code=0, power_code=0):
        self.millijoules, self.milliwatts, self.asked = 7_000_000_000_000, 10_000, []
        self.energy_code, self.power_code = energy_code, power_code
        self.nvml = SimpleNamespace(
            nvmlInit_v2=function()(lambda: 0),
            nvmlDeviceGetHandleByPciBusId_v2=function(ctypes.c_char_p, VOID)(self._handle),
            nvmlDeviceGetTotalEnergyConsumption=function(ctypes.c_void_p, ULONGLONG)(self._energy),
            nvmlDeviceGetPowerUsage=function(ctypes.c_void_p, UINT)(self._power),
        )
        nothing, texts = lambda *_: 0, (ctypes.POINTER(ctypes.c_char), ctypes.c_int, ctypes.c_int)
        self.cuda = SimpleNamespace(
            cuInit=function(ctypes.c_uint)(nothing),
            cuDeviceGetCount=function(INT)(lambda count: count.__setitem__(0, 1)),
            cuDeviceGet=function(INT, ctypes.c_int)(lambda gpu, _: gpu.__setitem__(0, 5)),
            cuDevicePrimaryCtxRetain=function(VOID, ctypes.c_int)(nothing),
            cuCtxSetCurrent=function(ctypes.c_void_p)(nothing),
            cuDeviceGetName=function(*texts)(nothing),
            cuDeviceGetAttribute=function(INT, ctypes.c_int, ctypes.c_int)(nothing),
            cuDeviceGetPCIBusId=function(*texts)(self._bus_id),
        )

    def _bus_id(self, text, length, gpu):
        assert gpu == 5
        for index, byte in enumerate(BUS_ID[:length]):
            text[index] = byte

    def _handle(self, bus_id, handle):
        self.asked.append(bus_id)
        handle[0] = 0xCAFE

    def _energy(self, handle, millijoules):
        assert handle == 0xCAFE
        millijoules[0] = self.millijoules
        return self.energy_code

    def _power(self, handle, milliwatts):
        assert handle == 0xCAFE
        milliwatts[0] = self.milliwatts
        return self.power_code

    def draw(self, time_ns, watts):
        self.millijoules += round(time_ns * watts / MS)
        self.milliwatts = round(watts * 1000)


@pytest.fixture
def make_board(monkeypatch):
    def make(**codes):
        board = Board(**codes)
        libraries = {nvml.LIBRARY: board.nvml, cuda.LIBRARY: board.cuda}
        monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)
        return board

    return make


def test_nvml_counts_the_energy_of_the_gpu_that_cuda_runs_on(make_board, tmp_path):
    board = make_board()
    found = Machine(board.draw).measure("nvml", tmp_path)
    assert board.asked == [BUS_ID]
    assert (found["joules"], found["idle_w"]) == (pytest.approx(300), pytest.approx([10, 10]))
    assert found["facts"] == {"reads": "energy"}


def test_the_power_of_a_gpu_without_a_counter_is_sampled(make_board, tmp_path):
    found = Machine(make_board(energy_code=3).draw, busy_w=10.0).measure("nvml", tmp_path)
    assert found["joules"] == pytest.approx(100)
    assert found["facts"] == {"reads": "power", "samples_per_s": 50}


GPUS = {
    "that tells neither": ({"energy_code": 3, "power_code": 3}, "PowerUsage fails with .* 3;"),
    "that is lost": ({"energy_code": 15}, r"TotalEnergyConsumption fails with nvmlReturn_t 15;"),
}


@pytest.mark.parametrize(("codes", "words"), GPUS.values(), ids=GPUS)
def test_a_gpu_is_refused_in_one_line(make_board, codes, words):
    make_board(**codes)
    with pytest.raises(RunnerError, match=rf"^nvml: nvmlDeviceGet{words} .*take another meter"):
        nvml.Gpu()


def test_without_a_driver_there_is_no_nvml(monkeypatch):
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-absent.so.1")
    with pytest.raises(RunnerError, match=r"^nvml: libnvidia-ml-absent\.so\.1 is absent; install"):
        nvml.Gpu()


PHASES = ["idle_before", "idle_before_end", "busy", "busy_end", "idle_after", "idle_after_end"]


@pytest.mark.parametrize(("window_ns", "idle_ns"), [(10 * S, 2 * S), (20 * S, 4 * S)])
def test_somebody_elses_meter_gets_the_marks_alone(tmp_path, window_ns, idle_ns):
    machine, marks = Machine(lambda *_: None), []
    found = machine.measure(
        "serial", tmp_path, window_ns, mark=lambda name: marks.append((name, machine.now_ns))
    )
    assert [name for name, _ in marks] == PHASES
    times = [time for _, time in marks]
    assert [times[i + 1] - times[i] for i in (0, 2, 4)] == [idle_ns, window_ns, idle_ns]
    assert times[0] >= idle_ns  # the first idling comes after work, as the second does
    assert (found["joules"], found["idle_w"]) == (None, [None, None])


def test_both_times_of_idling_are_told_apart(tmp_path):
    powercap = Powercap(tmp_path, PACKAGE)
    machine = Machine(powercap.draw)

    def warmer(name):
        machine.idle_w = 14.0 if name == "busy_end" else machine.idle_w

    found = machine.measure("rapl", tmp_path, mark=warmer)
    assert found["idle_w"] == pytest.approx([10, 14], abs=1e-5)


@pytest.mark.parametrize("run_ns", [50_000, 333_000, 30 * MS, 9 * S])
def test_every_run_of_the_window_is_counted(tmp_path, run_ns):
    machine, times = Machine(lambda *_: None, run_ns=run_ns), []
    found = machine.measure("serial", tmp_path, mark=lambda _: times.append(machine.now_ns))
    assert found["num_runs"] * run_ns == found["window_ns"] == times[3] - times[2]
    # over by a run, or by what fits between two looks at the clock
    assert 0 <= found["window_ns"] - WINDOW_NS < max(run_ns, 1 * MS)


def test_a_suspend_is_told(tmp_path, monkeypatch):
    readings = iter([clock.Reading(0, 0, 0), clock.Reading(1 * S, 61 * S, 61 * S)])
    monkeypatch.setattr(clock, "read", readings.__next__)
    found = Machine(lambda *_: None).measure("serial", tmp_path)
    assert (found["clock_jump"], found["clock_suspended_ns"]) == (True, 60 * S)


def test_a_meter_is_tried_without_running_anything(tmp_path):
    with pytest.raises(RunnerError, match=r"^ina: .*/ina3221 has no rail"):
        meters.check("ina", root=tmp_path)
    Monitors(tmp_path, ORIN_NANO)
    meters.check("ina", root=tmp_path)
    (tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input").unlink()
    with pytest.raises(RunnerError, match="curr1_input cannot be read"):
        meters.check("ina", root=tmp_path)


REFUSED = {
    "a window below ten seconds": ("rapl", 9 * S, r"a window of 9 s is too short .*; take 10 s"),
    "an unknown meter": ("wattmeter", WINDOW_NS, r"meter 'wattmeter' is not known; known: rapl, "),
}


@pytest.mark.parametrize(("meter", "window_ns", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(tmp_path, meter, window_ns, words):
    with pytest.raises(RunnerError, match=words):
        meters.measure(lambda: None, meter, window_ns, root=tmp_path)


def test_garbage_collection_rests_while_it_runs(tmp_path):
    seen = []
    machine = Machine(lambda *_: seen.append(gc.isenabled()))
    assert gc.isenabled()
    machine.measure("serial", tmp_path)
    assert gc.isenabled()
    assert {seen[0], seen[-2]} == {False, True}  # running, then sleeping
