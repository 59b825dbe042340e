"""ONNX to a build bundle, of which the device itself makes its engine: `slipway device build`.

An engine of TensorRT fits one version of it and one kind of GPU, and times kernels while it is
built; so what travels is the ONNX file in the precision wanted, and the recipe.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline import files, params
from pipeline.conversion import candidates, to_tensorrt
from pipeline.conversion.candidates import Outcome, Variant
from pipeline.conversion.tensorrt_engine import RECIPE_NAME, Recipe

FILE_NAME = "model.onnx"


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/{model.onnx, build.json}`` for each precision.

    As `pipeline.conversion.to_tensorrt.convert`; ``cfg.tensorrt.version`` is the device's
    TensorRT, of which the recipe asks. Needs no TensorRT here.
    """
    candidates.check_precisions("to_tensorrt_bundle", precisions)
    tools = candidates.versions(to_tensorrt.ONNX_TOOLS)
    return to_tensorrt.attempt_all(
        variant, precisions, calibration, cfg, out, FILE_NAME, _bundle, tools
    )


def _bundle(content: bytes, recipe: Recipe) -> Mapping[str, bytes]:
    return {FILE_NAME: content, RECIPE_NAME: files.encode_json(recipe)}
