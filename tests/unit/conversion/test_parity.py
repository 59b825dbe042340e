import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pipeline.conversion import parity
from pipeline.errors import ParityError


@pytest.fixture
def pair(make_net, make_variant):
    net, _ = make_net("plain")
    return make_variant("plain", export=True).onnx, net


def change_bias(path, difference):
    """Shift the first output by a known difference."""
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "head.bias"]
    changed = numpy_helper.to_array(bias).copy()
    changed[0] += difference
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    onnx.save(model, path)


def test_faithful_file(pair):
    inputs = np.random.default_rng(0).random((2 * parity.CHUNK + 3, 1, 8, 8), np.float32)
    found = parity.check(*pair, inputs, 1e-5, "dense")
    assert found.max_abs_error < 1e-6
    assert found.top1_agreement_ratio == 1.0


def test_both_numbers_are_in_the_error(pair, samples):
    change_bias(pair[0], 0.25)
    expected = r"dense: ONNX outputs differ from PyTorch's by 0.25, allowed 0.001 \(export"
    with pytest.raises(ParityError, match=expected):
        parity.check(*pair, samples, 0.001, "dense")


def test_difference_is_measured(pair, samples):
    path, net = pair
    change_bias(path, 100.0)
    found = parity.check(path, net, samples, 101.0, "dense")
    assert found.max_abs_error == pytest.approx(100.0)
    first = (net(torch.from_numpy(samples)).argmax(1) == 0).double().mean()
    assert found.top1_agreement_ratio == pytest.approx(float(first))


def test_nan_is_never_parity(pair, samples):
    change_bias(pair[0], np.nan)
    with pytest.raises(ParityError, match=r"differ from PyTorch's by nan, allowed 1e\+30"):
        parity.check(*pair, samples, 1e30, "dense")


def test_one_differing_sample_is_enough(pair, samples):
    path, net = pair
    samples[-1, 0, 0, 0] = np.inf
    with pytest.raises(ParityError, match="by nan"):
        parity.check(path, net, samples, 1.0, "dense")


def test_a_file_written_by_hand_is_judged_as_an_exported_one(tmp_path):
    """No exporter at all: y = 2 x + 3 beside a net that says 2 x + 3.25."""
    weight, bias = np.array([[2.0]], np.float32), np.array([3.0], np.float32)
    shapes = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1])
        for name in ("input", "output")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["input", "weight", "bias"], ["output"])],
        "by hand", shapes[:1], shapes[1:],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "m")
    net = torch.nn.Linear(1, 1)
    net.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias + 0.25)})
    inputs = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    assert parity.check(tmp_path / "m", net, inputs, 0.26, "m").max_abs_error == 0.25
    with pytest.raises(ParityError, match=r"m: ONNX outputs .* by 0\.25, allowed 0\.24"):
        parity.check(tmp_path / "m", net, inputs, 0.24, "m")
