"""What a profile asks for beside outputs and latency: loads, times of layers, energy.

Each is a pass of its own, after the rounds in which latency is timed: noting operators' times or
running for ten seconds on end would disturb it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pipeline.measurement import Measurement
from pipeline.profiling import layers, loads, workers
from pipeline.profiling.bench import Bench, Candidate


def num_steps(bench: Bench) -> int:
    """Return how often `run` calls ``on_step`` at most."""
    return loads.num_calls(loads.requests(bench.target.profile, bench.preset)) + _tells_layers(
        bench
    )


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
    asked = loads.requests(bench.target.profile, bench.preset)

    def load(document: Mapping[str, Any]) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = workers.call(job, "load", load=document)
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
    return msgspec.structs.replace(measured, **found)


def _tells_layers(bench: Bench) -> bool:
    return bench.target.profile.layers and bench.target.runtime not in layers.SILENT
