"""What an ONNX file is, before anything is made of it: its opset, signature and costs."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx

from pipeline.console import scaled
from pipeline.conversion import onnx_file, onnx_read
from pipeline.manifest import Signature, Tensor

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
Shapes = dict[str, list[int]]


@dataclass(frozen=True)
class Described:
    """An ONNX file; ``macs`` for one sample, None where its axes leave them open."""

    opset: int
    signature: Signature
    macs: int | None
    parameters: int

    def line(self) -> str:
        """Say it in one line, such as ``opset 13, input image[batch,3,96,96] float32, ...``."""
        inputs = ", ".join(f"input {_shaped(t)} {t.dtype}" for t in self.signature.inputs)
        outputs = ", ".join(f"output {_shaped(t)}" for t in self.signature.outputs)
        macs = "MACs unknown" if self.macs is None else f"{scaled(self.macs)} MACs"
        costs = f"{macs}, {scaled(self.parameters)} parameters"
        return f"opset {self.opset}, {inputs}, {outputs}; {costs}"


@dataclass(frozen=True)
class Costs:
    """What one sample costs in convolutions and matrix products.

    ``macs``, and the values that these operators read and write, each operator's once:
    ``num_weights`` of constants (without biases), ``num_activations`` of all else. What runs on
    the way between them (an activation, an addition) is taken to be fused.
    """

    macs: int
    num_weights: int
    num_activations: int


def describe(path: Path) -> Described:
    """Read and check an ONNX file and say what it is.

    MACs are of convolutions and matrix products, counted on inferred shapes with one sample;
    parameters are floating-point weights.

    Raises:
        ConversionError: as `onnx_read.read`; and an input or output is no tensor.
    """
    model = onnx_read.read(path)
    onnx_file.check_tensors(model)
    found = _costs(model)
    return Described(
        opset=onnx_file.opset(model),
        signature=onnx_file.signature(model),
        macs=found.macs if found else None,
        parameters=_parameters(model),
    )


def costs(path: Path) -> Costs | None:
    """Count what one sample costs; None where the file's axes leave it open.

    Raises:
        ConversionError: as `onnx_read.read`.
    """
    return _costs(onnx_read.read(path))


def _shaped(tensor: Tensor) -> str:
    return f"{tensor.name}[{','.join(map(str, tensor.shape))}]"


def _parameters(model: onnx.ModelProto) -> int:
    weights = [t for graph in onnx_file.graphs(model) for t in graph.initializer]
    weights += [a.t for n in onnx_file.nodes(model) if n.op_type == "Constant" for a in n.attribute]
    return sum(prod(tensor.dims) for tensor in weights if tensor.data_type in _FLOATS)


def _costs(model: onnx.ModelProto) -> Costs | None:
    single = onnx.ModelProto()
    single.CopyFrom(model)
    onnx_file.set_batch(single, 1)
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes.setdefault(value.name, [int(dim.dim_value) for dim in dims])
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    macs = num_weights = num_activations = 0
    for node in graph.node:
        counter = _COUNTERS.get(node.op_type)
        if counter is None:
            continue
        moved = (*node.input[:2], node.output[0])
        if not set(moved) <= shapes.keys():
            return None
        macs += counter(node, shapes)
        for name in moved:
            num_weights += prod(shapes[name]) if name in constants else 0
            num_activations += 0 if name in constants else prod(shapes[name])
    return Costs(macs, num_weights, num_activations)


def _conv(node: Any, shapes: Shapes) -> int:
    # weights [O, I / groups, kernel...]: each output value is a sum over the rest
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _conv_transpose(node: Any, shapes: Shapes) -> int:
    # weights [I, O / groups, kernel...]: each input value is spread over the rest
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _matmul(node: Any, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: Any, shapes: Shapes) -> int:
    is_transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if is_transposed else 1]


_COUNTERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
