"""Loads and layers beside latency, by real workers."""

import os

import msgspec
import numpy as np
import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.profiling import measure, passes
from pipeline.profiling.bench import Bench, Candidate, Preset
from pipeline.runtimes import meters
from pipeline.runtimes.errors import RunnerError
from pipeline.targets import hardware

TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
RAW = np.random.default_rng(0).uniform(-1, 1, (70, 2)).astype(np.float32)
LABELS = RAW.argmax(axis=1)
MULTI = params.Scenario(scenario="MultiStream", samples_per_query=4)
TOO_MANY = params.Scenario(scenario="Offline", batch_size=2)


@pytest.fixture(scope="module")
def artifact(make_artifact):
    return Candidate("dense-fp32", make_artifact(np.eye(2)))


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(RAW)


def measured(artifact, inputs, target, runtime="onnxruntime", **asked):
    profile = params.Profile(**asked)
    target = msgspec.structs.replace(target, profile=profile, runtime=runtime)
    bench = Bench("x86", target, {"fingerprint": "sha256:f"}, inputs, LABELS, TINY)
    notes = []
    (found,) = measure.measure([artifact], "dense-fp32", bench, notes.append)
    assert len(notes) == measure.num_steps(1, bench)
    return found.measurement


def test_what_is_not_asked_for_is_not_there(artifact, inputs, target):
    found = measured(artifact, inputs, target)
    assert (found.layers, found.loads, found.energy) == ((), (), None)


def test_loads_and_layers_stand_beside_the_latency(artifact, inputs, target):
    sweep = params.Sweep(num_streams=(1, 2))
    found = measured(artifact, inputs, target, layers=True, scenarios=(MULTI,), sweep=sweep)
    assert found.latency_ms.p50 > 0
    assert [layer.operator for layer in found.layers] == ["MatMul"]
    assert found.layers[0].time_ms >= 0
    assert [(load.scenario, load.num_streams) for load in found.loads] == [
        ("MultiStream", 1), ("Offline", 1), ("Offline", 2),
    ]  # fmt: skip
    assert all(load.throughput_per_s > 0 and load.reason is None for load in found.loads)
    assert found.loads[0].samples_per_query == 4


def test_a_percentile_without_enough_queries_is_absent(artifact, inputs, target):
    found = measured(artifact, inputs, target, scenarios=(MULTI, TOO_MANY))
    multi, offline = found.loads
    assert multi.num_queries >= 662 or multi.latency_ms.p99 is None
    assert offline.latency_ms == type(offline.latency_ms)()


def test_nothing_is_asked_of_a_runtime_that_tells_no_layers(target, make_inputs):
    silent = params.Profile(layers=True)
    asked = msgspec.structs.replace(target, profile=silent, runtime="litert")
    bench = Bench("x86", asked, {}, make_inputs(RAW), LABELS, TINY)
    assert passes.num_steps(bench) == 0


METERS = {
    "on no port": (
        params.EnergyMeter(meter="serial", port=f"{os.devnull}-absent"),
        r"^meter on .*-absent: ",
    ),
    "of another device": (params.EnergyMeter(meter="rapl"), r"^energy: rapl: none here$"),
}


@pytest.mark.parametrize(("asked", "words"), METERS.values(), ids=METERS)
def test_a_meter_that_is_absent_is_said_before_anything_runs(
    artifact, inputs, target, monkeypatch, asked, words
):
    def refuse(meter):
        raise RunnerError(f"{meter}: none here")

    monkeypatch.setattr(meters, "check", refuse)
    metered = msgspec.structs.replace(target, profile=params.Profile(energy=asked))
    bench, notes = Bench("x86", metered, {}, inputs, LABELS, TINY), []
    with pytest.raises(TargetError, match=words):
        measure.measure([artifact], "dense-fp32", bench, notes.append)
    assert notes == []


def test_modelled_energy_names_the_machine_whose_time_it_is(artifact, inputs, target):
    asked = params.Profile(energy=params.EnergyMeter(meter="modelled"))
    asked = msgspec.structs.replace(target, profile=asked, runtime="onnxruntime")
    bench = Bench(
        "x86", asked, {"fingerprint": "sha256:f", "cpu_model": "a fast one"}, inputs, LABELS, TINY,
        hardware=hardware.load("raspberry-pi-5"),
    )  # fmt: skip
    (found,) = measure.measure([artifact], "dense-fp32", bench)
    assert found.measurement.energy.meter.endswith("less power.idle_w, times p50 on a fast one")
