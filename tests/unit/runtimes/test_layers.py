"""Times of operators: read from a profile, and from a real session of ONNX Runtime."""

import tempfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.runtimes import layers, onnxruntime
from pipeline.runtimes.errors import RunnerError


def run(ts):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 90, "args": {}}


def node(name, ts, dur, index=0, kind="Conv", provider="CPUExecutionProvider"):
    args = {"op_name": kind, "provider": provider, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def test_a_time_is_the_median_of_the_last_runs_in_whole_nanoseconds():
    events = [run(100 * i) for i in range(4)]
    events += [node("a", 100 * i + 1, dur) for i, dur in enumerate((900, 3, 50, 4))]
    assert onnxruntime.rows_of(events, 3) == [
        {"name": "a", "operator": "Conv", "time_ns": 4000, "provider": "CPUExecutionProvider"}
    ]


def test_rows_stand_in_the_order_of_running_and_keep_their_provider():
    events = [node("late", 50, 5, 1, "Gemm", "CUDAExecutionProvider"), node("early", 10, 5), run(0)]
    rows = onnxruntime.rows_of(events, 1)
    assert [(r["name"], r["operator"], r["provider"]) for r in rows] == [
        ("early", "Conv", "CPUExecutionProvider"), ("late", "Gemm", "CUDAExecutionProvider"),
    ]  # fmt: skip


def test_what_runs_within_an_operator_is_not_counted_twice():
    events = [run(0), node("loop", 10, 30, kind="Loop"), node("body", 12, 8), node("after", 40, 5)]
    assert [row["name"] for row in onnxruntime.rows_of(events, 1)] == ["loop", "after"]


def test_an_operator_that_runs_twice_a_request_counts_with_their_sum():
    events = [run(0), node("a", 10, 3), node("a", 20, 4)]
    assert [row["time_ns"] for row in onnxruntime.rows_of(events, 1)] == [7000]


def test_operators_of_one_name_keep_a_row_each():
    events = [run(0), node("a", 10, 3, index=1), node("a", 20, 4, index=2)]
    assert [row["time_ns"] for row in onnxruntime.rows_of(events, 1)] == [3000, 4000]


def test_a_profile_that_lacks_runs_is_refused():
    with pytest.raises(RunnerError, match=r"profile holds 1 of 2 runs; ask for fewer"):
        onnxruntime.rows_of([run(0), node("a", 10, 3)], 2)


@pytest.fixture
def model(tmp_path):
    """Two matrix products with a ReLU between, which ONNX Runtime leaves as three operators."""
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["b"], name="between"),
            helper.make_node("MatMul", ["b", "w"], ["y"], name="second"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return str(path)


def test_onnxruntime_gives_a_row_an_operator_and_leaves_no_file(model, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    rows = onnxruntime.layers(model, 1, [np.ones((1, 4), np.float32)], 5)
    assert [(row["name"], row["operator"]) for row in rows] == [
        ("first", "MatMul"), ("between", "Relu"), ("second", "MatMul"),
    ]  # fmt: skip
    assert all(isinstance(row["time_ns"], int) and row["time_ns"] >= 0 for row in rows)
    assert {row["provider"] for row in rows} == {"CPUExecutionProvider"}
    assert list(folder.iterdir()) == []


def test_facts_name_every_provider_that_the_session_has(model):
    facts = onnxruntime.load(model, 1).facts
    assert facts["providers"] == [facts["provider"]] == ["CPUExecutionProvider"]


def test_a_median_is_rounded_to_nanoseconds():
    assert layers.row("n", "Conv", [1.0, 2.6], "CPU")["time_ns"] == 2
