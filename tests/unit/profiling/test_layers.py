"""Layers from rows, what they cover, where they ran, and which belong together."""

import pytest

from pipeline import measurement
from pipeline.errors import TargetError
from pipeline.measurement import Placement
from pipeline.profiling import layers

ROW = {"name": "a", "operator": "Conv", "time_ns": 1500, "provider": "CPU"}


def layer(name, operator="Conv", time_ms=None, provider=None):
    return measurement.Layer(name=name, operator=operator, time_ms=time_ms, provider=provider)


def test_rows_become_layers_in_milliseconds():
    (found,) = layers.of_rows([ROW])
    assert found == layer("a", "Conv", 0.0015, "CPU")


MALFORMED = {
    "no list": ({"a": 1}, "Expected `array`"),
    "no time": ([{"name": "a", "operator": "Conv"}], "missing required field `time_ns`"),
    "a time of words": ([{**ROW, "time_ns": "fast"}], "Expected `float`"),
    "a time below zero": ([{**ROW, "time_ns": -1}], ">= 0"),
}


@pytest.mark.parametrize(("rows", "words"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_row_is_refused_in_one_line(rows, words):
    with pytest.raises(TargetError, match=r"the runner's layers are malformed: .*; mend") as caught:
        layers.of_rows(rows)
    assert words in str(caught.value)


class TestCoverage:
    def test_it_is_the_sum_over_the_requests_time(self):
        found = [layer("a", time_ms=0.2), layer("b", time_ms=0.1), layer("c")]
        assert layers.coverage(found, 0.4) == pytest.approx(0.75)

    @pytest.mark.parametrize("p50", [None, 0.4])
    def test_without_times_or_p50_it_is_absent(self, p50):
        found = [layer("a", time_ms=0.1)] if p50 is None else [layer("a")]
        assert layers.coverage(found, p50) is None


class TestPlacement:
    def test_what_another_provider_ran_fell_back(self):
        asked = "CUDAExecutionProvider"
        found = [layer("a", provider=asked), layer("b", "Loop", provider="CPUExecutionProvider")]
        assert layers.placement(found, asked) == Placement(1, 1, ("Loop",))

    @pytest.mark.parametrize("asked", layers.CPU)
    def test_nothing_falls_back_from_the_cpu(self, asked):
        assert layers.placement([layer("a", provider="jit_avx512_f32")], asked) is None

    def test_without_a_provider_nothing_is_claimed(self):
        assert layers.placement([layer("a")], "CUDAExecutionProvider") is None


REASONS = {
    "emulated": (("onnxruntime", "emulated"), "emulated time is not latency"),
    "never run": (("tensorrt", "built"), "it never ran"),
    "silent": (("litert", "measured"), "LiteRT's Python interpreter gives no times"),
    "not known": (("onnxruntime", "measured"), "none were recorded"),
}


@pytest.mark.parametrize(("case", "words"), REASONS.values(), ids=REASONS)
def test_there_is_a_reason_for_no_layers(case, words):
    assert layers.why_none(*case).startswith(words)


def named(pairs):
    return [(a.name if a else None, b.name if b else None, by) for a, b, by in pairs]


# As ONNX Runtime 1.31 names a residual block in fp32 and in int8-static.
FP32 = (
    layer("relu_nchwc"), layer("conv2d_5_nchwc"), layer("getitem_12_nchwc"),
    layer("ReorderOutput", "ReorderOutput"), layer("node_linear", "Gemm"),
)  # fmt: skip
INT8 = (
    layer("input_QuantizeLinear", "QuantizeLinear"), layer("node_Conv_105_token_1", "QLinearConv"),
    layer("node_Conv_113_token_17", "QLinearConv"), layer("node_conv2d_5_token_11", "QLinearConv"),
    layer("node_add_81", "QLinearAdd"), layer("node_linear", "QGemm"),
    layer("output_DequantizeLinear", "DequantizeLinear"),
)  # fmt: skip


class TestMatch:
    def test_by_name_first_then_by_order_and_what_is_left_stays_alone(self):
        assert named(layers.match(FP32, INT8)) == [
            (None, "input_QuantizeLinear", None),
            ("relu_nchwc", "node_Conv_105_token_1", "order"),
            ("conv2d_5_nchwc", "node_conv2d_5_token_11", "name"),
            ("getitem_12_nchwc", "node_Conv_113_token_17", "order"),
            ("ReorderOutput", None, None),
            (None, "node_add_81", None),
            ("node_linear", "node_linear", "name"),
            (None, "output_DequantizeLinear", None),
        ]

    def test_no_layer_is_lost_or_shown_twice(self):
        pairs = layers.match(FP32, INT8)
        assert [a for a, _, _ in pairs if a] == list(FP32)
        assert sorted(b.name for _, b, _ in pairs if b) == sorted(b.name for b in INT8)

    def test_other_counts_of_a_kind_are_not_forced(self):
        pairs = layers.match([layer("a"), layer("b")], [layer("c")])
        assert named(pairs) == [("a", None, None), ("b", None, None), (None, "c", None)]

    def test_one_name_for_another_kind_is_no_match(self):
        pairs = layers.match([layer("a", "Conv")], [layer("a", "Relu")])
        assert named(pairs) == [("a", None, None), (None, "a", None)]

    def test_a_name_that_stands_twice_decides_nothing(self):
        pairs = layers.match([layer("a"), layer("a")], [layer("a"), layer("a")])
        assert [by for _, _, by in pairs] == ["order", "order"]

    def test_openvinos_fused_bias_and_scale_keep_the_layers_name(self):
        pairs = layers.match(
            [layer("head/WithoutBiases", "FullyConnected")],
            [layer("head/WithoutBiases/DequantizationMultiply", "FullyConnectedQuantizedLegacy")],
        )
        assert [by for _, _, by in pairs] == ["name"]

    def test_equal_layers_match_one_to_one(self):
        assert all(a == b for a, b, _ in layers.match(INT8, INT8))

    def test_nothing_against_something_is_all_alone(self):
        assert named(layers.match((), FP32[:1])) == [(None, "relu_nchwc", None)]
        assert named(layers.match(FP32[:1], ())) == [("relu_nchwc", None, None)]
