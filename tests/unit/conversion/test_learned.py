"""Learned ranges reach a converter's own graph, whatever it calls and turns the tensors."""

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from pipeline import manifest, params
from pipeline.conversion import parity, to_litert, to_onnx_on_grids, to_onnxruntime
from pipeline.conversion.learned import Reader, by_activation
from pipeline.errors import ConversionError, ParityError
from pipeline.nets import fold, on_grids, ranges
from pipeline.nets.ranges import Range

# wider than any sample, so that it cannot come from calibration
INPUT_AMAX, HIDDEN_AMAX = 40.0, 20.0


@pytest.fixture
def learned(make_net):
    """The ranges of net `plain`, as training would write them."""
    net, _ = make_net("plain")
    folded = fold.folded(net, torch.zeros(1, 1, 8, 8))

    def entry(name, amax, lowest):
        weight = folded.get_submodule(name).weight.detach()
        of_channels = tuple(weight.flatten(1).abs().amax(1).tolist())
        return Range(name, amax, lowest, of_channels, float(weight.double().norm()))

    return entry("conv", INPUT_AMAX, -INPUT_AMAX), entry("head", HIDDEN_AMAX, 0.0)


@pytest.fixture
def trained(make_variant, learned):
    variant = make_variant("plain", export=True)
    ranges.write(variant.net, learned)
    return variant


def convert(module, variant, samples, out):
    cfg = params.Convert(precisions=("int8-static",), num_calibration=8)
    (outcome,) = module.convert(variant, ["int8-static"], samples, cfg, out)
    assert outcome.status == "built", outcome.reason
    return outcome


def test_onnxruntime_takes_them_for_those_of_the_samples(trained, samples, tmp_path):
    outcome = convert(to_onnxruntime, trained, samples, tmp_path / "out")
    model = onnx.load(outcome.path)
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (gemm,) = (node for node in model.graph.node if node.op_type == "Gemm")
    hidden = gemm.input[0].removesuffix("_DequantizeLinear_Output")
    assert found["input_scale"] == pytest.approx(2 * INPUT_AMAX / 255, rel=1e-6)
    assert found[f"{hidden}_scale"] == pytest.approx(HIDDEN_AMAX / 255, rel=1e-6)
    assert found[f"{hidden}_zero_point"] == 0
    assert outcome.settings["ranges"] == "learned"
    assert outcome.sources["ranges"] == trained.net / "ranges.json"


def test_litert_takes_them_through_what_only_turns_axes(trained, samples, tmp_path):
    outcome = convert(to_litert, trained, samples, tmp_path / "out")
    (given,) = outcome.signature.inputs
    assert given.quantization.scale[0] == pytest.approx(2 * INPUT_AMAX / 255, rel=1e-6)
    assert outcome.settings["ranges"] == "learned"
    assert outcome.sources["ranges"] == trained.net / "ranges.json"
    interpreter = Interpreter(model_path=str(outcome.path))
    scales = {float(t["quantization"][0]) for t in interpreter.get_tensor_details()}
    assert any(scale == pytest.approx(HIDDEN_AMAX / 255, rel=1e-6) for scale in scales)


def test_without_learned_ranges_a_candidate_says_nothing_of_them(make_variant, samples, tmp_path):
    plain = make_variant("plain", export=True)
    outcome = convert(to_onnxruntime, plain, samples, tmp_path / "out")
    assert "ranges" not in {**outcome.settings, **outcome.sources}


def test_a_graph_of_another_net_is_not_built(trained, learned, samples, tmp_path):
    changed = Range(**{**{f: getattr(learned[0], f) for f in learned[0].__struct_fields__},
                       "weight_norm": 2 * learned[0].weight_norm})  # fmt: skip
    ranges.write(trained.net, (changed, learned[1]))
    cfg = params.Convert(precisions=("int8-static",), num_calibration=8)
    (outcome,) = to_onnxruntime.convert(trained, ["int8-static"], samples, cfg, tmp_path / "out")
    assert outcome.status == "not_built"
    assert "the learned range of layer conv fits 0 operators" in outcome.reason


def test_the_widest_range_of_an_activation_with_two_readers_counts():
    first, second = np.full((2, 3), 1.0, np.float32), np.full((2, 3), 2.0, np.float32)
    found = by_activation(
        [
            Range("a", 3.0, 0.0, (1.0, 1.0), float(np.linalg.norm(first))),
            Range("b", 5.0, -1.0, (1.0, 1.0), float(np.linalg.norm(second))),
        ],
        [Reader("x", second.T), Reader("x", first), Reader("y", 3 * first)],
    )
    assert found == {"x": (-1.0, 5.0)}


def test_two_layers_with_equal_weights_are_not_guessed():
    weight = np.ones((2, 3), np.float32)
    entry = Range("a", 3.0, 0.0, (1.0, 1.0), float(np.linalg.norm(weight)))
    with pytest.raises(ConversionError, match="range of layer a fits 2 operators"):
        by_activation([entry], [Reader("x", weight), Reader("y", weight)])


@pytest.fixture
def written(make_net, learned, tmp_path):
    net, _ = make_net("plain")
    rounded = on_grids.fake_quantized(net, torch.zeros(1, 1, 8, 8), learned)
    path = tmp_path / "model.qdq.onnx"
    to_onnx_on_grids.to_onnx_on_grids(rounded, torch.zeros(1, 1, 8, 8), path)
    return path, rounded


def test_the_file_with_pairs_is_symmetric_int8_and_hides_nothing_behind_identities(written):
    model = onnx.load(written[0])
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 4
    assert not {"Identity", "Constant", "BatchNormalization"} & set(kinds)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert held[node.input[2]].dtype == np.int8
            assert not held[node.input[2]].any()
    scales = [held[n.input[1]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert sorted(scale.size for scale in scales) == [1, 1, 3, 4]
    assert min(s for s in scales if s.size == 1) == pytest.approx(HIDDEN_AMAX / 127)
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert axis.dim_param == "batch"


def test_it_computes_what_the_net_computes_on_its_grids(written, samples):
    path, rounded = written
    assert parity.check_rounded(path, rounded, samples, "plain") > parity.MIN_ROUNDED_SQNR_DB


def test_another_net_is_told_apart(written, make_net, samples):
    net, _ = make_net("sine")
    with pytest.raises(ParityError, match="plain: the ONNX file with learned ranges gives outputs"):
        parity.check_rounded(written[0], net, samples, "plain")


def test_same_net_same_bytes_and_nothing_of_the_machine(written, tmp_path):
    path, rounded = written
    again = tmp_path / "again.onnx"
    to_onnx_on_grids.to_onnx_on_grids(rounded, torch.zeros(1, 1, 8, 8), again)
    assert again.read_bytes() == path.read_bytes()
    assert b"site-packages" not in path.read_bytes()
    assert str(manifest.scan(tmp_path)).count("model.qdq.onnx") == 1
