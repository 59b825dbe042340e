"""Learned ranges in LiteRT's terms: which tensor of a lowered file has which range."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.conversion.learned import Reader, by_activation
from pipeline.nets.ranges import Range

# What multiplies with weights, which are the second input.
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED")
# What hands values on: both sides have one scale, and the quantizer takes that of the first input.
PASSING = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS")


def overrides(
    lowered: bytes, ranges: Mapping[str, Mapping[str, NDArray[Any]]], learned: Sequence[Range]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return ai-edge-quantizer's ranges, by tensor, of what the learned ones replace.

    Args:
        lowered: the fp32 file.
        ranges: as calibration gives them, by tensor; a learned range has their shape.
        learned: of the layers.

    Raises:
        ConversionError: a layer is not found in the file.
    """
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    kinds = {code: name for name, code in vars(qtyping.BuiltinOperator).items()}
    model = tfl_flatbuffer_utils.read_model(lowered)
    readers: list[Reader] = []
    source: dict[str, str] = {}  # of a tensor that was only handed on: what it was made from
    for graph in model.subgraphs:
        names = [tensor.name.decode() for tensor in graph.tensors]
        for operator in graph.operators:
            kind = kinds[model.operatorCodes[operator.opcodeIndex].builtinCode]
            if kind in PASSING:
                source[names[operator.outputs[0]]] = names[operator.inputs[0]]
            elif kind in LAYERS:
                weight = model.buffers[graph.tensors[operator.inputs[1]].buffer].data
                if weight is not None:
                    activation = names[operator.inputs[0]]
                    readers.append(Reader(activation, np.asarray(weight).view(np.float32)))
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, (low, high) in by_activation(learned, readers).items():
        current: str | None = name
        while current is not None:
            if current in ranges:
                found[current] = {
                    "min": np.full_like(ranges[current]["min"], low),
                    "max": np.full_like(ranges[current]["max"], high),
                }
            current = source.get(current)
    return found
