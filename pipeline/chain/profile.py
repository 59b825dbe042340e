"""Stage ``profile@T``: one measurement a candidate, on T, on validation data.

Reads   params.yaml [task, recipes, targets.T.runtime, targets.T.profile]; models/converted/T/;
        models/data/validation.npz; models/toolchain/T/ {tools.json, device.json}; the user's metric
Writes  models/profiled/T/ {CANDIDATE/{measurement.json, samples.npz, outputs.npz, golden.npz},
        candidates.json, manifest.json}; of a candidate that did not run measurement.json alone, of
        an estimated one no samples.npz
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import console, files, manifest, measurement, params
from pipeline.data import splits
from pipeline.errors import TargetError
from pipeline.profiling import estimate, golden, measure, summary, unproven
from pipeline.profiling.bench import Bench, Candidate, Preset
from pipeline.profiling.summary import Measured
from pipeline.targets import tools as toolchain
from pipeline.transports import probe

CANDIDATES = "candidates.json"
# By the strongest evidence that can be had here of a converter's files.
METHODS: dict[str, Callable[..., list[Measured]]] = {
    "measured": measure.measure,
    "emulated": measure.measure,
    "built": unproven.measure,
    "estimated": estimate.measure,
}


def run(
    converted: Path,
    validation: Path,
    tools: Path,
    device: Path,
    out: Path,
    p: params.Params,
    target: str,
    *,
    preset: Preset | None = None,
    environments: Path | None = None,
) -> None:
    source = manifest.verify(converted)
    split = splits.read(validation)
    cfg = p.targets[target]
    bench = Bench.of(
        p,
        target,
        validation,
        split,
        device=_same_machine(device, cfg, environments),
        preset=preset,
        environments=environments,
    )
    listed = json.loads((converted / CANDIDATES).read_bytes())
    built = [c for c in listed if c["status"] == "built"]
    candidates = [Candidate(c["candidate"], converted / c["candidate"]) for c in built]
    installed = json.loads(tools.read_bytes())
    measured = _measure(candidates, params.reference_candidate(p), bench, installed)
    out.mkdir(parents=True)
    for described, found in zip(built, measured, strict=True):
        _write(out / described["candidate"], found, split.inputs, described["precision"])
    files.write_atomic(out / CANDIDATES, (converted / CANDIDATES).read_bytes())
    manifest.write(
        out,
        model=p.model,
        stage="profile",
        target=target,
        inputs=manifest.inputs_of(converted=converted, validation=validation),
        params={"profile": cfg.profile, "runtime": cfg.runtime, "task": p.task},
        tools=installed,
        labels=source.labels,
        preprocessing=source.preprocessing,
    )
    _say(target, [found.measurement for found in measured])


def _same_machine(path: Path, target: params.Target, environments: Path | None) -> dict[str, Any]:
    """Return the recorded description of the target's device, which must be what it still is."""
    recorded: dict[str, Any] = json.loads(path.read_bytes())
    if recorded.get("fingerprint") != probe.of(target, environments).device["fingerprint"]:
        raise TargetError(
            f"{path} describes another machine ({recorded.get('cpu_model', 'unreachable')}); "
            "run dvc repro, which describes this one first"
        )
    return recorded


def _measure(
    candidates: Sequence[Candidate], reference: str, bench: Bench, installed: dict[str, str]
) -> list[Measured]:
    """Measure all, or say of all that the runtime is absent."""
    evidence = bench.target.evidence
    tool = toolchain.runtime_tool(bench.target)
    absent = installed.get(tool, toolchain.ABSENT) == toolchain.ABSENT
    if absent and evidence != "built":  # that a file was built needs no runtime to be said
        environment = bench.target.profile.environment
        remedy = toolchain.remedy(tool, environment)
        reason = f"{tool} is absent in environment {environment}; {remedy}"
        if bench.target.connection is not None:
            reason = f"{tool} is absent on the device; install it there"
        return [Measured(summary.not_measured(c, reason, bench), {}, None) for c in candidates]
    total = measure.num_steps(len(candidates), bench)
    with console.track("profile", total) as step:
        return METHODS[evidence](candidates, reference, bench, step)


def _write(folder: Path, found: Measured, inputs: Any, precision: params.Precision) -> None:
    folder.mkdir()
    if found.outputs is not None:
        if found.samples:  # an estimate has none
            np.savez(folder / "samples.npz", allow_pickle=False, **found.samples)
        np.savez(folder / "outputs.npz", outputs=found.outputs)
        golden.make_golden(folder / "golden.npz", inputs, found.outputs, precision)
    measurement.write(folder / measurement.FILE_NAME, found.measurement)


def _say(target: str, measurements: Sequence[measurement.Measurement]) -> None:
    fit = [m for m in measurements if m.latency_ms.p50 is not None]
    fastest = min(fit, key=lambda m: m.latency_ms.p50 or 0.0, default=None)
    best = f"; fastest {fastest.candidate}, {fastest.latency_ms.p50:.3g} ms" if fastest else ""
    num_measured = sum(m.kind == "measured" for m in measurements)
    num_built = sum(m.kind == "built" for m in measurements)
    num_estimated = sum(m.kind == "estimated" for m in measurements)
    num_emulated = sum(m.kind == "emulated" for m in measurements)
    built = f", {num_built} built and not measured" if num_built else ""
    estimated = f", {num_estimated} estimated" if num_estimated else ""
    emulated = f", {num_emulated} emulated" if num_emulated else ""
    said = f"{num_measured} of {len(measurements)} measured{built}{estimated}{emulated}{best}"
    console.say("profile", f"{target}: {said}")


def main(name: str) -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "profile",
        lambda: run(
            Path("models/converted") / name,
            Path("models/data/validation.npz"),
            Path("models/toolchain") / name / "tools.json",
            Path("models/toolchain") / name / "device.json",
            Path("models/profiled") / name,
            params.load(),
            name,
        ),
    )
