"""Compare what a project has: two artifacts of a target, or what ships now with a release.

Measured targets are measured again, both artifacts beside each other; of the others the records are
compared, which hold no noise.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pipeline import files, manifest, measurement, params
from pipeline.compatibility import EVIDENCE
from pipeline.data import splits
from pipeline.errors import InputsError, TargetError
from pipeline.profiling import compare
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.compare import Comparison
from pipeline.registry import release, resolve
from pipeline.registry.store import Store
from pipeline.reporting import difference, words
from pipeline.reporting.difference import Difference, Verdict
from pipeline.targets import device

VALIDATION = "models/data/validation.npz"


class Limits(msgspec.Struct, frozen=True):
    """What is no difference: by latency and size within 1 +- a ratio; and how long to ask."""

    latency_ratio: float = compare.TOLERANCE_RATIO
    size_ratio: float = 0.05
    max_rounds: int = compare.MAX_ROUNDS


def bench_of(project: Path, p: params.Params, target: str) -> Bench:
    """Make the bench of a target on the project's validation split and this machine.

    Raises:
        TargetError: no such target, or nothing of it is measured on this machine.
        InputsError: the validation split is not here.
    """
    if target not in p.targets:
        known = ", ".join(p.targets)
        raise TargetError(f"{target!r} is no target of params.yaml; there is {known}")
    evidence = EVIDENCE[p.targets[target].converter]
    if evidence != "measured":
        raise TargetError(
            f"{target} is {evidence} on this machine, and only what is measured can be measured "
            "again; slipway report has its figures"
        )
    inputs = project / VALIDATION
    if not inputs.is_file():
        raise InputsError(f"{inputs} is not here; run dvc repro prepare, or dvc pull")
    machine = device.describe()
    machine["fingerprint"] = device.fingerprint(machine)
    return Bench.of(p, target, inputs, splits.read(inputs), device=machine)


def find(project: Path, target: str, name: str) -> Candidate:
    """Find an artifact by its candidate id in the project, or by its folder.

    Raises:
        InputsError: there is none, with the ids that there are.
    """
    converted = project / "models/converted" / target
    for folder in (converted / name, Path(name), Path(name) / release.ARTIFACT):
        if (folder / manifest.FILE_NAME).is_file() and manifest.read(folder).signature is not None:
            return Candidate(name, folder)
    known = sorted(path.name for path in converted.glob("*") if path.is_dir())
    raise InputsError(
        f"{name!r} is no artifact: neither a folder with a manifest nor a candidate of {target} "
        f"({', '.join(known) or 'none is converted here: run dvc repro'})"
    )


def against_release(
    project: Path,
    p: params.Params,
    store: Store,
    version: str | None,
    limits: Limits,
    on_step: Callable[[str], None] = lambda _note: None,
) -> Iterator[tuple[Difference, Comparison | None]]:
    """Yield for each target what became of it since a release, and the comparison if one was made.

    Args:
        project: whose ``models/release`` ships now.
        p: its parameters.
        store: the registry that holds the release.
        version: of the release; None is the newest.
        limits: what is no difference.
        on_step: called with a short note at each worker.

    Raises:
        RegistryError: there is no such release, or it is damaged.
        TargetError: an artifact does not run, or a worker failed.
    """
    base = resolve.find(store, p.model, version)
    for target in dict.fromkeys([*p.targets, *base.targets]):
        folder = project / "models/release" / target
        now = difference.read(folder)
        with tempfile.TemporaryDirectory(prefix="slipway-") as name:
            then, fetched = None, Path(name) / "then"
            if target in base.targets:
                resolve.pull(store, p.model, target, base.version, fetched, accept_unproven=True)
                then = difference.Shipped(measurement.read(fetched / measurement.FILE_NAME))
            if then is None or now is None or now.measurement is None:
                (found,) = difference.compare({target: then}, {target: now}, limits.size_ratio)
                yield found, None
                continue
            artifact = folder / release.ARTIFACT
            if _digest(artifact) == _digest(fetched):
                why = "the same artifact"
                yield Difference(target, "unchanged", why, then.measurement, now.measurement), None
            elif target in p.targets and EVIDENCE[p.targets[target].converter] == "measured":
                pair = Candidate(f"{p.model} {base.version}", fetched), Candidate("now", artifact)
                made = compare.compare(
                    *pair,
                    bench=bench_of(project, p, target),
                    tolerance_ratio=limits.latency_ratio,
                    max_rounds=limits.max_rounds,
                    on_step=on_step,
                )
                yield _difference(target, made, limits), made
            else:
                (found,) = difference.compare({target: then}, {target: now}, limits.size_ratio)
                yield found, None


def _digest(artifact: Path) -> str:
    return files.digest_file(artifact / manifest.FILE_NAME)


def _difference(target: str, made: Comparison, limits: Limits) -> Difference:
    """Judge a comparison by size, quality and latency; one that is worse is not made good again."""
    before, after = made.before, made.after
    found = difference.of_size(before, after, limits.size_ratio)
    if made.quality is not None:
        found.append((made.quality, f"{words.drop(after)} lost"))
    found.append((made.latency, f"p50 {words.ratio(after)}"))
    said = {verdict for verdict, _ in found}
    order: tuple[Verdict, ...] = ("worse", "better", "inconclusive")
    verdict = next(verdict for verdict in order if verdict in said)
    why = "; ".join(f"{why}: {verdict}" for verdict, why in found)
    return Difference(target, verdict, why, before, after)
