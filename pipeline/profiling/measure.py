"""Measure candidates on one target: quality, memory, and latency in interleaved rounds.

Latency is the time of one request, one at a time (MLPerf SingleStream, batch 1): copy in, run, copy
out, in the artifact's own input and output types. Preprocessing, and turning floats into integers
and back, are not timed.

Each candidate's memory and outputs come from a worker of its own, as many at a time as the machine
has processors for: nothing is timed in them. Then every round has one timing worker a candidate;
they take turns of milliseconds on the same cores, forwards and backwards (ABBA), so that whatever
the machine does meets all alike (ADR 0014). Where an emulator runs the target there are no rounds,
and memory is nobody's: its figures are ``emulated``.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import params
from pipeline.errors import TargetError
from pipeline.measurement import INVALID, Measurement
from pipeline.profiling import passes, summary, workers
from pipeline.profiling.agreement import Outputs
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.summary import Found, Measured
from pipeline.profiling.workers import Job, ModelRefusedError
from pipeline.runtimes import mapped, structured

# Memory, too, is held that often: a fleet's models are small, but not a machine's last gigabytes.
MAX_PARALLEL = 4
# Short beside the second in which a shared machine's core changes its speed; long beside a line to
# a board and the caches that the other one emptied.
TURN_NS = 10_000_000
CONNECTED_RATIO = 5
MAX_BESIDE = 8  # candidates that have their model loaded at the same time


def outputs(
    artifact: Path, inputs_npz: Path, target: params.Target, environments: Path | None = None
) -> Outputs:
    """Return an artifact's float outputs [N, ...] on its target for raw inputs [N, ...].

    Several inputs or outputs are structured arrays [N].

    Raises:
        TargetError: the worker failed, or the runtime refuses the model.
    """
    return _outputs(workers.job_of(artifact, inputs_npz, target, environments))[0]


def measure(
    candidates: Sequence[Candidate],
    reference: str,
    bench: Bench,
    on_step: Callable[[str], None] = lambda _note: None,
) -> list[Measured]:
    """Measure every candidate, in their order; ratio, drop and agreement are against the reference.

    A candidate that the runtime refuses, or whose outputs are not finite, is ``not_measured`` with
    the reason. The reference itself has no ratio, drop or agreement. If the reference is not
    measured nobody has, and all carry the flag ``no_reference``.

    Args:
        candidates: what to measure, in the order of the first round.
        reference: the name of the one to compare with.
        bench: where and on what.
        on_step: called at each of `num_steps` steps with a short note.

    Raises:
        TargetError: the meter that is asked for is absent, or a worker failed for a reason that may
            pass; then nothing is returned.
    """
    if bench.is_timed:
        passes.check_meter(bench)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        sample = first_sample(bench.inputs, Path(folder))
        found = first_passes(candidates, bench, on_step)
        running = [each for each in found if each.outputs is not None]
        if bench.is_timed:
            time_in_rounds(running, bench, sample, range(bench.preset.num_restarts), on_step)
        compared = next((each for each in running if each.candidate.name == reference), None)
        measured = [summary.summarize(each, compared, bench) for each in found]
        for each in measured:
            _require_valid(each.measurement)
        return [
            replace(
                each,
                measurement=passes.run(known.candidate, each.measurement, bench, sample, on_step),
            )
            if each.measurement.kind == "measured"
            else each
            for each, known in zip(measured, found, strict=True)
        ]


def _require_valid(measured: Measurement) -> None:
    """Raise `TargetError` for a run that something made invalid: trying again may mend it."""
    for flag in INVALID.keys() & set(measured.flags):
        raise TargetError(
            f"{INVALID[flag]} while {measured.candidate} was timed on {measured.target}; nothing "
            "was recorded: let the machine rest, and run dvc repro again"
        )


def num_steps(num_candidates: int, bench: Bench) -> int:
    """Return how often `measure` calls ``on_step`` when all candidates can be measured."""
    if not bench.is_timed:
        return num_candidates
    each = 1 + passes.num_steps(bench)  # quality and memory come first
    return num_candidates * each + bench.preset.num_restarts


def first_sample(inputs: Path, folder: Path) -> Path:
    """Copy the first raw sample to a file of its own: all that timing needs."""
    path = folder / "sample.npz"
    np.savez(path, inputs=mapped.arrays(str(inputs))["inputs"][:1])
    return path


def _job(candidate: Candidate, inputs: Path, bench: Bench) -> Job:
    return workers.job_of(candidate.artifact, inputs, bench.target, bench.environments)


def first_passes(
    candidates: Sequence[Candidate], bench: Bench, on_step: Callable[[str], None]
) -> list[Found]:
    """Get every candidate's outputs and peak memory; several at a time, in the order given."""
    found = []
    with ThreadPoolExecutor(_num_parallel(bench)) as pool:
        for candidate, each in zip(
            candidates, pool.map(partial(_first_pass, bench=bench), candidates), strict=True
        ):
            on_step(f"{candidate.name}: quality and memory")
            found.append(each)
    return found


def _first_pass(candidate: Candidate, bench: Bench) -> Found:
    try:
        values, reply = _outputs(_job(candidate, bench.inputs, bench))
    except ModelRefusedError as error:
        return Found(candidate, reason=str(error))
    if not structured.finite_rows(values).all():
        return Found(candidate, reason="its outputs hold NaN or inf")
    return Found(candidate, outputs=values, reply=reply)


def time_in_rounds(
    running: Sequence[Found],
    bench: Bench,
    sample: Path,
    rounds: range,
    on_step: Callable[[str], None],
) -> None:
    """Append one timing worker's reply a round to each candidate's restarts.

    Args:
        running: those that have outputs, in the order of even rounds.
        bench: where and how long.
        sample: as `first_sample` wrote it.
        rounds: their numbers; odd ones go backwards, and each goes on other cores.
        on_step: called once a round.
    """
    for number in rounds:
        on_step(f"latency, round {number + 1}")
        order = list(running if number % 2 == 0 else reversed(running))
        for group in (order[i : i + MAX_BESIDE] for i in range(0, len(order), MAX_BESIDE)):
            jobs = [_job(found.candidate, sample, bench) for found in group]
            for found, reply in zip(group, _time(jobs, bench, number), strict=True):
                found.restarts.append(reply)


def _time(jobs: Sequence[Job], bench: Bench, number: int) -> list[Any]:
    """Time several by turns, or one as a whole."""
    plan = bench.preset.plan()
    if len(jobs) == 1:
        return [workers.call(jobs[0], "latency", plan=plan)]
    # several threads need longer to rest between two turns, and a line to a device takes its time
    longer = bench.target.profile.num_threads * (CONNECTED_RATIO if bench.target.connection else 1)
    return workers.in_turns(jobs, TURN_NS * longer, number, plan=plan)


def _num_parallel(bench: Bench) -> int:
    there = bench.device if bench.target.connection else {}
    num_cores = there.get("num_cores") or os.cpu_count() or 1
    usable = num_cores // bench.target.profile.num_threads
    return max(1, min(usable, MAX_PARALLEL))


def _outputs(job: Job) -> tuple[Outputs, dict[str, Any]]:
    """Return the outputs, and the worker's reply."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / workers.OUTPUTS
        reply = workers.outputs(job, path)
        with mapped.loaded(path) as arrays:
            values: Outputs = arrays["outputs"]
    return values, reply
