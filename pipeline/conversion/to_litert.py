"""PyTorch to LiteRT (.tflite), and from its fp32 form to fp16 weights, dynamic and static int8.

Shapes: N samples. The net is rebuilt from its own directory, not from ONNX: litert-torch lowers
torch.export's graph. The batch is fixed at 1.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.conversion import candidates
from pipeline.conversion.candidates import Description, Outcome, Variant
from pipeline.errors import ConversionError, DependencyError
from pipeline.manifest import Quantization, Signature, Tensor
from pipeline.nets import store
from pipeline.targets.tools import CONVERTER_TOOLS

INPUT, OUTPUT, SIGNATURE = "input", "output", "serving_default"
FILE_NAME = "model.tflite"
TOOLS = CONVERTER_TOOLS["to_litert"]
FP32_TOOLS = tuple(name for name in TOOLS if not name.startswith("ai-edge"))  # lowering alone
_IMAGE_LAYOUT = "NCHW"  # litert-torch keeps torch's at the border


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[np.float32],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.tflite`` for each precision; only int8-static has integer I/O.

    Args:
        variant: its net directory is lowered once for all precisions.
        precisions: of fp32, fp16-weights, int8-dynamic, int8-static.
        calibration: [N, ...] preprocessed; int8-static takes ranges (min-max) from the first
            ``cfg.num_calibration``.
        cfg: ``activation_dtype`` None is int8, the only one that LiteRT's kernels take.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
        DependencyError: litert-torch or ai-edge-quantizer is not installed.
        NetError: the net directory cannot be read.
    """
    candidates.check_precisions("to_litert", precisions, params.PRECISIONS["to_litert"])
    samples = calibration[:0]
    if "int8-static" in precisions:
        samples = candidates.choose_samples(calibration, cfg)
    try:
        lowered = _lower(store.load(variant.net))
    except ConversionError as error:
        return [candidates.not_built(variant.name, p, str(error)) for p in precisions]
    makers = {
        "fp32": lambda: lowered,
        "fp16-weights": lambda: _quantize_weights(lowered, _fp16_weights(), "FLOAT16"),
        "int8-dynamic": lambda: _quantize_weights(lowered, _int8_dynamic(), "INT8"),
        "int8-static": lambda: _quantize_static(lowered, samples),
    }
    return [
        candidates.attempt(
            variant,
            precision,
            out / candidates.candidate_id(variant.name, precision) / FILE_NAME,
            makers[precision],
            _describe,
            tools=candidates.versions(FP32_TOOLS if precision == "fp32" else TOOLS),
            sources={
                "net": variant.net / store.DESCRIPTION_NAME,
                "weights": variant.net / store.WEIGHTS_NAME,
            },
        )
        for precision in precisions
    ]


class _Named(nn.Module):
    """Gives the signature's input and output the names that they have in every format."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002 - it is the name
        return {OUTPUT: self.net(input)}


def _lower(stored: store.StoredNet) -> bytes:
    """Lower the net at batch 1, float32."""
    try:
        import litert_torch
    except ImportError as error:
        raise DependencyError("litert-torch", "build") from error
    example = torch.zeros(1, *stored.input_shape)
    with candidates.refusals("litert-torch"):
        model = litert_torch.convert(_Named(stored.net).eval(), sample_kwargs={INPUT: example})
    return bytes(model.model_content())


def _fp16_weights() -> Any:
    """ai-edge-quantizer 0.10 has no such recipe: cast weights to float16, compute in float32."""
    recipes, algorithms, every = _recipes()
    recipes.add_weight_only_config(".*", every, num_bits=16, algorithm_key=algorithms.FLOAT_CASTING)
    return recipes


def _int8_dynamic() -> Any:
    """int8 weights, one scale an output channel; activations are quantized at run time."""
    recipes, _, every = _recipes()
    recipes.add_dynamic_config(".*", every, num_bits=8)
    return recipes


def _int8_static() -> Any:
    """int8 weights, one scale an output channel; int8 activations, asymmetric, per tensor."""
    recipes, _, every = _recipes()
    recipes.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
    return recipes


def _recipes() -> tuple[Any, Any, Any]:
    try:
        from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager
    except ImportError as error:
        raise DependencyError("ai-edge-quantizer", "build") from error
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    return recipe_manager.RecipeManager(), algorithm_manager.AlgorithmName, every


def _quantize(lowered: bytes, recipes: Any, ranges: Any = None) -> bytes:
    from ai_edge_quantizer import quantizer

    with _quantizer():
        made = quantizer.Quantizer(lowered, recipes.get_quantization_recipe())
        return bytes(made.quantize(ranges, enable_progress_report=False).quantized_model)


@contextmanager
def _quantizer() -> Iterator[None]:
    with warnings.catch_warnings(), candidates.refusals("ai-edge-quantizer"):
        # ai-edge-quantizer 0.10 keeps every tensor in memory, on purpose; its interpreter warns
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        yield


def _quantize_weights(lowered: bytes, recipes: Any, tensor_type: str) -> bytes:
    """Quantize what can be; a net in which that is nothing would be fp32 under another name."""
    content = _quantize(lowered, recipes)
    if tensor_type not in {kind for _, kinds in _operators(content) for kind in kinds}:
        raise ConversionError(
            f"ai-edge-quantizer finds no weight to turn into {tensor_type.lower()}; leave it fp32"
        )
    return content


def _quantize_static(lowered: bytes, samples: NDArray[np.float32]) -> bytes:
    """Quantize everything, inputs and outputs too; refuse if an operator stays floating point."""
    recipes = _int8_static()
    content = _quantize(lowered, recipes, _calibrate(lowered, recipes, samples))
    floating = {name for name, kinds in _operators(content) if kinds & {"FLOAT16", "FLOAT32"}}
    floating -= {"QUANTIZE", "DEQUANTIZE"}
    if floating:
        raise ConversionError(
            f"ai-edge-quantizer has no int8 form of operator {', '.join(sorted(floating))}; "
            "replace the layer"
        )
    return content


def _calibrate(lowered: bytes, recipes: Any, samples: NDArray[np.float32]) -> Any:
    """Return each tensor's smallest and largest value over all samples.

    Not `Quantizer.calibrate`: it keeps a moving average, which depends on the samples' order and
    clips. One thread, because sums in another order differ in the last digits.
    """
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    with _quantizer():
        made = calibrator.Calibrator(
            lowered, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        made.calibrate({SIGNATURE: [{INPUT: sample[None]} for sample in samples]}, recipes)
        return made.get_model_qsvs()


def _operators(content: bytes) -> list[tuple[str, set[str]]]:
    """List each operator with the types of the tensors it reads and writes, such as FLOAT32."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    names = {code: name for name, code in vars(qtyping.BuiltinOperator).items()}
    kinds = {code: name for name, code in vars(qtyping.TensorType).items()}
    model = tfl_flatbuffer_utils.read_model(content)
    return [
        (
            names[model.operatorCodes[operator.opcodeIndex].builtinCode],
            {
                kinds[graph.tensors[index].type]
                for index in (*operator.inputs, *operator.outputs)
                if index >= 0  # -1 is an optional input left out
            },
        )
        for graph in model.subgraphs
        for operator in graph.operators
    ]


def _describe(content: bytes) -> Description:
    """Load into LiteRT and read back the signature."""
    from ai_edge_litert.interpreter import Interpreter

    with candidates.refusals("litert"):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)
    return Description(
        Signature(
            inputs=tuple(_tensor(n, d) for n, d in runner.get_input_details().items()),
            outputs=tuple(_tensor(n, d) for n, d in runner.get_output_details().items()),
        )
    )


def _tensor(name: str, detail: dict[str, Any]) -> Tensor:
    shape = tuple(int(length) for length in detail["shape"])
    scales = tuple(float(scale) for scale in detail["quantization_parameters"]["scales"])
    zero_points = tuple(int(zero) for zero in detail["quantization_parameters"]["zero_points"])
    return Tensor(
        name=name,
        dtype=np.dtype(detail["dtype"]).name,
        shape=shape,
        layout=_IMAGE_LAYOUT if len(shape) == len(_IMAGE_LAYOUT) else None,
        quantization=Quantization(scales, zero_points) if scales else None,
    )
