"""fp32 ONNX to what TensorRT takes: explicit symmetric int8 (Q/DQ), or fp16; judged against fp32.

TensorRT has no zero points, no int32 bias of its own scale, and reads the places of the Q/DQ pairs
literally: here they stand before the inputs and weights of `QUANTIZED`, never between a convolution
and its activation, which it fuses. Ranges are the largest absolute values of the samples.

Shapes: N samples.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from pipeline.compatibility import INTEGER_RULES
from pipeline.conversion import candidates, onnx_file, onnx_run
from pipeline.errors import ConversionError, ParityError

RULES = INTEGER_RULES["to_tensorrt"]
QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANT_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# Below this the error has half of the signal's energy, or a hundredth: not a rounded net, another
# one. It is no quality budget, which needs the target. Whole nets were seen at 12 (behind a
# softmax, 98 % of classes the same) to 30 dB in int8, at 45 to 53 in fp16.
MIN_SQNR_DB = {"int8-static": 3.0, "fp16": 20.0}
NUM_JUDGED = 32


def quantize(path: Path, samples: NDArray[Any]) -> bytes:
    """Give int8 weights one scale an output channel, activations one scale a tensor.

    A file `candidates.QDQ_NAME` beside the path is taken as it is: its ranges were learned.

    Args:
        path: the fp32 file.
        samples: [N, ...] preprocessed, or a structured array with a field for each of several
            inputs.

    Raises:
        ConversionError: nothing to quantize, or the result breaks a rule of `check_symmetric`.
        ParityError: the outputs are not those of a rounded net.
    """
    learned = path.with_name(candidates.QDQ_NAME)
    model = onnx.load(learned) if learned.is_file() else _quantize_static(path, samples)
    check_symmetric(model)
    content = onnx_file.canonical_bytes(model)
    check_outputs(path.read_bytes(), content, samples, "int8-static")
    return content


def to_fp16(path: Path, samples: NDArray[Any]) -> bytes:
    """Store weights and compute in float16; inputs and outputs stay float32, through a Cast.

    Raises:
        ConversionError: onnxruntime's tool does not take the model.
        ParityError: a value left the range of float16, or the outputs differ too much.
    """
    with candidates.refusals("onnxruntime", *onnx_run.REFUSALS):
        model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    content = onnx_file.canonical_bytes(model)
    # onnxruntime's CPU has few float16 kernels: it would compute in float32 and judge nothing
    judged = _rounded_to_fp16(onnx.load(path)).SerializeToString()
    check_outputs(path.read_bytes(), judged, samples, "fp16")
    return content


def _rounded_to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round every weight and every node's output to float16, and compute in float32 between.

    It is what a GPU does that adds in float32; changes the model in place.
    """
    typed = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*typed.value_info, *typed.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):  # inf, which the outputs then show
                half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half.astype(np.float32), tensor.name))
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in floats:
                exact, rounded = f"{name}_exact", f"{name}_half"
                node.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [rounded], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _quantize_static(path: Path, samples: NDArray[Any]) -> onnx.ModelProto:
    with (
        tempfile.TemporaryDirectory() as folder,
        candidates.refusals("onnxruntime", *onnx_run.REFUSALS),
    ):
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "model.onnx"
        # folds what batch norm is left, or it would be quantized on its own
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Samples(onnx.load(path), samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=_QUANT_TYPES[RULES.activation_dtypes[0]],
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": RULES.symmetric_activations,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": list(QUANTIZED),
            },
        )
        return onnx.load(quantized)


class _Samples:
    """Hands out one sample at a time, as onnxruntime's calibrator asks."""

    def __init__(self, model: onnx.ModelProto, samples: NDArray[Any]) -> None:
        arrays = onnx_run.feeds([value.name for value in onnx_file.inputs(model)], samples)
        self._samples = (
            {name: array[index : index + 1] for name, array in arrays.items()}
            for index in range(len(samples))
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def check_symmetric(model: onnx.ModelProto) -> None:
    """Refuse what TensorRT would refuse, or run as another net than the one that was judged.

    Every pair is int8 with a zero point of 0, its scale a positive constant: one a tensor, or for
    weights one a channel. No bias is quantized. Quantized tensors go to a DequantizeLinear only.

    Raises:
        ConversionError: naming the first node that breaks a rule, or that there is no pair at all.
    """
    constants = dict(_constants(model.graph))
    quantized = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        quantized += 1
        broken = _broken(node, constants, model)
        if broken is not None:
            raise ConversionError(
                f"{node.op_type} {node.name or node.output[0]!r} {broken}; TensorRT takes "
                "symmetric int8 Q/DQ alone: quantize with zero point 0, leave the bias float"
            )
    if not quantized:
        raise ConversionError("onnxruntime finds no operator to quantize; leave it fp32")


def _broken(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], model: onnx.ModelProto
) -> str | None:
    """Say which rule a Q or DQ node breaks."""
    source, scale_name, *rest = node.input
    scale, zero_point = constants.get(scale_name), constants.get(rest[0]) if rest else None
    if scale is None or (rest and zero_point is None):
        return "computes its scale or zero point at run time"
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return f"has the scale {scale.min():g}"
    if scale.size > 1 and not _is_weight(source, constants, model):
        return f"gives an activation {scale.size} scales"
    if zero_point is not None and zero_point.any():
        return f"has the zero point {int(zero_point[zero_point != 0].flat[0])}"
    return _wrong_type(node, constants.get(source), zero_point) or _misused(node, model)


def _wrong_type(
    node: onnx.NodeProto, stored: NDArray[Any] | None, zero_point: NDArray[Any] | None
) -> str | None:
    if zero_point is not None:
        return None if zero_point.dtype == np.int8 else f"is {zero_point.dtype}, not int8"
    if node.op_type == "QuantizeLinear":
        return "has no zero point, and is uint8 by the standard"
    return None if stored is None or stored.dtype == np.int8 else f"is {stored.dtype}, not int8"


def _misused(node: onnx.NodeProto, model: onnx.ModelProto) -> str | None:
    if node.op_type == "DequantizeLinear":
        return None
    users = {n.op_type for n in model.graph.node if node.output[0] in n.input}
    other = sorted(users - {"DequantizeLinear"})
    return f"feeds {', '.join(other)}" if other else None


def _is_weight(name: str, constants: Mapping[str, NDArray[Any]], model: onnx.ModelProto) -> bool:
    """Say whether a tensor is a constant, or quantized from one."""
    if name in constants:
        return True
    producer = next((node for node in model.graph.node if name in node.output), None)
    return (
        producer is not None
        and producer.op_type == "QuantizeLinear"
        and producer.input[0] in constants
    )


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        values = [a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"]
        for value in values:
            yield node.output[0], numpy_helper.to_array(value)


def check_outputs(
    reference: bytes, content: bytes, samples: NDArray[Any], precision: str
) -> dict[str, float]:
    """Compare a file's outputs with fp32's by ONNX Runtime on the CPU, on the first `NUM_JUDGED`.

    Returns:
        The signal to quantization noise of each output, in dB.

    Raises:
        ParityError: one is below `MIN_SQNR_DB`, or not finite.
    """
    judged = samples[:NUM_JUDGED]
    expected, found = (onnx_run.run(file, judged, batch=1) for file in (reference, content))
    figures = {name: _sqnr_db(expected[name], found[name]) for name in expected}
    for name, sqnr_db in figures.items():
        if not sqnr_db >= MIN_SQNR_DB[precision]:  # NaN too
            raise ParityError(
                f"{precision}: output {name!r} has {sqnr_db:.1f} dB of signal to quantization "
                f"noise against fp32, at least {MIN_SQNR_DB[precision]:g} is asked; calibrate with "
                "samples as the net will see them, or leave this precision out"
            )
    return figures


def _sqnr_db(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """10 log10 of the signal's energy to the error's; inf without error.

    What all samples share is no signal: a net may say the same to everything.
    """
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return math.nan
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    noise = float(((expected - found) ** 2).sum())
    shared = expected.mean(0) if len(expected) > 1 else 0.0
    signal = float(((expected - shared) ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
