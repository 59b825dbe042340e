"""From workers' replies to one `Measurement` a candidate, with flags on how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files, manifest
from pipeline.errors import ParityError
from pipeline.measurement import Interval, Measurement
from pipeline.profiling import agreement, statistics
from pipeline.profiling.agreement import Outputs
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.quality import Judge, Truth
from pipeline.runtimes import host

SEED = 0  # of the bootstrap
NS_PER_MS = 1e6
NS_PER_S = 1e9
# If others use more of all cores than this, the numbers are no longer this program's alone.
MAX_OTHERS_RATIO = 0.1
MEMORY_METER = "VmHWM after load and 10 runs, less VmRSS before load"
HOST_KEYS = ("host_before", "host_after", "others_ratio", "loop_overhead_ns")
CLOCK_KEYS = ("clock_suspended_ns", "clock_drift_ns")  # a foreign runner may not tell


@dataclass(frozen=True, eq=False)
class Found:
    """What workers found of one candidate; ``reason`` says why it has no outputs."""

    candidate: Candidate
    outputs: Outputs | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    restarts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Measured:
    """A measurement with what it rests on; without samples and outputs if it is ``not_measured``.

    ``samples``: ``samples_ns_R`` for each restart R, raw times of ``runs_per_sample[R]`` runs each.
    ``tensors``: the outputs as the runner described them.
    """

    measurement: Measurement
    samples: dict[str, NDArray[np.int64]]
    outputs: Outputs | None
    tensors: tuple[dict[str, Any], ...] = ()


def summarize(found: Found, reference: Found | None, bench: Bench) -> Measured:
    """Make the measurement of one candidate; ``reference`` None leaves comparisons absent."""
    if found.outputs is None:
        assert found.reason is not None
        return Measured(not_measured(found.candidate, found.reason, bench), {}, None)
    compared = reference if reference is not found else None
    try:
        how_good = judged(
            found.outputs,
            compared.outputs if compared else None,
            bench,
            has_reference=reference is not None,
        )
    except ParityError as error:
        return Measured(not_measured(found.candidate, str(error), bench), {}, None)
    tensors = tuple(found.reply.get("tensors", ()))
    if not found.restarts:
        emulated = _emulated(found, reference, how_good, bench)
        return Measured(emulated, {}, found.outputs, tensors)
    measurement = Measurement(
        kind="measured",
        **identity(found.candidate, bench),
        **_latency(found.restarts),
        **how_good,
        latency_ratio=ratio(found, compared) if compared else None,
        peak_memory_bytes=found.reply["peak_memory_bytes"],
        host=_host(found),
        flags=_flags(found.restarts, has_reference=reference is not None),
    )
    samples = {
        f"samples_ns_{index}": np.array(restart["samples_ns"], np.int64)
        for index, restart in enumerate(found.restarts)
    }
    samples["runs_per_sample"] = np.array([r["runs_per_sample"] for r in found.restarts], np.int64)
    return Measured(measurement, samples, found.outputs, tensors)


def _emulated(
    found: Found, reference: Found | None, how_good: dict[str, Any], bench: Bench
) -> Measurement:
    """Record what an emulator can tell: outputs, and a micro-controller's arena.

    Its times and its process's memory are not the target's.
    """
    assert not bench.is_timed
    return Measurement(
        kind="emulated",
        **identity(found.candidate, bench),
        **how_good,
        runtime_version=found.reply["facts"]["version"],
        peak_memory_bytes=found.reply["facts"].get("arena_bytes"),
        host={"facts": found.reply["facts"], "python": found.reply.get("python")},
        flags=() if reference is not None else ("no_reference",),
    )


def not_measured(candidate: Candidate, reason: str, bench: Bench) -> Measurement:
    """Record that a candidate has no measurement on this target, and why."""
    return Measurement(kind="not_measured", reason=reason, **identity(candidate, bench))


def judged(
    outputs: Outputs,
    reference_outputs: Outputs | None,
    bench: Bench,
    *,
    has_reference: bool = True,
) -> dict[str, Any]:
    """Return the fields of a measurement that say how good the outputs are on the bench.

    ``reference_outputs`` None leaves drop and agreement absent: these are the reference's own
    outputs or, if ``has_reference`` is false, the reference could not be run.
    """
    return judged_by(bench.judge, bench.truth, outputs, reference_outputs, has_reference)


def judged_by(
    judge: Judge,
    truth: Truth,
    outputs: Outputs,
    reference_outputs: Outputs | None,
    has_reference: bool = True,
) -> dict[str, Any]:
    """Return what `judged` does, by a judge and its truth.

    Quality too is absent where the judge needs the reference and there is none.

    Raises:
        ParityError: the outputs are of another form than the reference's.
    """
    if reference_outputs is None:
        if judge.needs_reference and not has_reference:
            return {}
        return {"quality": judge.quality(outputs, replace(truth, reference_outputs=outputs))}
    truth = replace(truth, reference_outputs=reference_outputs)
    outputs = agreement.aligned(outputs, reference_outputs)
    return {
        "quality": judge.quality(outputs, truth),
        "drop": judge.drop(outputs, reference_outputs, truth),
        "agreement": agreement.agreement(outputs, reference_outputs),
    }


def identity(candidate: Candidate, bench: Bench) -> dict[str, Any]:
    """Return the fields of a measurement that say of what, on what and when it is."""
    described = manifest.read(candidate.artifact)
    return {
        "artifact": files.digest_file(candidate.artifact / manifest.FILE_NAME),
        "candidate": candidate.name,
        "target": bench.target_id,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": {k: v for k, v in bench.device.items() if k != "fingerprint"},
        "fingerprint": bench.device.get("fingerprint"),
        "runtime": bench.target.runtime,
        "num_threads": bench.target.profile.num_threads,
        "size_bytes": sum(file.size_bytes for file in described.files.values()),
    }


def _latency(restarts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    restarts_ms = [per_run_ms(restart) for restart in restarts]
    runs = max(restart["runs_per_sample"] for restart in restarts)
    num_runs = sum(r["runs_per_sample"] * len(r["samples_ns"]) for r in restarts)
    total_ns = sum(sum(restart["samples_ns"]) for restart in restarts)
    return {
        "runtime_version": restarts[0]["facts"]["version"],
        "num_restarts": len(restarts),
        "num_warmup": sum(1 + restart["num_warmup"] for restart in restarts),
        "num_samples": sum(len(samples) for samples in restarts_ms),
        "runs_per_sample": runs,
        "latency_ms": statistics.latency(restarts_ms, batched=runs > 1, seed=SEED),
        "throughput_per_s": num_runs / total_ns * NS_PER_S,
        "load_ms": float(np.median([r["load_ns"] for r in restarts])) / NS_PER_MS,
        "first_ms": float(np.median([r["first_ns"] for r in restarts])) / NS_PER_MS,
    }


def ratio(found: Found, reference: Found, confidence: float = 95.0) -> Interval:
    """Return the latency of one to the other's, with its interval.

    Paired by round and, where all were timed in turns, by turn.
    """
    pairs = list(zip(found.restarts, reference.restarts, strict=True))
    if all(each.get("samples_per_turn") for pair in pairs for each in pair):
        turns = [turn_ratios(*pair) for pair in pairs]
        return statistics.turns_ratio_interval(turns, SEED, confidence)
    return statistics.ratio_interval(
        [per_run_ms(restart) for restart in found.restarts],
        [per_run_ms(restart) for restart in reference.restarts],
        SEED,
        confidence,
    )


def turn_ratios(one: dict[str, Any], other: dict[str, Any]) -> NDArray[np.float64]:
    """Return [T] ratios of the medians of turns, as many as both had."""
    ours, theirs = _turn_medians(one), _turn_medians(other)
    shortest = min(len(ours), len(theirs))
    return ours[:shortest] / theirs[:shortest]


def _turn_medians(restart: dict[str, Any]) -> NDArray[np.float64]:
    ends = np.cumsum(restart["samples_per_turn"])[:-1]
    return np.array([np.median(turn) for turn in np.split(per_run_ms(restart), ends)])


def per_run_ms(restart: dict[str, Any]) -> NDArray[np.float64]:
    """Return [N] milliseconds a run of a reply's samples."""
    samples = np.array(restart["samples_ns"], np.float64)
    per_run: NDArray[np.float64] = samples / (restart["runs_per_sample"] * NS_PER_MS)
    return per_run


def _host(found: Found) -> dict[str, Any]:
    """Keep what was true of the machine and of the process while it measured."""
    restarts = found.restarts
    return {
        "bootstrap_seed": SEED,
        "facts": restarts[0]["facts"],
        "input_digest": restarts[0]["input_digest"],
        "memory_meter": MEMORY_METER,
        "python": restarts[0].get("python"),  # a foreign runner has none
        "restarts": [
            {
                **{key: restart[key] for key in HOST_KEYS},
                **{key: restart.get(key) for key in CLOCK_KEYS},
                "p50_ms": statistics.percentile(per_run_ms(restart), 50),
            }
            for restart in restarts
        ],
    }


def _flags(restarts: Sequence[dict[str, Any]], *, has_reference: bool) -> tuple[str, ...]:
    throttled = any(host.was_throttled(r["host_before"], r["host_after"]) for r in restarts)
    flags = {
        "batched": any(restart["runs_per_sample"] > 1 for restart in restarts),
        "clock_jump": any(restart.get("clock_jump", False) for restart in restarts),
        "host_busy": any((r["others_ratio"] or 0) > MAX_OTHERS_RATIO for r in restarts),
        "no_reference": not has_reference,
        "not_steady": not all(restart["steady"] for restart in restarts),
        "throttled": throttled,
    }
    return tuple(name for name, is_set in flags.items() if is_set)
