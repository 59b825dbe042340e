"""Stage ``certify@T``: the one chosen artifact and the reference, once, on the test split.

Reads   params.yaml [targets.T.profile]; models/selected/T/; models/data/test.npz;
        models/toolchain/T/tools.json
Writes  models/certified/T/ {measurement.json, reference.json, manifest.json}; the manifest alone
        when nothing was selected
"""

from pathlib import Path

import msgspec

from pipeline import console, manifest, measurement, params
from pipeline.data import splits
from pipeline.measurement import Measurement
from pipeline.profiling import agreement, golden, measure

ARTIFACT, REFERENCE = "measurement.json", "reference.json"


def run(selected: Path, test: Path, out: Path, p: params.Params, target: str) -> None:
    manifest.verify(selected)
    out.mkdir(parents=True)
    if (selected / "artifact").is_dir():
        chosen, reference = _certify(selected, test, p.targets[target])
        measurement.write(out / ARTIFACT, chosen)
        measurement.write(out / REFERENCE, reference)
        assert chosen.quality is not None
        console.say("certify", f"{target}: {chosen.quality.value:.2f} % on test")
    manifest.write(
        out,
        model=p.model,
        stage="certify",
        target=target,
        inputs=manifest.inputs_of(selected=selected, test=test),
    )


def _certify(selected: Path, test: Path, target: params.Target) -> tuple[Measurement, Measurement]:
    """Replace quality, drop and agreement of both measurements by what the test split says."""
    labels = splits.read(test).labels
    golden.check_golden(
        selected / "artifact" / "files", selected / "artifact" / "golden.npz", target
    )
    reference_outputs = measure.outputs(selected / "reference" / "files", test, target)
    outputs = measure.outputs(selected / "artifact" / "files", test, target)
    reference = msgspec.structs.replace(
        measurement.read(selected / "reference" / measurement.FILE_NAME),
        quality=agreement.quality(reference_outputs, labels),
    )
    chosen = msgspec.structs.replace(
        measurement.read(selected / "artifact" / measurement.FILE_NAME),
        quality=agreement.quality(outputs, labels),
        drop=agreement.drop(outputs, reference_outputs, labels),
        agreement=agreement.agreement(outputs, reference_outputs),
    )
    return chosen, reference


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
