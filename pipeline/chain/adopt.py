"""Stage ``adopt``: the user's ONNX file as every variant, with proof that it computes the same.

Takes the place of ``export`` in a project whose model is trained already (net.onnx).

Reads   params.yaml [model, net, task, export, recipes]; models/data/validation.npz; net.onnx
Writes  models/exported/ {VARIANT/{model.onnx, manifest.json}, manifest.json};
        models/metrics/export.json
"""

from pathlib import Path

import msgspec
import numpy as np

from pipeline import console, files, manifest, params
from pipeline.conversion import candidates, from_onnx
from pipeline.data import splits

MAX_SAMPLES = 512  # compared: bounds memory and time with large images


def run(validation: Path, onnx: Path, out: Path, metrics: Path, p: params.Params) -> None:
    files.check_pin(onnx, p.net.onnx_digest, "net.onnx", "net.onnx_digest")
    split = splits.read(validation)
    # samples stand in random order
    chosen = np.arange(min(len(split.inputs), MAX_SAMPLES))
    adopted = from_onnx.adopt(onnx, split.tensors(chosen), p.export.max_abs_error)
    from_onnx.check_classes(adopted.signature, split.label_names, p.task)
    common = {
        "model": p.model,
        "stage": "adopt",
        "params": {"export": msgspec.to_builtins(p.export)},
        "tools": candidates.versions(from_onnx.TOOLS),
        "labels": split.label_names,
        "preprocessing": split.preprocessing,
    }
    out.mkdir(parents=True)
    figures = {
        "max_abs_error": adopted.max_abs_error,
        "top1_agreement_ratio": adopted.top1_agreement_ratio,
        "size_bytes": len(adopted.content),
    }
    for variant in p.recipes:
        path = out / variant / from_onnx.FILE_NAME
        path.parent.mkdir()
        path.write_bytes(adopted.content)
        manifest.write(
            path.parent,
            variant=variant,
            format="onnx",
            precision="fp32",
            opset=adopted.opset,
            inputs=manifest.inputs_of(onnx=onnx),
            signature=adopted.signature,
            **common,
        )
        console.say("adopt", f"{variant}: at most {adopted.max_abs_error:.1e} from {onnx.name}")
    metrics.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(metrics, files.encode_json(dict.fromkeys(p.recipes, figures)))
    manifest.write(out, inputs=manifest.inputs_of(onnx=onnx), **common)


def main() -> None:
    """Run the stage on the project in the current folder."""

    def stage() -> None:
        p = params.load()
        assert p.net.onnx is not None, "dvc.yaml has adopt where net.onnx is"
        run(
            Path("models/data/validation.npz"),
            Path(p.net.onnx),
            Path("models/exported"),
            Path("models/metrics/export.json"),
            p,
        )

    console.run_stage("adopt", stage)
