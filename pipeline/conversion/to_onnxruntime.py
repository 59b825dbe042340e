"""ONNX to what ONNX Runtime executes on a CPU: the exported bytes, dynamic int8, static int8 (QDQ).

Shapes: N samples.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from pipeline import params
from pipeline.compatibility import INTEGER_RULES
from pipeline.conversion import candidates, onnx_file, onnx_run
from pipeline.conversion.candidates import Description, Outcome, Variant
from pipeline.conversion.learned import Reader, by_activation, said
from pipeline.errors import ConversionError
from pipeline.nets import ranges
from pipeline.nets.ranges import Range
from pipeline.targets.tools import CONVERTER_TOOLS

FILE_NAME = "model.onnx"
RULES = INTEGER_RULES["to_onnxruntime"]
LAYERS = ("Conv", "Gemm", "MatMul")  # what multiplies with weights
_QUANT_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# What a session raises for a model that it does not take; none of them is a RuntimeError.
_REFUSED = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.NotImplemented,
    states.RuntimeException,
)


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.onnx`` for each precision; inputs and outputs stay float32.

    Args:
        variant: its ONNX file has one input, or several.
        precisions: of fp32, int8-dynamic, int8-static.
        calibration: [N, ...] preprocessed, structured with a field an input where there are
            several; int8-static takes ranges (min-max) from the first ``cfg.num_calibration``,
            except those that the variant learned (`nets.ranges`).
        cfg: ``activation_dtype`` None is uint8.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
    """
    candidates.check_precisions("to_onnxruntime", precisions)
    samples = candidates.choose_samples(calibration, cfg, precisions)
    learned = None if variant.net is None else ranges.read(variant.net)
    makers = {
        "fp32": variant.onnx.read_bytes,
        "int8-dynamic": lambda: _quantize_dynamic(variant.onnx),
        "int8-static": lambda: _quantize_static(variant.onnx, samples, cfg, learned or ()),
    }
    tools = candidates.versions(CONVERTER_TOOLS["to_onnxruntime"])
    outcomes = []
    for precision in precisions:
        settings, sources = said(variant.net, precision)
        outcomes.append(
            candidates.attempt(
                variant,
                precision,
                out,
                FILE_NAME,
                makers[precision],
                _describe,
                tools=variant.manifest.tools if precision == "fp32" else tools,
                sources={"exported": variant.onnx.parent, **sources},
                settings=settings,
            )
        )
    return outcomes


def _describe(path: Path) -> Description:
    with candidates.refusals("onnxruntime", *_REFUSED):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    graph = _optimized(path, len(model.graph.node))
    return Description(onnx_file.signature(model), onnx_file.opset(model), {"graph": graph})


def _optimized(path: Path, num_nodes: int) -> dict[str, Any]:
    """Count what is left of the graph after the optimizations that no CPU decides.

    A session's default level goes further, to layouts of this CPU: its counts would differ between
    machines that make the same bytes.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder, candidates.refusals("onnxruntime", *_REFUSED):
        optimized = Path(folder) / FILE_NAME
        options.optimized_model_filepath = str(optimized)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        operators = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return {
        "optimization_level": "extended",
        "num_nodes": num_nodes,
        "num_optimized_nodes": operators.total(),
        "operators": dict(sorted(operators.items())),
    }


def _quantize_dynamic(path: Path) -> bytes:
    """Quantize weights; activation ranges are taken at run time.

    Weights are uint8: older releases have no ConvInteger for int8 ones (onnxruntime issue 15888),
    and 1.31's is slow (ResNet-8: 2.7 ms against 0.76 ms).
    """
    with tempfile.TemporaryDirectory() as folder, candidates.refusals("onnxruntime", *_REFUSED):
        model = onnx.load(path)
        # onnxruntime 1.31 fails on the shapes that torch's exporter left there for folded nodes
        del model.graph.value_info[:]
        quantized = Path(folder) / FILE_NAME
        quantize_dynamic(model, quantized, per_channel=True, weight_type=QuantType.QUInt8)
        return _finish(quantized)


def _quantize_static(
    path: Path, samples: NDArray[Any], cfg: params.Convert, learned: Sequence[Range]
) -> bytes:
    """Insert QuantizeLinear/DequantizeLinear pairs with ranges from the samples (min-max).

    Weights are int8, symmetric, one scale an output channel; activations asymmetric, per tensor.
    Learned ranges take the place of those from the samples; the pairs stand where onnxruntime's
    kernels want them, and not where training had them (ADR 0009).
    """
    with tempfile.TemporaryDirectory() as folder, candidates.refusals("onnxruntime", *_REFUSED):
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / FILE_NAME
        # folds what batch norm is left, or it would be quantized on its own
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Samples([value.name for value in onnx_file.inputs(onnx.load(path))], samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=_QUANT_TYPES[cfg.activation_dtype or RULES.activation_dtypes[0]],
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": RULES.symmetric_activations,
                "WeightSymmetric": True,
                "TensorQuantOverrides": _overrides(onnx.load(prepared), learned),
            },
        )
        return _finish(quantized)


def _overrides(
    model: onnx.ModelProto, learned: Sequence[Range]
) -> dict[str, list[dict[str, np.float32]]]:
    """Say in onnxruntime's terms which activation has which learned range."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [
        Reader(node.input[0], onnx.numpy_helper.to_array(weights[node.input[1]]))
        for node in model.graph.node
        if node.op_type in LAYERS and node.input[1] in weights
    ]
    return {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in by_activation(learned, readers).items()
    }


def _finish(path: Path) -> bytes:
    """Read the result; a net in which nothing was quantized would be fp32 under another name."""
    model = onnx.load(path)
    if not any("quantizelinear" in node.op_type.lower() for node in model.graph.node):
        raise ConversionError("onnxruntime finds no operator to quantize; leave it fp32")
    return onnx_file.canonical_bytes(model)


class _Samples:
    """Hands out one sample at a time, as onnxruntime's calibrator asks."""

    def __init__(self, names: Sequence[str], samples: NDArray[Any]) -> None:
        self._feeds = onnx_run.feeds(names, samples)
        self._rows = iter(range(len(samples)))

    def get_next(self) -> dict[str, Any] | None:
        row = next(self._rows, None)
        if row is None:
            return None
        return {name: values[row : row + 1] for name, values in self._feeds.items()}
