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
