"""Stage ``export``: every variant as ONNX, with proof that it computes what the net computes.

Reads   params.yaml [export]; models/data/validation.npz; models/quantized/
Writes  models/exported/ {VARIANT/{model.onnx, model.qdq.onnx of one trained for int8,
        manifest.json}, manifest.json}; models/metrics/export.json
"""

from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import console, files, manifest, params
from pipeline.conversion import candidates, parity, to_onnx_on_grids
from pipeline.conversion.to_onnx import FILE_NAME, TOOLS, to_onnx
from pipeline.data import splits
from pipeline.nets import on_grids, ranges, store


def run(validation: Path, quantized: Path, out: Path, metrics: Path, p: params.Params) -> None:
    source = manifest.verify(quantized)
    inputs = splits.read(validation).tensors()
    common = {
        "model": p.model,
        "stage": "export",
        "params": {"export": msgspec.to_builtins(p.export)},
        "tools": candidates.versions(TOOLS),
        "labels": source.labels,
        "preprocessing": source.preprocessing,
    }
    out.mkdir(parents=True)
    figures = {}
    for variant in _variants(source):
        net = store.load(quantized / variant).net
        path = out / variant / FILE_NAME
        path.parent.mkdir()
        signature = to_onnx(net, torch.from_numpy(inputs[:1]), path, p.export.opset)
        found = parity.check(path, net, inputs, p.export.max_abs_error, variant)
        rounded, learned = _export_on_grids(quantized / variant, net, inputs, path.parent)
        manifest.write(
            path.parent,
            variant=variant,
            format="onnx",
            precision="fp32",
            opset=p.export.opset,
            inputs=manifest.inputs_of(
                net=quantized / variant / store.DESCRIPTION_NAME,
                weights=quantized / variant / store.WEIGHTS_NAME,
                **learned,
            ),
            signature=signature,
            **common,
        )
        figures[variant] = {
            "max_abs_error": found.max_abs_error,
            "top1_agreement_ratio": found.top1_agreement_ratio,
            "size_bytes": path.stat().st_size,
            **rounded,
        }
        console.say("export", f"{variant}: at most {found.max_abs_error:.1e} from PyTorch")
    metrics.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(metrics, files.encode_json(figures))
    manifest.write(out, inputs=manifest.inputs_of(quantized=quantized), **common)


def _export_on_grids(
    directory: Path, net: nn.Module, inputs: NDArray[np.float32], out: Path
) -> tuple[dict[str, float], dict[str, Path]]:
    """Write the file with learned ranges, if there are any; return its figures and sources."""
    learned = ranges.read(directory)
    if learned is None:
        return {}, {}
    example = torch.from_numpy(inputs[:1])
    rounded = on_grids.fake_quantized(net, example, learned)
    path = out / candidates.QDQ_NAME
    to_onnx_on_grids.to_onnx_on_grids(rounded, example, path)
    sqnr_db = parity.check_rounded(path, rounded, inputs, directory.name)
    return {"on_grids_sqnr_db": sqnr_db}, {"ranges": directory / ranges.FILE_NAME}


def _variants(source: manifest.Manifest) -> list[str]:
    """List the net directories; the quantize stage made one a recipe."""
    paths = [PurePosixPath(name) for name in source.files]
    return sorted(path.parent.name for path in paths if path.name == store.DESCRIPTION_NAME)


def main() -> None:
    """Run the stage on the project in the current folder."""
    console.run_stage(
        "export",
        lambda: run(
            Path("models/data/validation.npz"),
            Path("models/quantized"),
            Path("models/exported"),
            Path("models/metrics/export.json"),
            params.load(),
        ),
    )
