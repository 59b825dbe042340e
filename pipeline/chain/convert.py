"""Stage ``convert@T``: every variant in T's own format and precisions.

Reads   params.yaml [recipes, targets.T]; models/exported/; models/quantized/;
        models/data/calibration.npz; models/toolchain/T/tools.json
Writes  models/converted/T/ {VARIANT-PRECISION/{model.onnx|model.tflite, manifest.json},
        candidates.json, manifest.json}
"""

import importlib
import json
from pathlib import Path
from typing import Any

import msgspec

from pipeline import console, files, manifest, params
from pipeline.conversion import candidates
from pipeline.conversion.candidates import Outcome, Variant
from pipeline.data import splits


def run(
    exported: Path,
    quantized: Path,
    calibration: Path,
    tools: Path,
    out: Path,
    p: params.Params,
    target: str,
) -> None:
    source = manifest.verify(exported)
    manifest.verify(quantized)
    samples = splits.read(calibration).tensors()
    cfg = p.targets[target]
    absent = candidates.absent_tools(cfg.converter, json.loads(tools.read_bytes()))
    out.mkdir(parents=True)
    outcomes: list[Outcome] = []
    for name, recipe in p.recipes.items():
        refused = candidates.refused(name, recipe, cfg.convert.precisions, absent)
        asked = [x for x in cfg.convert.precisions if x not in {o.precision for o in refused}]
        outcomes += refused
        if asked:
            # by name from a closed Literal: editing one converter rebuilds its targets only
            converter = importlib.import_module(f"pipeline.conversion.{cfg.converter}")
            folder = exported / name
            variant = Variant(name, folder / "model.onnx", quantized / name, manifest.read(folder))
            outcomes += converter.convert(variant, asked, samples, cfg.convert, out)
    common = {
        "model": p.model,
        "stage": "convert",
        "target": target,
        "labels": source.labels,
        "preprocessing": source.preprocessing,
    }
    for outcome in outcomes:
        if outcome.path is not None:
            _write_manifest(outcome, calibration, cfg.convert, common)
    files.write_atomic(
        out / candidates.FILE_NAME, files.encode_json([o.record() for o in outcomes])
    )
    manifest.write(
        out,
        inputs=manifest.inputs_of(calibration=calibration, exported=exported, quantized=quantized),
        params={"convert": msgspec.to_builtins(cfg.convert), "converter": cfg.converter},
        tools={name: version for o in outcomes for name, version in o.tools.items()},
        **common,
    )
    _say(target, outcomes)


def _write_manifest(
    outcome: Outcome, calibration: Path, cfg: params.Convert, common: dict[str, Any]
) -> None:
    """State what the candidate was made from: calibration only where its samples were used."""
    sources, used = dict(outcome.sources), {}
    if outcome.precision == "int8-static":
        sources["calibration"] = calibration
        used = {
            "activation_dtype": cfg.activation_dtype,
            "num_calibration": cfg.num_calibration,
        }
    assert outcome.path is not None
    manifest.write(
        outcome.path.parent,
        variant=outcome.variant,
        precision=outcome.precision,
        format=outcome.format,
        opset=outcome.opset,
        signature=outcome.signature,
        tools=outcome.tools,
        inputs=manifest.inputs_of(**sources),
        params=used,
        **common,
    )


def _say(target: str, outcomes: list[Outcome]) -> None:
    num_built = sum(outcome.status == "built" for outcome in outcomes)
    console.say("convert", f"{target}: {num_built} of {len(outcomes)} candidates")
    for outcome in outcomes:
        if outcome.reason is not None:
            console.say("", f"no {outcome.candidate}: {outcome.reason}")


def main(key: str) -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "convert",
        lambda: run(
            Path("models/exported"),
            Path("models/quantized"),
            Path("models/data/calibration.npz"),
            Path("models/toolchain") / key / "tools.json",
            Path("models/converted") / key,
            params.load(),
            key,
        ),
    )
