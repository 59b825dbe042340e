"""Learned ranges: a round trip on disk, and the arithmetic of a net on its grids against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import NetError
from pipeline.nets import on_grids, ranges
from pipeline.nets.ranges import Range

FOUND = (
    Range("conv", 2.0, 0.0, (0.5, 1.25), 1.75),
    Range("head", 3.5, -3.5, (0.25, 0.5, 1.0), 0.75),
)


def test_round_trip_in_the_order_in_which_layers_run(tmp_path):
    ranges.write(tmp_path, FOUND)
    assert ranges.read(tmp_path) == FOUND
    assert (tmp_path / "ranges.json").read_text().index("conv") < (
        tmp_path / "ranges.json"
    ).read_text().index("head")


def test_a_net_that_learned_none_has_none(tmp_path):
    assert ranges.read(tmp_path) is None


@pytest.mark.parametrize("content", ["[{}]", "nonsense", '{"conv": 1}'])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "ranges.json").write_text(content)
    with pytest.raises(NetError, match=r"ranges.json cannot be read: .*dvc checkout"):
        ranges.read(tmp_path)


def rounded(values, amax):
    scale = amax / 127
    return np.clip(np.round(values / scale), -128, 127) * scale


def test_a_linear_layer_is_computed_on_both_grids():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3))
    inputs = 2 * torch.randn(50, 4)
    weight = net[0].weight.detach().numpy()
    amax = np.abs(weight).max(1)
    found = Range("0", 1.5, -1.5, tuple(amax.tolist()), float(np.linalg.norm(weight)))
    with torch.no_grad():
        outputs = on_grids.fake_quantized(net, inputs[:1], [found])(inputs).numpy()
    expected = rounded(inputs.numpy(), 1.5) @ rounded(weight, amax[:, None]).T
    expected += net[0].bias.detach().numpy()
    assert outputs == pytest.approx(expected, abs=1e-5)
    assert np.abs(outputs - net(inputs).detach().numpy()).max() > 0.1  # what lies beyond is clipped


def test_a_batch_norm_is_folded_before_the_weight_is_rounded():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    net(torch.randn(16, 1, 4, 4))
    net.eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([2.0, -0.5]))
        inputs = torch.randn(3, 1, 4, 4)
        plain = net(inputs)
        factor = net[1].weight / torch.sqrt(net[1].running_var + net[1].eps)
        weight = (net[0].weight.flatten() * factor).abs()
        found = Range("0", 4.0, -4.0, tuple(weight.tolist()), float(weight.norm()))
        outputs = on_grids.fake_quantized(net, inputs[:1], [found])(inputs)
    # weights of one value a channel lie on their grid's end: only activations are rounded
    assert (outputs - plain).abs().max() <= 4 / 127 / 2 * weight.max() + 1e-6
    assert not torch.equal(outputs, plain)


WRONG = {
    "no such layer": Range("nose", 1.0, 0.0, (1.0, 1.0), 1.0),
    "another number of channels": Range("0", 1.0, 0.0, (1.0,), 1.0),
    "no layer with weights": Range("1", 1.0, 0.0, (1.0, 1.0), 1.0),
}


@pytest.mark.parametrize("found", WRONG.values(), ids=WRONG)
def test_a_range_of_another_net_is_refused(found):
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(NetError, match=r"has a range of layer .* which the net has not"):
        on_grids.fake_quantized(net, torch.zeros(1, 2), [found])
