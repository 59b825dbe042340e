"""ONNX to a TensorRT engine, built ahead of time for a GPU that need not be here.

The precision is the ONNX file's own (`onnx_qdq`); the engine is strongly typed and for batch 1.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx
from msgspec.structs import replace
from numpy.typing import NDArray

from pipeline import params
from pipeline.conversion import candidates, onnx_file, onnx_qdq, onnx_run, tensorrt_engine
from pipeline.conversion.candidates import Description, Outcome, Variant
from pipeline.conversion.tensorrt_engine import FILE_NAME, MODULES, Recipe
from pipeline.errors import ConversionError
from pipeline.manifest import Signature
from pipeline.runtimes import cuda

ONNX_TOOLS = ("onnx", "onnxruntime")
# More than any layer of an edge net takes, and little beside a board's shared memory.
WORKSPACE_BYTES = 1 << 30


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.engine`` for each precision; inputs and outputs stay float32.

    Args:
        variant: its ONNX file; of QAT also the Q/DQ file beside it.
        precisions: of fp32, fp16, int8-static.
        calibration: [N, ...] preprocessed, structured for several inputs; int8-static takes ranges
            (largest absolute values) from the first ``cfg.num_calibration``.
        cfg: ``tensorrt.compute_capability`` is of the GPU that the engine is for.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same TensorRT-RTX: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
        DependencyError: neither TensorRT-RTX nor TensorRT is installed.
    """
    candidates.check_precisions("to_tensorrt", precisions)
    tensorrt = tensorrt_engine.find_module()
    tools = candidates.versions((*ONNX_TOOLS, MODULES[tensorrt.__name__]))

    def finish(content: bytes, recipe: Recipe) -> bytes:
        wrong = tensorrt_engine.wrong_version(recipe, tensorrt)
        if wrong is None and not tensorrt_engine.builds_for_others(tensorrt):
            wrong = tensorrt_engine.wrong_gpu(recipe, cuda.find())
        if wrong is not None:
            raise ConversionError(f"{wrong}; install tensorrt-rtx, or mend convert.tensorrt")
        return tensorrt_engine.build(content, recipe, tensorrt).engine

    return attempt_all(variant, precisions, calibration, cfg, out, FILE_NAME, finish, tools)


def attempt_all(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
    name: str,
    finish: Callable[[bytes, Recipe], bytes | Mapping[str, bytes]],
    tools: Mapping[str, str],
) -> list[Outcome]:
    """Make each precision's ONNX file and recipe, and of both, by ``finish``, the candidate."""
    # fp16 is judged on samples too, however few there are
    calibrated = "int8-static" in precisions
    samples = candidates.choose_samples(calibration, cfg, precisions) if calibrated else calibration
    onnx_files: dict[params.Precision, Callable[[], bytes]] = {
        "fp32": variant.onnx.read_bytes,
        "fp16": lambda: onnx_qdq.to_fp16(variant.onnx, samples),
        "int8-static": lambda: onnx_qdq.quantize(variant.onnx, samples),
    }
    try:
        description = describe(onnx.load(variant.onnx), samples)
    except ConversionError as error:
        return [candidates.not_built(variant.name, p, str(error)) for p in precisions]

    def attempt(precision: params.Precision) -> Outcome:
        recipe = _recipe(precision, description.signature, cfg)
        return candidates.attempt(
            variant,
            precision,
            out,
            name,
            lambda: finish(onnx_files[precision](), recipe),
            lambda _path: description,
            tools=tools,
            sources={"exported": variant.onnx.parent},
            settings={"tensorrt": msgspec.to_builtins(recipe)},
        )

    return [attempt(precision) for precision in precisions]


def _recipe(precision: params.Precision, signature: Signature, cfg: params.Convert) -> Recipe:
    settings = cfg.tensorrt
    assert settings is not None  # a rule of params.yaml
    capability, version = settings.compute_capability, settings.version
    return Recipe(
        precision=precision,
        compute_capability=capability,
        shapes={t.name: tuple(int(axis) for axis in t.shape) for t in signature.inputs},
        **(_for_device(capability, version) if version else {}),
    )


def _for_device(capability: str, version: str) -> dict[str, Any]:
    """Return the fields of a recipe that a device's own TensorRT follows."""
    return {
        "versions": tensorrt_engine.version_range(version),
        "workspace_bytes": WORKSPACE_BYTES,
        "timing_cache": f"sm{capability.replace('.', '')}-tensorrt{version}.timing-cache",
    }


def describe(model: onnx.ModelProto, samples: NDArray[Any]) -> Description:
    """Return the file's signature with its free axes pinned to one sample's, as the engine has it.

    Raises:
        ConversionError: the file's own shape is not that of a sample.
    """
    stated = onnx_file.signature(model)
    arrays = onnx_run.feeds([tensor.name for tensor in stated.inputs], samples)
    pinned: dict[str, int] = {}
    inputs = []
    for tensor in stated.inputs:
        shape = (1, *arrays[tensor.name].shape[1:])
        fits = len(shape) == len(tensor.shape) and all(
            isinstance(axis, str) or axis == have
            for axis, have in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            raise ConversionError(
                f"input {tensor.name!r} takes {list(tensor.shape)}, one sample is {list(shape)}; "
                "correct data.preprocessing, or give the file a dynamic batch"
            )
        pinned |= {a: n for a, n in zip(tensor.shape, shape, strict=True) if isinstance(a, str)}
        inputs.append(replace(tensor, shape=shape))
    outputs = [
        replace(tensor, shape=tuple(pinned.get(str(axis), axis) for axis in tensor.shape))
        for tensor in stated.outputs
    ]
    return Description(Signature(tuple(inputs), tuple(outputs)), onnx_file.opset(model))
