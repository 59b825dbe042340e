"""What is ONNX Runtime's own; what it shares with the other converters is in tests/contract."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import compatibility, manifest, params
from pipeline.conversion import to_onnxruntime
from pipeline.conversion.candidates import Variant

ALL = compatibility.PRECISIONS["to_onnxruntime"]


def convert(variant, samples, out, precisions=ALL, **cfg):
    cfg = params.Convert(precisions=precisions, num_calibration=8, **cfg)
    return to_onnxruntime.convert(variant, precisions, samples, cfg, out)


def read_constants(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.fixture
def plain(make_variant):
    return make_variant("plain", export=True)


def test_fp32_is_the_exported_file(plain, samples, tmp_path):
    (outcome,) = convert(plain, samples, tmp_path / "out", ("fp32",))
    assert outcome.path.read_bytes() == plain.onnx.read_bytes()
    assert outcome.tools == plain.manifest.tools


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, np.uint8), ("uint8", np.uint8), ("int8", np.int8)]
)
def test_activation_dtype(plain, samples, tmp_path, asked, expected):
    (outcome,) = convert(plain, samples, tmp_path / "out", ("int8-static",), activation_dtype=asked)
    assert read_constants(outcome.path)["input_zero_point"].dtype == expected


def test_static_weights_are_int8_symmetric_with_a_scale_a_channel(plain, samples, tmp_path):
    (outcome,) = convert(plain, samples, tmp_path / "out", ("int8-static",))
    exported, found = read_constants(plain.onnx), read_constants(outcome.path)
    weight = exported["conv.weight"]
    quantized, scale = found["conv.weight_quantized"], found["conv.weight_scale"]
    assert quantized.dtype == np.int8
    assert not found["conv.weight_zero_point"].any()
    expected = np.abs(weight).max((1, 2, 3)) / 127
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    np.testing.assert_allclose(
        quantized * scale[:, None, None, None], weight, atol=float(scale.max()) * 0.51
    )


def test_static_input_range_is_the_smallest_and_largest_of_the_chosen_samples(
    plain, samples, tmp_path
):
    samples[8:] *= 100  # beyond num_calibration: must not count
    (outcome,) = convert(plain, samples, tmp_path / "out", ("int8-static",))
    found = read_constants(outcome.path)
    chosen = samples[:8]
    np.testing.assert_allclose(found["input_scale"], (chosen.max() - chosen.min()) / 255, rtol=1e-6)


def test_unknown_operator_is_named_and_nothing_is_left(samples, tmp_path):
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 1, 8, 8))
        for name in ("input", "output")
    ]
    node = helper.make_node("Foo", ["input"], ["output"], domain="mine")
    model = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)],
        ir_version=10,
    )
    (tmp_path / "exported").mkdir()
    onnx.save(model, tmp_path / "exported" / "model.onnx")
    described = manifest.write(tmp_path / "exported", model="tiny", stage="export")
    variant = Variant("odd", tmp_path / "exported" / "model.onnx", tmp_path, described)
    outcomes = convert(variant, samples, tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["not_built"] * 3
    assert all("mine:Foo" in outcome.reason for outcome in (outcomes[0], outcomes[2]))
    assert not list((tmp_path / "out").iterdir())


def test_fused_nodes_are_recorded_for_each_candidate(plain, samples, tmp_path):
    outcomes = convert(plain, samples, tmp_path / "out", ("fp32", "int8-static"))
    graphs = {outcome.precision: outcome.settings["graph"] for outcome in outcomes}
    assert graphs["fp32"]["operators"]["FusedConv"] == 1  # its ReLU is part of it
    assert graphs["int8-static"]["operators"]["QLinearConv"] == 1
    for outcome in outcomes:
        graph = outcome.settings["graph"]
        assert graph["optimization_level"] == "extended"
        assert graph["num_nodes"] == len(onnx.load(outcome.path).graph.node)
        assert graph["num_optimized_nodes"] == sum(graph["operators"].values())
        assert graph["num_optimized_nodes"] < graph["num_nodes"]


def test_nothing_to_quantize_is_not_called_int8(make_variant, samples, tmp_path):
    outcomes = convert(make_variant("bare", export=True), samples, tmp_path / "out")
    assert [outcome.status for outcome in outcomes][:2] == ["built", "not_built"]
    assert outcomes[1].reason == "onnxruntime finds no operator to quantize; leave it fp32"
