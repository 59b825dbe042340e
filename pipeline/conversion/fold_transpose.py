"""Fold a transpose into the mean behind it: Ethos-U55 averages height and width, not channels.

litert-torch 0.10 computes in NHWC, but turns back to NCHW for a mean whose output has fewer axes,
as in ``x.mean((2, 3))``. Vela then leaves the mean on the CPU ("Unsupported depth-reduction").
Remove this when its `layout_check` takes such a mean for NHWC.
"""

from collections import Counter
from typing import Any

import numpy as np

from pipeline.conversion import tflite_graph


def fold_transpose(content: bytes) -> bytes:
    """Return the .tflite file with every MEAN(TRANSPOSE(x, p), a) turned into MEAN(x, p[a]).

    They are equal where the kept axes stay in their order. Another pair stays as it is, and so does
    a transpose that something else reads too. A file with nothing to fold is returned as given.
    Float sums may differ in their last digits.

    Raises:
        ConversionError: it is no whole .tflite file.
    """
    model = tflite_graph.read(content)
    folded = [_fold(model, graph) for graph in model.subgraphs]
    return tflite_graph.write(model) if any(folded) else content


def _fold(model: Any, graph: Any) -> bool:
    """Change one graph; say whether there was anything to fold."""
    kinds = {id(operator): tflite_graph.kind(model, operator) for operator in graph.operators}
    transposes = {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if kinds[id(operator)] == "TRANSPOSE"
    }
    num_reads = Counter(int(i) for operator in graph.operators for i in operator.inputs)
    num_reads.update(int(i) for i in graph.outputs)
    folded = set()
    for mean in [operator for operator in graph.operators if kinds[id(operator)] == "MEAN"]:
        between = int(mean.inputs[0])
        transpose = transposes.get(between)
        if transpose is None or num_reads[between] != 1:
            continue
        axes = _axes(model, graph, mean, transpose)
        if axes is not None:
            # the tensor between them holds the axes now: one that nobody writes would be an error
            _make_constant(model, graph.tensors[between], axes)
            mean.inputs = [transpose.inputs[0], between]
            folded.add(id(transpose))
    graph.operators = [operator for operator in graph.operators if id(operator) not in folded]
    return bool(folded)


def _axes(model: Any, graph: Any, mean: Any, transpose: Any) -> list[int] | None:
    """Return the axes to average before the transpose; None where that is not the same."""
    order = tflite_graph.constant(model, graph, transpose.inputs[1])
    axes = tflite_graph.constant(model, graph, mean.inputs[1])
    if order is None or axes is None or mean.builtinOptions.keepDims:
        return None
    averaged = {int(axis) % len(order) for axis in axes}
    kept = [int(order[axis]) for axis in range(len(order)) if axis not in averaged]
    return sorted(int(order[axis]) for axis in averaged) if kept == sorted(kept) else None


def _make_constant(model: Any, tensor: Any, values: list[int]) -> None:
    from ai_edge_quantizer import qtyping

    buffer = qtyping.BufferT()
    buffer.data = np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    tensor.shape = [len(values)]
    tensor.shapeSignature = None
    tensor.type = qtyping.TensorType.INT32
