import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from pipeline.conversion import candidates, onnx_qdq
from pipeline.errors import ConversionError, ParityError


def write(path, nodes, constants, inputs=(("input", (1, 8, 8)),), output=(3,)):
    """An ONNX file written by hand: an export takes seconds."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
            for name, shape in inputs
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *output])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.fixture
def plain(tmp_path):
    """A convolution, its activation, a mean over the image, a linear head."""
    rng = np.random.default_rng(5)
    (tmp_path / "plain").mkdir()
    return write(
        tmp_path / "plain/model.onnx",
        [
            helper.make_node(
                "Conv", ["input", "conv.weight", "conv.bias"], ["c"], name="conv", pads=[1] * 4
            ),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("ReduceMean", ["r"], ["m"], name="mean", axes=[2, 3], keepdims=0),
            helper.make_node(
                "Gemm", ["m", "head.weight", "head.bias"], ["output"], name="head", transB=1
            ),
        ],
        {
            "conv.weight": rng.standard_normal((4, 1, 3, 3)),
            "conv.bias": rng.standard_normal(4),
            "head.weight": rng.standard_normal((3, 4)),
            "head.bias": rng.standard_normal(3),
        },
    )


@pytest.fixture
def samples():
    return np.random.default_rng(0).standard_normal((16, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def quantized(plain, samples):
    return onnx.load_from_string(onnx_qdq.quantize(plain, samples))


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def nodes(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def replace_constant(model, name, value):
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def test_every_pair_is_int8_with_zero_point_zero(quantized):
    values = constants(quantized)
    pairs = [*nodes(quantized, "QuantizeLinear"), *nodes(quantized, "DequantizeLinear")]
    assert len(pairs) == 6  # two activations with both nodes, two weights with one
    for node in pairs:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_weights_have_a_scale_a_channel_and_activations_one(quantized):
    values = constants(quantized)
    sizes = {n.input[0]: values[n.input[1]].size for n in nodes(quantized, "DequantizeLinear")}
    assert sizes.pop("conv.weight_quantized") == 4
    assert sizes.pop("head.weight_quantized") == 3
    assert set(sizes.values()) == {1}


def test_the_input_scale_is_the_largest_absolute_value_over_127(quantized, samples):
    (first,) = (n for n in nodes(quantized, "QuantizeLinear") if n.input[0] == "input")
    scale = constants(quantized)[first.input[1]]
    assert scale == pytest.approx(np.abs(samples).max() / 127, rel=1e-5)


def test_no_bias_is_quantized_and_none_is_int32(quantized):
    assert not [v for v in constants(quantized).values() if v.dtype == np.int32]
    for kind in ("Conv", "Gemm"):
        (node,) = nodes(quantized, kind)
        assert constants(quantized)[node.input[2]].dtype == np.float32


def test_no_pair_stands_between_a_convolution_and_its_activation(quantized):
    (conv,) = nodes(quantized, "Conv")
    assert {n.op_type for n in quantized.graph.node if conv.output[0] in n.input} == {"Relu"}


def test_equal_inputs_give_equal_bytes(plain, samples):
    assert onnx_qdq.quantize(plain, samples) == onnx_qdq.quantize(plain, samples.copy())


def test_a_zero_point_that_is_not_zero_is_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    replace_constant(quantized, node.input[2], np.array(3, np.int8))
    with pytest.raises(
        ConversionError, match=rf"QuantizeLinear '{node.name}' has the zero point 3"
    ):
        onnx_qdq.check_symmetric(quantized)


def test_a_dropped_zero_point_is_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    del node.input[2]
    with pytest.raises(ConversionError, match=rf"{node.name}' has no zero point, and is uint8 by"):
        onnx_qdq.check_symmetric(quantized)


def test_uint8_activations_are_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    replace_constant(quantized, node.input[2], np.array(0, np.uint8))
    with pytest.raises(ConversionError, match=rf"{node.name}' is uint8, not int8"):
        onnx_qdq.check_symmetric(quantized)


def test_several_scales_for_one_activation_are_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    replace_constant(quantized, node.input[1], np.array([0.1, 0.2], np.float32))
    with pytest.raises(ConversionError, match=rf"{node.name}' gives an activation 2 scales"):
        onnx_qdq.check_symmetric(quantized)


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan])
def test_a_scale_that_is_none_is_named(quantized, scale):
    node = nodes(quantized, "QuantizeLinear")[0]
    replace_constant(quantized, node.input[1], np.array(scale, np.float32))
    with pytest.raises(ConversionError, match=rf"{node.name}' has the scale"):
        onnx_qdq.check_symmetric(quantized)


def test_a_scale_computed_at_run_time_is_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    node.input[1] = "elsewhere"
    with pytest.raises(ConversionError, match=rf"{node.name}' computes its scale or zero point"):
        onnx_qdq.check_symmetric(quantized)


def test_a_quantized_tensor_that_is_used_as_it_is_is_named(quantized):
    node = nodes(quantized, "QuantizeLinear")[0]
    quantized.graph.node.append(helper.make_node("Cast", [node.output[0]], ["raw"], to=1))
    with pytest.raises(ConversionError, match=rf"{node.name}' feeds Cast"):
        onnx_qdq.check_symmetric(quantized)


class _Feed:
    def __init__(self, samples):
        self.samples = iter(samples)

    def get_next(self):
        sample = next(self.samples, None)
        return None if sample is None else {"input": sample[None]}


@pytest.mark.parametrize(
    ("dtype", "options", "words"),
    [
        (QuantType.QUInt8, {"QuantizeBias": False}, r"is uint8, not int8|has the zero point"),
        (QuantType.QInt8, {"QuantizeBias": False}, r"has the zero point -?\d"),
        (QuantType.QInt8, {"ActivationSymmetric": True}, r"bias.* is int32, not int8"),
    ],
    ids=["its default", "int8, not symmetric", "symmetric, with a quantized bias"],
)
def test_what_onnxruntime_writes_by_default_is_refused(
    plain, samples, tmp_path, dtype, options, words
):
    path = tmp_path / "default.onnx"
    quantize_static(
        plain, path, _Feed(samples), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=dtype, weight_type=QuantType.QInt8, extra_options=options,
    )  # fmt: skip
    with pytest.raises(ConversionError, match=words):
        onnx_qdq.check_symmetric(onnx.load(path))


def test_a_net_without_weights_has_nothing_to_quantize(samples, tmp_path):
    sine = helper.make_node("Sin", ["input"], ["output"])
    bare = write(tmp_path / "model.onnx", [sine], {}, output=(1, 8, 8))
    with pytest.raises(ConversionError, match="no operator to quantize; leave it fp32"):
        onnx_qdq.quantize(bare, samples)


def test_ranges_of_other_samples_are_refused_by_the_noise_they_make(plain, samples, tmp_path):
    """Calibrated on almost nothing, every real input saturates."""
    broken = tmp_path / "model.qdq.onnx"
    broken.write_bytes(onnx_qdq.quantize(plain, samples))
    model = onnx.load(broken)
    (node,) = (n for n in nodes(model, "QuantizeLinear") if n.input[0] == "input")
    replace_constant(model, node.input[1], np.array(1e-6, np.float32))
    onnx.save(model, broken)
    reference = tmp_path / "model.onnx"
    reference.write_bytes(plain.read_bytes())
    with pytest.raises(
        ParityError, match=r"int8-static: output 'output' has -?\d.* dB .* 3 is ask"
    ):
        onnx_qdq.quantize(reference, samples)


def test_learned_ranges_beside_the_file_are_taken_as_they_are(plain, samples, tmp_path):
    learned = onnx.load_from_string(onnx_qdq.quantize(plain, samples))
    (node,) = (n for n in nodes(learned, "QuantizeLinear") if n.input[0] == "input")
    scale = np.array(constants(learned)[node.input[1]] * np.float32(1.25))
    replace_constant(learned, node.input[1], scale)
    (tmp_path / "model.onnx").write_bytes(plain.read_bytes())
    onnx.save(learned, tmp_path / candidates.QDQ_NAME)
    found = onnx.load_from_string(onnx_qdq.quantize(tmp_path / "model.onnx", samples))
    assert constants(found)[node.input[1]] == scale


def test_fp16_keeps_float32_inputs_and_outputs(plain, samples):
    model = onnx.load_from_string(onnx_qdq.to_fp16(plain, samples))
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert {value.dtype for value in constants(model).values()} <= {
        np.dtype(np.float16), np.dtype(np.int64)
    }  # fmt: skip
    assert onnx_qdq.to_fp16(plain, samples) == onnx_qdq.to_fp16(plain, samples)


def test_a_value_beyond_float16_is_refused(samples, tmp_path):
    """3e3 squared is above 65504, the largest float16."""
    nodes = [
        helper.make_node("Mul", ["input", "large"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "scaled"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["output"], keepdims=0, axes=[2, 3]),
    ]
    path = write(tmp_path / "model.onnx", nodes, {"large": 3e3}, output=(1,))
    with pytest.raises(ParityError, match="fp16: output 'output' has nan dB"):
        onnx_qdq.to_fp16(path, samples)


def test_several_inputs_are_fed_by_name(tmp_path):
    path = write(
        tmp_path / "model.onnx",
        [
            helper.make_node("MatMul", ["left", "weights"], ["product"]),
            helper.make_node("Add", ["product", "right"], ["output"]),
        ],
        {"weights": np.eye(4) + 0.1},
        inputs=(("left", (4,)), ("right", (4,))),
        output=(4,),
    )
    samples = np.zeros(16, [("left", "f4", (4,)), ("right", "f4", (4,))])
    samples["left"], samples["right"] = np.random.default_rng(0).standard_normal((2, 16, 4))
    model = onnx.load_from_string(onnx_qdq.quantize(path, samples))
    (node,) = nodes(model, "QuantizeLinear")
    expected = np.abs(samples["left"]).max() / 127
    assert constants(model)[node.input[1]] == pytest.approx(expected, rel=1e-5)
