"""What is written on a command line, as params mean it."""

import pytest

from pipeline import params
from pipeline.errors import InputsError
from pipeline.profiling import options
from pipeline.profiling.loadgen import Settings


def test_a_scenario_with_its_settings():
    assert options.scenario("Server:queries_per_s=100,num_streams=2") == params.Scenario(
        scenario="Server", queries_per_s=100.0, num_streams=2
    )
    assert options.scenario("Offline") == params.Scenario(scenario="Offline")


def test_axes_of_a_sweep():
    found = options.sweep(["batch_size=1,4,8", "num_streams=1,2"])
    assert found == params.Sweep(batch_size=(1, 4, 8), num_streams=(1, 2))
    assert options.sweep([]) is None


def test_a_meter_with_its_port():
    assert options.energy("serial:port=/dev/serial/by-id/usb-a:b,window_s=20") == (
        params.EnergyMeter(meter="serial", port="/dev/serial/by-id/usb-a:b", window_s=20.0)
    )


def test_what_loadgen_is_asked_for():
    assert options.loadgen("Server:queries_per_s=9,target_latency_ms=15,min_duration_s=2") == (
        Settings("Server", queries_per_s=9.0, target_latency_ms=15.0, min_duration_s=2.0)
    )
    assert options.loadgen("SingleStream") == Settings()


def sweep(text):
    return options.sweep(text.split())


WRONG = {
    "a scenario": (options.scenario, "Burst", r"--scenario Burst: scenario cannot be 'Burst'; kn"),
    "the scenario that is always measured": (options.scenario, "SingleStream", r"known: Multi"),
    "a key": (options.scenario, "Server:qps=3", r"'qps' is not known; known: scenario, batch_size"),
    "a word for a number": (options.scenario, "Offline:batch_size=x", r"batch_size cannot be 'x'"),
    "a range": (options.scenario, "Offline:batch_size=0", r"batch_size cannot be '0'; .* >= 1"),
    "no rate": (options.scenario, "Server:queries_per_s=inf", r"'inf'; give a finite number"),
    "a meter": (options.energy, "gas", r"--energy gas: meter cannot be 'gas'; known: rapl, nvml"),
    "a short window": (options.energy, "rapl:window_s=1", r"window_s cannot be '1'; .* >= 10"),
    "an axis": (sweep, "batch=1", r"--sweep batch=1: 'batch' is not known; known: batch_size"),
    "an axis twice": (sweep, "batch_size=1 batch_size=2", r"batch_size is given twice"),
    "an axis of nothing": (sweep, "batch_size", r"--sweep batch_size: batch_size cannot be \[''\]"),
    "LoadGen's scenario": (options.loadgen, "Burst", r"known: SingleStream, MultiStream, Server"),
    "LoadGen's setting": (options.loadgen, "Offline:min_duration_s=-1", r"cannot be '-1'; .* >= 0"),
}


@pytest.mark.parametrize(("read", "text", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_one_line(read, text, message):
    with pytest.raises(InputsError, match=message) as raised:
        read(text)
    assert "\n" not in str(raised.value)


APART = {
    "a server without a rate": (
        params.Profile(scenarios=(params.Scenario(scenario="Server"),)),
        r"scenarios: queries_per_s goes with Server, and is required there, got Server and none",
    ),
    "a serial meter without a port": (
        params.Profile(energy=params.EnergyMeter(meter="serial")),
        r"energy: port goes with meter serial, and is required there",
    ),
}


@pytest.mark.parametrize(("profile", "message"), APART.values(), ids=APART)
def test_settings_that_do_not_go_together_are_one_line(profile, message):
    with pytest.raises(InputsError, match=message):
        options.check(profile)


def test_what_is_of_the_runtime_in_a_place_is_not_judged_here():
    """nvml reads a GPU: whether the place has one is said there."""
    profile = params.Profile(energy=params.EnergyMeter(meter="nvml"))
    assert options.check(profile) == profile
