import onnx
import pytest
from onnx import TensorProto, helper

PLAN = {"warmup_ns": 0, "timed_ns": 1_000_000, "min_samples": 4}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The path of an ONNX file with one input [batch, 2]: its negation."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["input"], ["output"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    onnx.save(model, path)
    return str(path)
