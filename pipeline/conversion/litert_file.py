"""A LiteRT (.tflite) file: from fp32 to fp16 weights, dynamic and static int8; what it says.

Shapes: N samples.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import params
from pipeline.conversion import candidates
from pipeline.conversion.candidates import Description
from pipeline.errors import ConversionError, DependencyError
from pipeline.manifest import Quantization, Signature, Tensor

SIGNATURE = "serving_default"
_IMAGE_LAYOUT = "NCHW"  # litert-torch keeps torch's at the border


def make(lowered: bytes, precision: params.Precision, samples: NDArray[np.float32]) -> bytes:
    """Give the file in a precision.

    Args:
        lowered: the fp32 file, with signature ``serving_default`` and a batch of 1.
        precision: of fp32, fp16-weights, int8-dynamic, int8-static; only int8-static has integer
            inputs and outputs.
        samples: [N, ...] that int8-static takes its ranges (min-max) from.

    Raises:
        ConversionError: nothing could be quantized, or an operator has no int8 form.
        DependencyError: ai-edge-quantizer is not installed.
    """
    if precision == "fp16-weights":
        return _quantize_weights(lowered, _fp16_weights(), "FLOAT16")
    if precision == "int8-dynamic":
        return _quantize_weights(lowered, _int8_dynamic(), "INT8")
    if precision == "int8-static":
        return _quantize_static(lowered, samples)
    assert precision == "fp32", precision
    return lowered


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
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    with _quantizer():
        (name,) = Interpreter(model_content=lowered).get_signature_list()[SIGNATURE]["inputs"]
        made = calibrator.Calibrator(
            lowered, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        made.calibrate({SIGNATURE: [{name: sample[None]} for sample in samples]}, recipes)
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


def describe(path: Path) -> Description:
    """Load into LiteRT and read back the signature."""
    from ai_edge_litert.interpreter import Interpreter

    with candidates.refusals("litert"):
        interpreter = Interpreter(model_path=str(path))
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
