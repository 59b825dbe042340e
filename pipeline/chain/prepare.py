"""Stage ``prepare``: the data source to fixed, digested splits.

Reads   params.yaml [data]; data.path, pinned by data.digest
Writes  models/data/ {train,validation,test,calibration}.npz, manifest.json
"""

import importlib.metadata
from pathlib import Path

import msgspec

from pipeline import console, manifest, params
from pipeline.data import source, splits

LIBRARIES = {"digits": ("numpy", "scikit-learn"), "npz": ("numpy",)}


def run(out: Path, p: params.Params) -> None:
    made = splits.make(source.read(p.data), p.data)
    shapes = {name: split.tensors().shape for name, split in made.items()}
    out.mkdir(parents=True)
    for name, split in made.items():
        splits.write(out / f"{name}.npz", split)
    cfg = msgspec.to_builtins(p.data)
    cfg.pop("path")  # the digest says which bytes; where they lie is the machine's affair
    manifest.write(
        out,
        model=p.model,
        stage="prepare",
        inputs=(manifest.Input("data", p.data.digest),) if p.data.digest else (),
        params={"data": cfg},
        tools={name: importlib.metadata.version(name) for name in LIBRARIES[p.data.source]},
        labels=made["train"].label_names,
        preprocessing=made["train"].preprocessing,
    )
    sizes = ", ".join(f"{len(split.labels)} {name}" for name, split in made.items())
    console.say("prepare", f"{sizes}; each sample {'x'.join(map(str, shapes['train'][1:]))}")


def main() -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage("prepare", lambda: run(Path("models/data"), params.load()))
