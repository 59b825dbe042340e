"""What a profile asks for beside outputs and latency: loads, times of layers, energy.

Each is a pass of its own, after the rounds in which latency is timed: noting operators' times or
running for ten seconds on end would disturb it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pipeline import params
from pipeline.errors import TargetError
from pipeline.measurement import Energy, Measurement
from pipeline.profiling import energy, layers, loads, serial_meter, workers
from pipeline.profiling.bench import NS_PER_S, Bench, Candidate
from pipeline.profiling.workers import Job
from pipeline.runtimes import meters
from pipeline.runtimes.errors import RunnerError

MODELLED = "modelled"


def num_steps(bench: Bench) -> int:
    """Return how often `run` calls ``on_step`` at most."""
    asked = loads.num_calls(loads.requests(bench.target.profile, bench.preset))
    return asked + _tells_layers(bench) + _has_meter(bench)


def check_meter(bench: Bench) -> None:
    """Try the meter that the profile asks for, so that what is absent is said before hours of work.

    One that another device reads itself cannot be tried without a model there: `run` does.

    Raises:
        TargetError: there is no such meter, or it may not be read.
    """
    asked = bench.target.profile.energy
    if asked is None or asked.meter == MODELLED:
        return
    if asked.meter == "serial":
        assert asked.port is not None  # a rule of params.yaml
        with serial_meter.opened(asked.port):
            return
    if bench.target.connection is None:
        try:
            meters.check(asked.meter)
        except RunnerError as error:
            raise TargetError(f"energy: {error}") from error


def run(
    candidate: Candidate,
    measured: Measurement,
    bench: Bench,
    sample: Path,
    on_step: Callable[[str], None],
) -> Measurement:
    """Return the measurement with what the target's profile asks for beside.

    Args:
        candidate: one that runs.
        measured: its measurement so far.
        bench: where, and how much.
        sample: the first raw sample, as a file of its own.
        on_step: called with a short note at each worker.

    Raises:
        TargetError: a worker failed for a reason that may pass.
    """
    job = workers.job_of(candidate.artifact, bench.inputs, bench.target, bench.environments)
    profile = bench.target.profile
    asked = loads.requests(profile, bench.preset)

    def load(document: Mapping[str, Any]) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = workers.call(job, "scenario", load=document)
        return reply

    def note(text: str) -> None:
        on_step(f"{candidate.name}: {text}")

    found: dict[str, Any] = {}
    if asked:
        found["loads"] = loads.measure(asked, bench.preset, load, note)
    if _tells_layers(bench):
        note("layers")
        reply = workers.call(replace(job, inputs=sample), "layers", num_runs=layers.NUM_RUNS)
        found["layers"] = layers.of_rows(reply["layers"])
    if profile.energy is not None and _has_meter(bench):
        note("energy")
        found["energy"] = _metered(replace(job, inputs=sample), profile.energy)
    return modelled(msgspec.structs.replace(measured, **found), bench)


def modelled(measured: Measurement, bench: Bench) -> Measurement:
    """Return the measurement with modelled energy, if the target's profile asks for that.

    Raises:
        TargetError: the hardware's entry does not say what it takes.
    """
    asked, p50_ms = bench.target.profile.energy, measured.latency_ms.p50
    if asked is None or asked.meter != MODELLED or bench.hardware is None or p50_ms is None:
        return measured
    is_measured = measured.kind == "measured"
    timed_by = f"on {measured.processor}" if is_measured else "of its compiler"
    found = energy.modelled(bench.hardware, p50_ms, timed_by)
    return msgspec.structs.replace(measured, energy=found)


def _metered(job: Job, asked: params.EnergyMeter) -> Energy:
    """Run one request again and again beside a meter: on the device, or on a port of this host."""
    window: dict[str, Any] = {"meter": asked.meter, "window_ns": round(asked.window_s * NS_PER_S)}
    limit_s = workers.TIME_LIMIT_S + 2 * asked.window_s
    if asked.meter != "serial":
        return energy.metered(workers.call(job, "energy", time_limit_s=limit_s, **window))
    assert asked.port is not None  # a rule of params.yaml
    marks: dict[str, int] = {}

    def mark(name: str) -> None:
        marks[name] = time.perf_counter_ns()

    with serial_meter.opened(asked.port) as meter:
        reply = workers.call(
            job,
            "energy",
            time_limit_s=limit_s,
            on_mark=mark,
            **window,
        )
        return energy.metered({**reply, **meter.read(marks)})


def _has_meter(bench: Bench) -> bool:
    asked = bench.target.profile.energy
    return asked is not None and asked.meter != MODELLED


def _tells_layers(bench: Bench) -> bool:
    return bench.target.profile.layers and bench.target.runtime not in layers.SILENT
