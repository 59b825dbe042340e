"""Write the tiny models of `slipway runner check` (pipeline/transports/conformance/tiny).

dense    x [1, 2] -> y [1, 3] = x @ WEIGHTS + BIAS, float32; the first axis of the ONNX file is free
several  wide [1, 2] -> twice [1, 2] = wide + wide, float32, and steps [1, 4] -> same [1, 4]; these
         are int8 with SCALE and ZERO_POINT in the .tflite, float64 in the ONNX file
unknown  the same interface as dense by an operator that no runtime has
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from pipeline.transports.conformance.subject import BIAS, SCALE, TINY, WEIGHTS, ZERO_POINT

OPERATOR = "Nonsense"
OPSET, IR_VERSION = 13, 8  # of 2021: boards have old runtimes
IDENTIFIER, SCHEMA_VERSION = b"TFL3", 3
FLOAT32, INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8


def write(folder: Path) -> None:
    """Write all six files."""
    for name, graph in {
        "dense": _onnx_dense(), "several": _onnx_several(), "unknown": _onnx_unknown(),
    }.items():  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("acme", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        content = model.SerializeToString(deterministic=True)
        (folder / f"{name}.onnx").write_bytes(content)
    onnx.checker.check_model(str(folder / "dense.onnx"))
    onnx.checker.check_model(str(folder / "several.onnx"))
    for name, graph in {
        "dense": _tflite_dense(), "several": _tflite_several(), "unknown": _tflite_unknown(),
    }.items():  # fmt: skip
        (folder / f"{name}.tflite").write_bytes(_flatbuffer(*graph))


def _value(name: str, shape: list, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _onnx_dense() -> onnx.GraphProto:
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], ["y"]),
    ]
    weights = [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(BIAS, "bias")]
    ends = [_value("x", ["batch", 2])], [_value("y", ["batch", 3])]
    return helper.make_graph(nodes, "dense", *ends, weights)


def _onnx_several() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Identity", ["steps"], ["same"]),
        helper.make_node("Add", ["wide", "wide"], ["twice"]),
    ]
    inputs = [_value("wide", [1, 2]), _value("steps", [1, 4], TensorProto.DOUBLE)]
    outputs = [_value("twice", [1, 2]), _value("same", [1, 4], TensorProto.DOUBLE)]
    return helper.make_graph(nodes, "several", inputs, outputs)


def _onnx_unknown() -> onnx.GraphProto:
    node = helper.make_node(OPERATOR, ["x"], ["y"], domain="acme")
    return helper.make_graph(
        [node], "unknown", [_value("x", ["batch", 2])], [_value("y", ["batch", 3])]
    )


class _Graph:
    """What a .tflite file holds, put together tensor by tensor."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version = SCHEMA_VERSION
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.model.buffers = [schema.BufferT()]  # the first one is nobody's
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: list[int], kind: int = FLOAT32, values=None) -> int:
        """Add a tensor, a constant if it has values, and return its number."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if kind == INT8:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([SCALE], np.float32)
            tensor.quantization.zeroPoint = np.array([ZERO_POINT], np.int64)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], outputs: list[int], options=None) -> None:
        """Add an operator, a custom one if TFLite has none of that name."""
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        builtin = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        if builtin == schema.BuiltinOperator.CUSTOM:
            code.customCode = name
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)


def _tflite_dense() -> tuple[_Graph, list[int], list[int]]:
    graph = _Graph()
    x = graph.tensor("x", [1, 2])
    weights = graph.tensor("weights", [3, 2], values=WEIGHTS.T)
    bias = graph.tensor("bias", [3], values=BIAS)
    y = graph.tensor("y", [1, 3])
    graph.operator("FULLY_CONNECTED", [x, weights, bias], [y], schema.FullyConnectedOptionsT())
    return graph, [x], [y]


def _tflite_several() -> tuple[_Graph, list[int], list[int]]:
    graph = _Graph()
    wide, steps = graph.tensor("wide", [1, 2]), graph.tensor("steps", [1, 4], INT8)
    twice, same = graph.tensor("twice", [1, 2]), graph.tensor("same", [1, 4], INT8)
    shape = graph.tensor("shape", [2], schema.TensorType.INT32, np.array([1, 4], np.int32))
    graph.operator("RESHAPE", [steps, shape], [same], schema.ReshapeOptionsT())
    graph.operator("ADD", [wide, wide], [twice], schema.AddOptionsT())
    return graph, [wide, steps], [twice, same]


def _tflite_unknown() -> tuple[_Graph, list[int], list[int]]:
    graph = _Graph()
    x, y = graph.tensor("x", [1, 2]), graph.tensor("y", [1, 3])
    graph.operator(OPERATOR, [x], [y])
    return graph, [x], [y]


def _flatbuffer(graph: _Graph, inputs: list[int], outputs: list[int]) -> bytes:
    graph.graph.inputs, graph.graph.outputs = inputs, outputs
    builder = flatbuffers.Builder(0)
    builder.Finish(graph.model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else TINY)
