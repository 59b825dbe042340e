"""A LiteRT (.tflite) file: from fp32 to fp16 weights, dynamic and static int8; what it says.

Shapes: N samples.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import params
from pipeline.conversion import candidates, litert_ranges
from pipeline.conversion.candidates import Description
from pipeline.errors import ConversionError, DependencyError
from pipeline.manifest import Quantization, Signature, Tensor
from pipeline.nets.ranges import Range

SIGNATURE = "serving_default"
# Operators whose bias is int32 in steps of input scale times weight scale, with the weights' axis
# of output channels.
_BIASED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_MAX_BIAS_STEPS = 2**30  # half of int32: room for rounding
_STEPS = 255  # from the smallest to the largest value of an int8 activation
_IMAGE_LAYOUT = "NCHW"  # litert-torch keeps torch's at the border


def make(
    lowered: bytes,
    precision: params.Precision,
    samples: NDArray[Any],
    learned: Sequence[Range] = (),
) -> bytes:
    """Give the file in a precision.

    Args:
        lowered: the fp32 file, with signature ``serving_default`` and a batch of 1.
        precision: of fp32, fp16-weights, int8-dynamic, int8-static; only int8-static has integer
            inputs and outputs.
        samples: [N, ...] that int8-static takes its ranges (min-max) from, laid out as the file
            takes them; structured, with a field an input, where there are several.
        learned: ranges that take the place of those from the samples, where a layer has one.

    Raises:
        ConversionError: nothing could be quantized, or an operator has no int8 form.
        DependencyError: ai-edge-quantizer is not installed.
    """
    if precision == "fp16-weights":
        return _quantize_weights(lowered, _fp16_weights(), "FLOAT16")
    if precision == "int8-dynamic":
        return _quantize_weights(lowered, _int8_dynamic(), "INT8")
    if precision == "int8-static":
        return _quantize_static(lowered, samples, learned)
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


def _quantize_static(lowered: bytes, samples: NDArray[Any], learned: Sequence[Range]) -> bytes:
    """Quantize everything, inputs and outputs too; refuse if an operator stays floating point."""
    recipes = _int8_static()
    ranges = _calibrate(lowered, recipes, samples)
    if learned:
        ranges |= litert_ranges.overrides(lowered, ranges, learned)
    content = _quantize(lowered, recipes, {**ranges, **_room_for_biases(lowered, ranges)})
    floating = {name for name, kinds in _operators(content) if kinds & {"FLOAT16", "FLOAT32"}}
    floating -= {"QUANTIZE", "DEQUANTIZE"}
    if floating:
        raise ConversionError(
            f"ai-edge-quantizer has no int8 form of operator {', '.join(sorted(floating))}; "
            "replace the layer"
        )
    return content


def _calibrate(lowered: bytes, recipes: Any, samples: NDArray[Any]) -> Any:
    """Return each tensor's smallest and largest value over all samples.

    Not `Quantizer.calibrate`: it keeps a moving average, which depends on the samples' order and
    clips. One thread, because sums in another order differ in the last digits.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    with _quantizer():
        names = Interpreter(model_content=lowered).get_signature_list()[SIGNATURE]["inputs"]
        made = calibrator.Calibrator(
            lowered, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        made.calibrate({SIGNATURE: [_feed(names, sample) for sample in samples]}, recipes)
        return made.get_model_qsvs()


def _room_for_biases(lowered: bytes, ranges: Mapping[str, Any]) -> dict[str, Any]:
    """Return wider ranges for weights that are too small to count their channel's bias in.

    A channel that died in training has weights near zero, hence steps so small that its bias does
    not fit into int32: ai-edge-quantizer 0.10 lets it overflow to the other sign. Wider steps take
    nothing from such weights. Ranges are per output channel, as the quantizer's own.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    model, found = tfl_flatbuffer_utils.read_model(lowered), {}
    names = _operator_names(model)
    for graph in model.subgraphs:
        for operator in graph.operators:
            axis = _BIASED.get(names[operator.opcodeIndex])
            if axis is None or len(operator.inputs) < 3 or operator.inputs[2] < 0:
                continue
            taken, weights, bias = (graph.tensors[index] for index in operator.inputs[:3])
            values, offsets = (
                tfl_flatbuffer_utils.get_tensor_data(tensor, model.buffers)
                for tensor in (weights, bias)
            )
            name = tfl_flatbuffer_utils.get_tensor_name(taken)
            if values is None or offsets is None or name not in ranges:
                continue
            low = min(float(np.min(ranges[name]["min"])), 0.0)
            step = (max(float(np.max(ranges[name]["max"])), 0.0) - low) / _STEPS
            others = tuple(number for number in range(values.ndim) if number != axis)
            largest = np.abs(values).max(axis=others, keepdims=True)
            needed = np.abs(offsets).reshape(largest.shape) / (max(step, 1e-9) * _MAX_BIAS_STEPS)
            needed *= 127  # of the weights' steps to their largest value
            if (needed > largest).any():
                wide = np.maximum(largest, needed).astype(np.float32)
                found[tfl_flatbuffer_utils.get_tensor_name(weights)] = {"min": -wide, "max": wide}
    return found


def _feed(names: Sequence[str], sample: Any) -> dict[str, NDArray[np.float32]]:
    """Give one sample to the one input, or each field to the input of its name."""
    if sample.dtype.names is None:
        (name,) = names
        return {name: sample[None]}
    return {name: np.asarray(sample[name])[None] for name in names}


def _operators(content: bytes) -> list[tuple[str, set[str]]]:
    """List each operator with the types of the tensors it reads and writes, such as FLOAT32."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    kinds = {code: name for name, code in vars(qtyping.TensorType).items()}
    model = tfl_flatbuffer_utils.read_model(content)
    names = _operator_names(model)
    return [
        (
            names[operator.opcodeIndex],
            {
                kinds[graph.tensors[index].type]
                for index in (*operator.inputs, *operator.outputs)
                if index >= 0  # -1 is an optional input left out
            },
        )
        for graph in model.subgraphs
        for operator in graph.operators
    ]


def _operator_names(model: Any) -> list[str]:
    from ai_edge_quantizer import qtyping

    names = {code: name for name, code in vars(qtyping.BuiltinOperator).items()}
    return [names[code.builtinCode] for code in model.operatorCodes]


def describe(path: Path, layouts: Mapping[str, str] | None = None) -> Description:
    """Load into LiteRT and read back the signature.

    ``layouts`` names the inputs' by name; None takes any four axes for an image of torch's layout.
    """
    from ai_edge_litert.interpreter import Interpreter

    with candidates.refusals("litert"):
        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)
    return Description(
        Signature(
            inputs=tuple(
                _tensor(name, detail, layouts)
                for name, detail in _in_order(
                    runner.get_input_details(), interpreter.get_input_details()
                )
            ),
            outputs=tuple(
                _tensor(name, detail, None)
                for name, detail in _in_order(
                    runner.get_output_details(), interpreter.get_output_details()
                )
            ),
        )
    )


def _in_order(
    named: Mapping[str, dict[str, Any]], details: Sequence[dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """Give the signature's tensors, which it sorts by name, in the file's own order."""
    places = {int(detail["index"]): place for place, detail in enumerate(details)}
    return sorted(named.items(), key=lambda item: places[int(item[1]["index"])])


def _tensor(name: str, detail: dict[str, Any], layouts: Mapping[str, str] | None) -> Tensor:
    shape = tuple(int(length) for length in detail["shape"])
    image = _IMAGE_LAYOUT if len(shape) == len(_IMAGE_LAYOUT) else None
    layout = image if layouts is None else layouts.get(name)
    scales = tuple(float(scale) for scale in detail["quantization_parameters"]["scales"])
    zero_points = tuple(int(zero) for zero in detail["quantization_parameters"]["zero_points"])
    return Tensor(
        name=name,
        dtype=np.dtype(detail["dtype"]).name,
        shape=shape,
        layout=layout,
        quantization=Quantization(scales, zero_points) if scales else None,
    )
