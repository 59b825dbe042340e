"""Stage ``certify@T``: the one chosen artifact and the reference, once, on the test split.

Reads   params.yaml [task, targets.T.runtime, targets.T.profile]; models/selected/T/;
        models/data/test.npz; the user's metric
Writes  models/certified/T/ {measurement.json, reference.json, manifest.json}; the manifest alone
        when nothing was selected
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pipeline import console, manifest, measurement, params
from pipeline.data import splits
from pipeline.measurement import Measurement
from pipeline.profiling import golden, measure, quality, summary

ARTIFACT, REFERENCE = "measurement.json", "reference.json"


def run(selected: Path, test: Path, out: Path, p: params.Params, target: str) -> None:
    manifest.verify(selected)
    out.mkdir(parents=True)
    if (selected / "artifact").is_dir():
        chosen, reference = _certify(selected, test, p.task, p.targets[target])
        measurement.write(out / ARTIFACT, chosen)
        measurement.write(out / REFERENCE, reference)
        found = chosen.quality
        said = f"{found.figure} on test" if found else f"nothing to run, {chosen.reason}"
        console.say("certify", f"{target}: {said}")
    manifest.write(
        out,
        model=p.model,
        stage="certify",
        target=target,
        inputs=manifest.inputs_of(selected=selected, test=test),
    )


def _certify(
    selected: Path, test: Path, task: params.Task, target: params.Target
) -> tuple[Measurement, Measurement]:
    """Replace quality, drop and agreement of both measurements by what the test split says.

    Of what was built and cannot run here there is nothing to replace.
    """
    chosen, reference = (
        measurement.read(selected / role / measurement.FILE_NAME)
        for role in ("artifact", "reference")
    )
    if chosen.kind == "built":
        return chosen, reference
    judge, truth = quality.judge_of(task), quality.truth_of(task, splits.read(test))
    golden.check_golden(
        selected / "artifact" / "files", selected / "artifact" / "golden.npz", target
    )
    # an fp32 reference that the target's own runtime lacks kernels for ran elsewhere
    elsewhere = msgspec.structs.replace(target, runtime=reference.runtime)
    with ThreadPoolExecutor() as pool:  # nothing is timed
        place = selected / "reference" / "files"
        asked = pool.submit(measure.outputs, place, test, elsewhere)
        other = None
        if chosen.candidate != reference.candidate:
            place = selected / "artifact" / "files"
            other = pool.submit(measure.outputs, place, test, target)
        reference_outputs = asked.result()
        outputs = other.result() if other else None
    by_itself = summary.judged_by(judge, truth, reference_outputs, None)
    judged = by_itself
    if outputs is not None:
        judged = summary.judged_by(judge, truth, outputs, reference_outputs)
    return (
        msgspec.structs.replace(chosen, **judged),
        msgspec.structs.replace(reference, **by_itself),
    )


def main(name: str) -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "certify",
        lambda: run(
            Path("models/selected") / name,
            Path("models/data/test.npz"),
            Path("models/certified") / name,
            params.load(),
            name,
        ),
    )
