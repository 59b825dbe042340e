import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline import params
from pipeline.compression import quantize
from pipeline.errors import NetError, ParamsError

CFG = params.Quantize(bits=8, num_samples=32)

WEIGHTS = {
    "all zero stays zero": ([0.0, 0.0], 8, [0.0, 0.0]),
    "the ends of the grid are exact": ([-1.0, 1.0], 8, [-1.0, 1.0]),
    "small beside large is rounded to a step": ([2.54, 0.025], 8, [2.54, 0.02]),
    "two bits have three values": ([1.0, 0.4], 2, [1.0, 0.0]),
}


@pytest.mark.parametrize(("channel", "bits", "expected"), WEIGHTS.values(), ids=WEIGHTS)
def test_known_channels(channel, bits, expected):
    found = quantize.fake_quantize_weight(torch.tensor([channel]), bits)
    assert found.tolist() == [pytest.approx(expected, abs=1e-6)]


ACTIVATIONS = {
    "zero is exact in an odd range": ([0.0], -0.37, 1.91, [0.0]),
    "a positive range is widened to zero": ([0.0, 5.1], 2.0, 5.1, [0.0, 5.1]),
    "values are rounded to steps of the scale": ([0.014, 0.016], 0.0, 2.55, [0.01, 0.02]),
    "outside is clamped": ([9.0, -9.0], 0.0, 2.55, [2.55, 0.0]),
    "an empty range at zero": ([0.0], 0.0, 0.0, [0.0]),
}


@pytest.mark.parametrize(
    ("values", "low", "high", "expected"), ACTIVATIONS.values(), ids=ACTIVATIONS
)
def test_known_activations(values, low, high, expected):
    found = quantize.fake_quantize_activation(torch.tensor(values), low, high)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_no_weight_moves_by_more_than_half_its_channels_scale(seed, bits):
    weight = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(seed))
    scale = weight.abs().amax((1, 2), keepdim=True) / (2 ** (bits - 1) - 1)
    moved = (quantize.fake_quantize_weight(weight, bits) - weight).abs()
    assert (moved <= scale * (0.5 + 1e-5)).all()


def test_sqnr_by_hand():
    reference = np.array([[3.0, 4.0]], np.float32)
    noisy = np.array([[3.0, 3.5]], np.float32)
    assert quantize.sqnr_db(reference, noisy) == pytest.approx(20)  # 25 against 0.25
    assert quantize.sqnr_db(reference, reference) is None
    assert quantize.sqnr_db(0 * reference, noisy) < -3000


def grid(values, scale, zero_point, low, high):
    return (np.clip(np.rint(values / scale + zero_point), low, high) - zero_point) * scale


def test_sensitivity_of_every_layer_against_numpy():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((32, 6)).astype(np.float32)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
    weights = [value.detach().numpy().astype(np.float64) for value in net.parameters()]

    def run(quantized):
        x = inputs.astype(np.float64)
        ranges = []
        for layer, (weight, b) in enumerate([weights[:2], weights[2:]]):
            w = weight
            ranges.append((x.min(), x.max()))
            if layer == quantized:
                scale = (max(x.max(), 0) - min(x.min(), 0)) / 255
                x = grid(x, scale, round(-min(x.min(), 0) / scale), 0, 255)
                steps = np.abs(w).max(1, keepdims=True) / 7
                w = grid(w, steps, 0, -7, 7)
            x = x @ w.T + b
            x = np.maximum(x, 0) if layer == 0 else x
        return x, ranges

    reference, ranges = run(None)
    found = quantize.sensitivity(net, torch.tensor(inputs), params.Quantize(bits=4, num_samples=32))
    assert {score.layer for score in found} == {"0", "2"}
    for score in found:
        layer = int(score.layer) // 2
        outputs, _ = run(layer)
        noise, signal = ((reference - outputs) ** 2).sum(), (reference**2).sum()
        assert score.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
        assert score.top1_agreement == (outputs.argmax(1) == reference.argmax(1)).mean()
        assert (score.activation_min, score.activation_max) == pytest.approx(ranges[layer])
        assert score.weight_bits == 4


def test_most_sensitive_comes_first_and_fewer_bits_hurt_every_layer(residual, images):
    eight = quantize.sensitivity(residual, images, CFG)
    three = quantize.sensitivity(residual, images, params.Quantize(bits=3, num_samples=32))
    assert [s.sqnr_db for s in eight] == sorted(s.sqnr_db for s in eight)
    fine, coarse = ({s.layer: s.sqnr_db for s in found} for found in (eight, three))
    assert set(fine) == {"stem", "inner", "outer", "head"}
    assert all(coarse[layer] < fine[layer] for layer in fine)


def test_batch_norm_scale_does_not_matter_per_channel():
    torch.manual_seed(0)
    weight, factor = torch.randn(4, 9), torch.tensor([[0.01], [1.0], [50.0], [3.0]])
    folded = quantize.fake_quantize_weight(weight * factor, 8)
    assert torch.allclose(folded, quantize.fake_quantize_weight(weight, 8) * factor, rtol=1e-5)


def test_the_net_is_left_as_it_was(residual, images):
    before = copy.deepcopy(residual.state_dict())
    outputs = residual(images)
    quantize.sensitivity(residual, images, CFG)
    assert all(torch.equal(before[name], value) for name, value in residual.state_dict().items())
    assert torch.equal(residual(images), outputs)


def test_only_num_samples_are_read(residual, images):
    spiked = images.clone()
    spiked[32:] = 1e6
    found = quantize.sensitivity(residual, spiked, CFG)
    assert found == quantize.sensitivity(residual, images, CFG)


def test_a_layer_that_does_not_run_has_no_score(residual, images):
    residual.spare = nn.Linear(2, 2)
    assert "spare" not in {s.layer for s in quantize.sensitivity(residual, images, CFG)}


def test_too_few_samples_are_refused(residual, images):
    with pytest.raises(
        ParamsError, match="num_samples is 32, but the calibration set has 9 samples"
    ):
        quantize.sensitivity(residual, images[:9], CFG)


def test_a_net_without_layers_is_refused(images):
    with pytest.raises(NetError, match="no convolution or linear layer to quantize"):
        quantize.sensitivity(nn.Flatten(), images, CFG)


def test_weights_that_are_not_finite_are_refused(residual, images):
    with torch.no_grad():
        residual.inner.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NetError, match="layer inner has NaN or inf"):
        quantize.sensitivity(residual, images, CFG)
