"""Stage ``convert@T``: every variant in T's own format and precisions.

Reads   params.yaml [net, recipes, targets.T]; models/exported/; models/quantized/ (not with
        net.onnx, whose exported files have no nets); models/data/calibration.npz;
        models/toolchain/T/tools.json
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
    quantized: Path | None,
    calibration: Path,
    tools: Path,
    out: Path,
    p: params.Params,
    target: str,
) -> None:
    source = manifest.verify(exported)
    roles = {"calibration": calibration, "exported": exported}
    if quantized is not None:
        manifest.verify(quantized)
        roles["quantized"] = quantized
    samples = splits.read(calibration).tensors()
    cfg = p.targets[target]
    installed = json.loads(tools.read_bytes())
    absent = candidates.absent_tools(cfg.converter, installed, from_onnx=quantized is None)
    out.mkdir(parents=True)
    outcomes: list[Outcome] = []
    for name, recipe in p.recipes.items():
        refused = candidates.refused(name, recipe, cfg.convert.precisions, absent)
        asked = [x for x in cfg.convert.precisions if x not in {o.precision for o in refused}]
        outcomes += refused
        if asked:
            # by name from a closed Literal: editing one converter rebuilds its targets only
            converter = importlib.import_module(f"pipeline.conversion.{cfg.converter}")
            folder, net = exported / name, quantized and quantized / name
            variant = Variant(name, folder / "model.onnx", net, manifest.read(folder))
            outcomes += converter.convert(variant, asked, samples, cfg.convert, out)
    common = {
        "model": p.model,
        "stage": "convert",
        "target": target,
        "labels": source.labels,
    }
    for outcome in outcomes:
        if outcome.path is not None:
            own = outcome.preprocessing
            steps = source.preprocessing if own is None else own
            _write_manifest(outcome, calibration, cfg.convert, {**common, "preprocessing": steps})
    files.write_atomic(
        out / candidates.FILE_NAME, files.encode_json([o.record() for o in outcomes])
    )
    manifest.write(
        out,
        inputs=manifest.inputs_of(**roles),
        params={"convert": msgspec.to_builtins(cfg.convert), "converter": cfg.converter},
        tools={name: version for o in outcomes for name, version in o.tools.items()},
        preprocessing=source.preprocessing,
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
        params=used | dict(outcome.settings),
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

    def stage() -> None:
        p = params.load()
        run(
            Path("models/exported"),
            Path("models/quantized") if p.net.onnx is None else None,
            Path("models/data/calibration.npz"),
            Path("models/toolchain") / key / "tools.json",
            Path("models/converted") / key,
            p,
            key,
        )

    console.run_stage("convert", stage)
