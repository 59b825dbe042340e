"""Read and write the graph of a .tflite file; a file that is not whole is refused.

The object is that of the flatbuffer schema: ``subgraphs``, ``operatorCodes``, ``buffers``.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConversionError, DependencyError

IDENTIFIER, IDENTIFIER_AT = b"TFL3", slice(4, 8)
# What reading a damaged flatbuffer raises; runtimes and compilers read past its end and crash.
DAMAGES = (struct.error, ValueError, IndexError, TypeError, AttributeError, OverflowError)


def read(content: bytes) -> Any:
    """Parse all of a .tflite file, which also shows whether all of it is there.

    Raises:
        ConversionError: it is no .tflite file, damaged or cut off.
        DependencyError: ai-edge-quantizer, which holds the schema, is not installed.
    """
    try:
        from ai_edge_quantizer.utils import tfl_flatbuffer_utils
    except ImportError as error:
        raise DependencyError("ai-edge-quantizer", "build") from error
    if content[IDENTIFIER_AT] != IDENTIFIER:
        raise ConversionError("the file is no .tflite file; give one, or convert the model again")
    try:
        model = tfl_flatbuffer_utils.read_model(content)
        if not model.subgraphs:
            raise ValueError("it holds no graph")
    except DAMAGES as error:
        raise ConversionError(
            f"the .tflite file is damaged or cut off: {error}; restore it, or convert the model "
            "again"
        ) from error
    return model


def inlined(content: bytes) -> bytes:
    """Return the file with all weights inside the flatbuffer.

    ai-edge-quantizer 0.10 puts those of 256 KiB and more behind it; tflite-micro takes whatever
    lies elsewhere for them, without a word.

    Raises:
        ConversionError: as `read`.
    """
    return write(read(content))


def write(model: Any) -> bytes:
    """Serialize; equal graphs give equal bytes."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operators(model: Any) -> list[str]:
    """Name every operator of every graph: a custom one by its code, such as ``ethos-u``."""
    return [kind(model, operator) for graph in model.subgraphs for operator in graph.operators]


def kind(model: Any, operator: Any) -> str:
    """Name one operator, such as ``CONV_2D``, or a custom one by its code."""
    from ai_edge_quantizer import qtyping

    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode.decode(errors="replace"))
    # builtinCode came with operator 127; older files have the deprecated field alone
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = {value: name for name, value in vars(qtyping.BuiltinOperator).items()}
    return str(names[number])


def borders(model: Any) -> list[tuple[Any, ...]]:
    """List (shape, type, scales, zero-points) of inputs, then of outputs, in order."""
    graph = model.subgraphs[0]
    found = []
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        scales = getattr(tensor.quantization, "scale", None)
        zero_points = getattr(tensor.quantization, "zeroPoint", None)
        found.append((_list(tensor.shape), tensor.type, _list(scales), _list(zero_points)))
    return found


def constant(model: Any, graph: Any, index: int) -> NDArray[np.int32] | None:
    """Return the values of a constant int32 tensor; None if it is computed, or of another type."""
    from ai_edge_quantizer import qtyping

    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type != qtyping.TensorType.INT32 or data is None or not len(data):
        return None
    return np.frombuffer(bytes(bytearray(data)), np.int32)


def _list(values: Any) -> list[Any]:
    return [] if values is None else [value.item() for value in np.asarray(values)]
