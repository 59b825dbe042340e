"""Tiny nets with operators that one tool or another refuses."""

import sys

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated
from ai_edge_quantizer import qtyping
from onnx import TensorProto, helper, numpy_helper

from pipeline import files, manifest, params
from pipeline.conversion import tflite_graph
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.nets import factory, store

SHAPE, NUM_CLASSES = (1, 8, 8), 3
MODULE = "conversion_nets"
SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """A convolution with batch norm, one operator to choose, a linear head."""

    def __init__(self, channels, classes, middle):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)
        self.middle = middle

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(MIDDLE[self.middle](x).mean((2, 3)))


class Bare(nn.Module):
    """No weight at all: nothing to quantize."""

    def forward(self, x):
        return torch.sin(x.mean((2,)))[:, 0, :3]


MIDDLE = {
    "plain": lambda x: x,
    "sine": torch.sin,  # ai-edge-quantizer has no int8 form
    "sorted": lambda x: torch.sort(x, -1)[0],  # lowers, but LiteRT has no kernel
    "determinant": lambda x: x * torch.det(x)[..., None, None],  # litert-torch has no lowering
    "inverse error": lambda x: torch.erfinv(x / 100),  # ONNX has no such operator
    "fixed batch": lambda x: x.reshape(2, -1, 8, 8),
}


def make(input_shape, num_classes, middle):
    return Bare() if middle == "bare" else Net(input_shape[0], num_classes, middle)
'''


@pytest.fixture(scope="package")
def nets_path(tmp_path_factory):
    """The file of the nets, importable."""
    folder = tmp_path_factory.mktemp("nets")
    path = folder / f"{MODULE}.py"
    path.write_text(SOURCE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield path
    sys.path.remove(str(folder))


@pytest.fixture
def make_net(nets_path):
    """Build the net with the operator asked for, in eval mode, with its cfg."""

    def make(middle):
        digest = files.digest_file(nets_path)
        cfg = params.Net(factory=f"{MODULE}:make", factory_digest=digest, args={"middle": middle})
        torch.manual_seed(0)
        net = factory.build(cfg, SHAPE, NUM_CLASSES)
        net(torch.randn(2, *SHAPE))
        return net.eval(), cfg

    return make


@pytest.fixture(scope="package")
def exports():
    """Exported bytes by operator: an export takes two seconds."""
    return {}


@pytest.fixture
def make_variant(make_net, exports, tmp_path):
    """Store the net, and export it too if ONNX can hold it."""

    def make(middle, *, export=False):
        net, cfg = make_net(middle)
        folder = tmp_path / middle.replace(" ", "-")
        store.save(folder / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=NUM_CLASSES)
        path = folder / "onnx" / "model.onnx"
        path.parent.mkdir()
        if export and middle not in exports:
            to_onnx(net, torch.zeros(1, *SHAPE), path, 20)
            exports[middle] = path.read_bytes()
        if export:
            path.write_bytes(exports[middle])
        return Variant(
            middle, path, folder / "net", manifest.write(path.parent, model="tiny", stage="export")
        )

    return make


@pytest.fixture
def samples():
    return np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)


@pytest.fixture
def make_tflite():
    """A .tflite file, float32: input [2, 3, 4, 5] transposed, then averaged over axes.

    ``read_twice`` makes the transposed tensor an output too.
    """

    def make(order, axes, *, keep_dims=False, read_twice=False):
        turned = [(2, 3, 4, 5)[axis] for axis in order]
        averaged = {axis % 4 for axis in axes}
        left = [
            1 if i in averaged else length
            for i, length in enumerate(turned)
            if keep_dims or i not in averaged
        ]
        model = qtyping.ModelT()
        model.version, model.buffers = 3, [qtyping.BufferT()]
        graph = qtyping.SubGraphT()
        graph.tensors = [
            _tflite_tensor(model, name, shape, values)
            for name, shape, values in (
                ("input", [2, 3, 4, 5], None),
                ("order", [4], order),
                ("turned", turned, None),
                ("axes", [len(axes)], axes),
                ("output", left, None),
            )
        ]
        transpose, mean = qtyping.OperatorT(), qtyping.OperatorT()
        transpose.inputs, transpose.outputs, transpose.opcodeIndex = [0, 1], [2], 0
        mean.inputs, mean.outputs, mean.opcodeIndex = [2, 3], [4], 1
        mean.builtinOptionsType = qtyping.BuiltinOptions.ReducerOptions
        mean.builtinOptions = schema_py_generated.ReducerOptionsT()
        mean.builtinOptions.keepDims = keep_dims
        graph.operators, graph.inputs = [transpose, mean], [0]
        graph.outputs = [4, 2] if read_twice else [4]
        model.subgraphs = [graph]
        model.operatorCodes = [_tflite_code("TRANSPOSE"), _tflite_code("MEAN")]
        return tflite_graph.write(model)

    return make


def _tflite_tensor(model, name, shape, values):
    tensor = qtyping.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), shape, qtyping.TensorType.FLOAT32
    tensor.buffer = 0
    if values is not None:
        tensor.type, tensor.buffer = qtyping.TensorType.INT32, len(model.buffers)
        buffer = qtyping.BufferT()
        buffer.data = np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8)
        model.buffers.append(buffer)
    return tensor


def _tflite_code(name):
    code = schema_py_generated.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(qtyping.BuiltinOperator, name)
    return code


@pytest.fixture
def make_onnx(tmp_path):
    """Write a small classifier as some other tool would, and return its path.

    A convolution, a ReLU, ``middle`` (nodes from ``c`` to ``m``), a mean, a product, a softmax.
    """

    def make(
        opset=13,
        *,
        batch="N",
        size=8,
        middle=None,
        imports=(),
        name="user.onnx",
        change=None,
        ir_version=None,
    ):
        draw = np.random.default_rng(0)
        weights = {
            "w": draw.standard_normal((4, 3, 3, 3)).astype(np.float32) / 3,
            "b": draw.standard_normal(4).astype(np.float32),
            "h": draw.standard_normal((4, 2)).astype(np.float32),
        }
        nodes = [
            helper.make_node("Conv", ["image", "w", "b"], ["r"], name="first", pads=[1] * 4),
            helper.make_node("Relu", ["r"], ["c"]),
            *(middle or [helper.make_node("Identity", ["c"], ["m"], name="nothing")]),
            helper.make_node("GlobalAveragePool", ["m"], ["g"], name="mean"),
            helper.make_node("Flatten", ["g"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "h"], ["l"], name="head"),
            helper.make_node("Softmax", ["l"], ["scores"], name="last", axis=1),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, 3, size, size))
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, (batch, 2))
        graph = helper.make_graph(
            nodes,
            "g",
            [image],
            [scores],
            [numpy_helper.from_array(v, n) for n, v in weights.items()],
        )
        if opset < 9:  # older files list weights among the inputs
            for n, v in weights.items():
                graph.input.append(helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape))
        sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*i) for i in imports)]
        model = helper.make_model(
            graph, opset_imports=sets, ir_version=ir_version or (3 if opset < 9 else 7)
        )
        if change is not None:
            change(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def images():
    return np.random.default_rng(0).random((20, 3, 8, 8), np.float32)
