"""What `slipway compare` measures: two artifacts of a project's target, and the bench for them."""

from pathlib import Path

from pipeline import manifest, params
from pipeline.compatibility import EVIDENCE
from pipeline.data import splits
from pipeline.errors import InputsError, TargetError
from pipeline.profiling.bench import Bench, Candidate
from pipeline.registry import release
from pipeline.targets import device

VALIDATION = "models/data/validation.npz"


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
