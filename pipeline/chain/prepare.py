"""Stage ``prepare``: the data source to fixed, digested splits.

Reads   params.yaml [data, task.kind]; data.path or data.url, pinned by data.digest
Writes  models/data/ {train,validation,test,calibration}.npz, manifest.json
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import msgspec

from pipeline import console, manifest, params
from pipeline.data import source, splits

LIBRARIES = {
    "digits": ("numpy", "scikit-learn"),
    "npz": ("numpy",),
    "fsdd": ("numpy",),
    "image_folder": ("numpy", "pillow"),
}
STEP_LIBRARIES = {"mfcc": "kaldi-native-fbank"}


def run(out: Path, p: params.Params) -> None:
    made = splits.make(source.read(p.data, p.task.kind), p.data)
    shapes = {name: split.check() for name, split in made.items()}
    out.mkdir(parents=True)
    for name, split in made.items():
        splits.write(out / f"{name}.npz", split)
    cfg = msgspec.to_builtins(p.data)
    for key in ("path", "url"):
        cfg.pop(key)  # the digest says which bytes; where they lie is the machine's affair
    steps = made["train"].preprocessing
    manifest.write(
        out,
        model=p.model,
        stage="prepare",
        inputs=(manifest.Input("data", p.data.digest),) if p.data.digest else (),
        params={"data": cfg},
        tools={name: importlib.metadata.version(name) for name in _libraries(p.data.source, steps)},
        labels=made["train"].label_names,
        preprocessing=steps,
    )
    sizes = ", ".join(f"{len(split.labels)} {name}" for name, split in made.items())
    console.say("prepare", f"{sizes}; each sample {_words(shapes['train'])}")


def _libraries(name: str, steps: manifest.Preprocessing) -> set[str]:
    """Name what influences the splits or the tensors made of them."""
    every = [step for each in steps.values() for step in each] if isinstance(steps, dict) else steps
    of_steps = {STEP_LIBRARIES[step["step"]] for step in every if step["step"] in STEP_LIBRARIES}
    return {*LIBRARIES[name], *of_steps}


def _words(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_words(one)}" for name, one in shape.items())
    return "x".join(map(str, shape))


def main() -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage("prepare", lambda: run(Path("models/data"), params.load()))
