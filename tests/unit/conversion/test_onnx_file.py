import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.conversion import onnx_file
from pipeline.manifest import Tensor

SECRET = "/home/somebody/net.py"


def mark(part):
    """Write what torch's exporter writes."""
    part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=SECRET)
    part.doc_string = SECRET
    return part


def make_value(name, shape=("batch", 3), kind=TensorProto.FLOAT):
    return mark(helper.make_tensor_value_info(name, kind, shape))


@pytest.fixture
def model():
    """A model that calls a function and holds a graph in a node in a graph; marked all over."""
    inner = mark(helper.make_node("Identity", ["x"], ["z"], name="inner"))
    branch = mark(helper.make_graph([inner], "branch", [], [make_value("z")]))
    twice = mark(helper.make_node("Add", ["a", "a"], ["b"]))
    function = mark(
        helper.make_function("mine", "Twice", ["a"], ["b"], [twice], [helper.make_opsetid("", 20)])
    )
    nodes = [
        mark(helper.make_node("If", ["c"], ["y0"], then_branch=branch, else_branch=branch)),
        mark(helper.make_node("Twice", ["y0"], ["y"], domain="mine")),
    ]
    for attribute in nodes[0].attribute:
        attribute.doc_string = SECRET
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    mark(condition)
    graph = mark(
        helper.make_graph(
            nodes,
            "main",
            [make_value("x"), make_value("c", (), TensorProto.BOOL)],
            [make_value("y")],
            [condition],
            value_info=[make_value("y0")],
        )
    )
    imports = [helper.make_opsetid(d, v) for d, v in (("unused", 3), ("mine", 1), ("", 20))]
    return mark(
        helper.make_model(
            graph, functions=[function], opset_imports=imports, producer_name=SECRET, ir_version=10
        )
    )


def test_nothing_of_the_machine_is_left(model):
    assert SECRET.encode() in model.SerializeToString()
    content = onnx_file.canonical_bytes(model)
    assert SECRET.encode() not in content
    text = str(onnx.load_from_string(content))
    for field in ("metadata_props", "doc_string", "producer"):
        assert field not in text


def test_the_computation_is_left(model):
    again = onnx.load_from_string(onnx_file.canonical_bytes(model))
    onnx.checker.check_model(again)
    assert [node.op_type for node in again.graph.node] == ["If", "Twice"]
    assert {(o.domain, o.version) for o in again.opset_import} == {("", 20), ("mine", 1)}
    assert again.ir_version == 10


def test_canonical_bytes_are_a_fixed_point(model):
    content = onnx_file.canonical_bytes(model)
    assert onnx_file.canonical_bytes(onnx.load_from_string(content)) == content


def test_signature_and_opset(model):
    found = onnx_file.signature(model)
    assert found.inputs == (Tensor("x", "float32", ("batch", 3)),)  # c has an initializer
    assert found.outputs == (Tensor("y", "float32", ("batch", 3)),)
    assert onnx_file.opset(model) == 20


def test_four_axes_are_an_image():
    graph = helper.make_graph(
        [], "g", [make_value("x", ("batch", 1, 8, 8), TensorProto.UINT8)], [make_value("y")]
    )
    (found,) = onnx_file.signature(helper.make_model(graph)).inputs
    assert found == Tensor("x", "uint8", ("batch", 1, 8, 8), layout="NCHW")
