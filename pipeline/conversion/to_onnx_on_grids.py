"""A net trained for int8 to ONNX with its learned ranges, as QuantizeLinear/DequantizeLinear pairs.

Symmetric int8: weights with one scale an output channel, activations with one scale a tensor, zero
points 0; biases and everything between layers stay float32. TensorRT and OpenVINO read it so.
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from pipeline.conversion import candidates, onnx_file
from pipeline.conversion.to_onnx import BATCH, INPUT, OUTPUT

OPSET = 17


def to_onnx_on_grids(net: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a net that computes on grids (`nets.on_grids`) as one ONNX file.

    By torch's older exporter: the dynamo exporter of torch 2.13 has no form of fake quantization.
    Same net, same tools: same bytes.

    Raises:
        ConversionError: an operator has no ONNX form.
    """
    assert not net.training
    with (
        warnings.catch_warnings(),
        candidates.refusals("onnx", torch.onnx.errors.OnnxExporterError),
    ):
        warnings.simplefilter("ignore")  # that this exporter is the older one
        torch.onnx.export(
            net,
            (torch.zeros((1, *example.shape[1:]), dtype=example.dtype),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
        )
    model = onnx.load(path)
    _inline(model.graph)
    path.write_bytes(onnx_file.canonical_bytes(model))


def _inline(graph: onnx.GraphProto) -> None:
    """Make initializers of constants and of identities of initializers, in place.

    The exporter shares equal zero points by Identity, and a compiler looks for them right there.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in held:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(held[node.input[0]])
        else:
            kept.append(node)
            continue
        tensor.name = node.output[0]
        held[tensor.name] = tensor
        graph.initializer.append(tensor)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
