"""Stage ``select@T``: the candidate that meets T's budget and is measured best.

Reads   params.yaml [recipes, targets.T.select]; models/converted/T/; models/profiled/T/
Writes  models/selected/T/ {selection.json, artifact/, reference/, manifest.json}
        artifact/ and reference/ each hold the candidate's files, measurement.json and, unless it
        was built only, golden.npz
"""

import shutil
from pathlib import Path

from pipeline import console, files, manifest, measurement, params
from pipeline.planning import selection


def run(converted: Path, profiled: Path, out: Path, p: params.Params, target: str) -> None:
    source = manifest.read(converted)
    measurements = [
        measurement.read(path) for path in sorted(profiled.glob(f"*/{measurement.FILE_NAME}"))
    ]
    reference = params.reference_candidate(p)
    budget = p.targets[target].select
    choice = selection.select(measurements, reference, budget, target)
    out.mkdir(parents=True)
    if choice.chosen is not None:
        for role, candidate in (("artifact", choice.chosen), ("reference", reference)):
            shutil.copytree(converted / candidate, out / role / "files")
            for name in (measurement.FILE_NAME, "golden.npz"):
                if (profiled / candidate / name).is_file():  # what never ran has no golden outputs
                    shutil.copy(profiled / candidate / name, out / role / name)
    (out / selection.FILE_NAME).write_bytes(files.encode_json(choice))
    manifest.write(
        out,
        model=p.model,
        stage="select",
        target=target,
        inputs=manifest.inputs_of(converted=converted, profiled=profiled),
        params={"select": budget},
        labels=source.labels,
        preprocessing=source.preprocessing,
    )
    console.say("select", f"{target}: {choice.chosen or 'no candidate meets the budget'}")


def main(name: str) -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "select",
        lambda: run(
            Path("models/converted") / name,
            Path("models/profiled") / name,
            Path("models/selected") / name,
            params.load(),
            name,
        ),
    )
