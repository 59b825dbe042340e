"""Stage ``register@T``: T's part of the release, by digest. Pure: adds nothing of its own.

Reads   models/selected/T/; models/certified/T/
Writes  models/release/T/ {release.json, artifact/, measurement.json, reference.json, golden.npz,
        manifest.json}; no golden.npz of what was built only; release.json and manifest.json alone
        when nothing can ship
"""

import shutil
from pathlib import Path

import msgspec

from pipeline import console, files, manifest, params
from pipeline.planning.selection import FILE_NAME, Selection


def run(selected: Path, certified: Path, out: Path, model: str, target: str) -> None:
    manifest.verify(selected)
    manifest.verify(certified)
    selection = msgspec.json.decode((selected / FILE_NAME).read_bytes(), type=Selection)
    out.mkdir(parents=True)
    described: dict[str, str | bool | None] = {"shipped": selection.chosen is not None}
    if selection.chosen is None:
        described["reason"] = "no candidate meets the budget: " + "; ".join(
            f"{rejection.candidate}: {rejection.reason}" for rejection in selection.rejected
        )
    else:
        shutil.copytree(selected / "artifact" / "files", out / "artifact")
        if (selected / "artifact" / "golden.npz").is_file():  # what never ran has none
            shutil.copy(selected / "artifact" / "golden.npz", out / "golden.npz")
        for name in ("measurement.json", "reference.json"):
            shutil.copy(certified / name, out / name)
        chosen = manifest.read(out / "artifact")
        described |= {
            "candidate": selection.chosen,
            "variant": chosen.variant,
            "precision": chosen.precision,
        }
    (out / "release.json").write_bytes(files.encode_json(described))
    manifest.write(
        out,
        model=model,
        stage="register",
        target=target,
        inputs=manifest.inputs_of(selected=selected, certified=certified),
    )
    console.say("register", f"{target}: {selection.chosen or 'nothing to ship'}")


def main(name: str) -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "register",
        lambda: run(
            Path("models/selected") / name,
            Path("models/certified") / name,
            Path("models/release") / name,
            params.load().model,
            name,
        ),
    )
