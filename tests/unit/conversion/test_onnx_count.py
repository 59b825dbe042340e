"""What a sample costs in an ONNX file: multiply-accumulates and the values they move."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.conversion import onnx_count
from pipeline.conversion.onnx_count import Costs


@pytest.fixture
def make_file(tmp_path):
    """A file of the nodes on input ``x``, with weights given by their shapes."""

    def make(nodes, shape, weights):
        graph = helper.make_graph(
            [helper.make_node(*node[:3], **node[3]) for node in nodes],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
            [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
        return path

    return make


def test_a_convolution_moves_its_weights_input_and_output_once(make_file):
    node = ("Conv", ["x", "w", "b"], ["y"], {"kernel_shape": [3, 3], "pads": [1] * 4})
    path = make_file([node], ["batch", 2, 8, 8], {"w": (4, 2, 3, 3), "b": (4,)})
    assert onnx_count.costs(path) == Costs(
        macs=4 * 8 * 8 * 2 * 9, num_weights=4 * 2 * 9, num_activations=2 * 64 + 4 * 64
    )


def test_what_lies_between_operators_is_taken_to_be_fused(make_file):
    nodes = [
        ("MatMul", ["x", "w"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("MatMul", ["b", "w"], ["y"], {}),
    ]
    path = make_file(nodes, [1, 6], {"w": (6, 6)})
    assert onnx_count.costs(path) == Costs(macs=72, num_weights=72, num_activations=24)


def test_a_product_of_two_activations_has_no_weights(make_file):
    nodes = [("Transpose", ["x"], ["t"], {}), ("MatMul", ["x", "t"], ["y"], {})]
    path = make_file(nodes, [1, 5], {})
    assert onnx_count.costs(path) == Costs(macs=5, num_weights=0, num_activations=11)


def test_open_axes_leave_the_costs_open(make_file):
    path = make_file([("MatMul", ["x", "w"], ["y"], {})], [1, "side", 6], {"w": (6, 6)})
    assert onnx_count.costs(path) is None
