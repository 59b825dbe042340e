"""What can be said of a file for a micro-NPU without one: its outputs, its arena, an estimate.

Outputs come from tflite-micro's kernels, whose integer arithmetic the NPU keeps; memory is the
arena that they record; latency and operator placement are the compiler's own words (vela.json).
Nothing is timed: the measurement's kind is ``estimated``, which is never ranked with ``measured``.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from pipeline import manifest, params
from pipeline.errors import ParityError
from pipeline.measurement import Latency, Measurement
from pipeline.profiling import passes, summary, workers
from pipeline.profiling.agreement import Outputs
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.summary import Measured
from pipeline.profiling.workers import ModelRefusedError
from pipeline.runtimes import mapped, structured
from pipeline.targets import ethos_u
from pipeline.targets.ethos_u import Estimate

MEMORY_METER = "arena that tflite-micro records for the uncompiled file, on a 64-bit host"
COMPILER = "ethos-u-vela"
# The fp32 reference never ships, so it may run where tflite-micro lacks a float kernel.
REFERENCE_RUNTIME: params.Runtime = "litert"


@dataclass(frozen=True, eq=False)
class Found:
    """What a worker found of one candidate; ``reason`` says why it has no outputs."""

    candidate: Candidate
    runtime: params.Runtime
    outputs: Outputs | None = None
    reply: dict[str, Any] | None = None
    reason: str | None = None


def measure(
    candidates: Sequence[Candidate],
    reference: str,
    bench: Bench,
    on_step: Callable[[str], None] = lambda _note: None,
) -> list[Measured]:
    """Judge every candidate, in their order; drop and agreement are against the reference.

    A candidate that tflite-micro refuses, or whose outputs are not finite, is ``not_measured`` with
    the reason; the reference alone then runs in LiteRT, carries the flag ``reference_by_litert``
    and names that runtime.

    Args:
        candidates: artifacts of `to_ethos_u`.
        reference: the name of the one to compare with.
        bench: where and on what.
        on_step: called once a candidate with a short note.

    Raises:
        ManifestError: an artifact lacks vela.json, or differs from its manifest.
        TargetError: a worker failed for a reason that may pass; then nothing is returned.
    """
    found = []
    for candidate in candidates:
        on_step(f"{candidate.name}: quality")
        found.append(_run(candidate, bench, is_reference=candidate.name == reference))
    compared = next(
        (f for f in found if f.candidate.name == reference and f.outputs is not None), None
    )
    measured = [_summarize(each, compared, bench) for each in found]
    return [
        replace(each, measurement=passes.modelled(each.measurement, bench)) for each in measured
    ]


def _run(candidate: Candidate, bench: Bench, *, is_reference: bool) -> Found:
    runtimes = [bench.target.runtime]
    if is_reference:
        runtimes.append(REFERENCE_RUNTIME)
    reason = None
    for runtime in runtimes:
        target = msgspec.structs.replace(bench.target, runtime=runtime)
        try:
            outputs, reply = _outputs(candidate, target, bench)
        except ModelRefusedError as error:
            reason = str(error)
            continue
        if not structured.finite_rows(outputs).all():
            return Found(candidate, runtime, reason="its outputs hold NaN or inf")
        return Found(candidate, runtime, outputs, reply)
    return Found(candidate, bench.target.runtime, reason=reason)


def _outputs(
    candidate: Candidate, target: params.Target, bench: Bench
) -> tuple[Outputs, dict[str, Any]]:
    job = workers.job_of(candidate.artifact, bench.inputs, target, bench.environments)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / workers.OUTPUTS
        reply = workers.outputs(job, path)
        with mapped.loaded(path) as arrays:
            return arrays["outputs"], reply


def _summarize(found: Found, reference: Found | None, bench: Bench) -> Measured:
    """Make the measurement of one candidate; ``reference`` None leaves comparisons absent."""
    if found.outputs is None or found.reply is None:
        assert found.reason is not None
        return Measured(summary.not_measured(found.candidate, found.reason, bench), {}, None)
    compared = reference if reference is not found else None
    try:
        how_good = summary.judged(
            found.outputs,
            compared.outputs if compared else None,
            bench,
            has_reference=reference is not None,
        )
    except ParityError as error:
        return Measured(summary.not_measured(found.candidate, str(error), bench), {}, None)
    estimate = ethos_u.read(found.candidate.artifact)
    described = manifest.read(found.candidate.artifact)
    facts = found.reply["facts"]
    shipped = manifest.model_file(described, str(found.candidate.artifact))
    identity = {
        **summary.identity(found.candidate, bench),
        "runtime": found.runtime,
        # what goes into flash; the uncompiled file beside it stays on the host
        "size_bytes": described.files[shipped].size_bytes,
    }
    measurement = Measurement(
        kind="estimated",
        **identity,
        runtime_version=facts["version"],
        latency_ms=Latency(p50=estimate.inference_ms),
        **how_good,
        peak_memory_bytes=facts.get("arena_bytes"),
        placement=estimate.placement,
        num_cycles=estimate.cycles.total if estimate.cycles else None,
        layers=estimate.layers,
        host={
            "facts": facts,
            "latency_meter": _latency_meter(estimate, described.tools.get(COMPILER)),
            "memory_meter": MEMORY_METER if "arena_bytes" in facts else None,
            "python": found.reply.get("python"),
            "vela_memory": msgspec.to_builtins(estimate.memory),
        },
        flags=_flags(found, estimate, has_reference=reference is not None),
    )
    return Measured(measurement, {}, found.outputs)


def _latency_meter(estimate: Estimate, version: str | None) -> str:
    return (
        f"Vela {version} for {estimate.accelerator_config} at {estimate.clock_hz / 1e6:g} MHz "
        f"({estimate.system_config}, {estimate.memory_mode})"
    )


def _flags(found: Found, estimate: Estimate, *, has_reference: bool) -> tuple[str, ...]:
    partly = estimate.inference_ms is not None and estimate.placement.num_fallback > 0
    flags = {
        "cpu_operators_not_counted": partly,  # Vela's cycles are of the NPU alone
        "no_reference": not has_reference,
        "reference_by_litert": found.runtime == REFERENCE_RUNTIME,
    }
    return tuple(name for name, is_set in flags.items() if is_set)
