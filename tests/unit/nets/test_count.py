"""Counts: published figures, hand-made nets, and that a count changes nothing."""

import pytest
import torch
from torch import nn

from pipeline import params
from pipeline.nets import count, factory
from pipeline.nets.count import Counts

PUBLISHED_TOLERANCE = 0.01  # MLPerf Tiny publishes rounded figures


def test_resnet8_has_the_published_counts():
    # Banbury et al. 2021, arXiv:2106.07597, and its reference model: 78 k parameters, 12.5 M MACs
    found = count.count(factory.build(params.Net(name="resnet8"), (3, 32, 32), 10), (3, 32, 32))
    assert found.parameters == pytest.approx(77_360, rel=PUBLISHED_TOLERANCE)
    assert found.macs == pytest.approx(12_500_000, rel=PUBLISHED_TOLERANCE)
    assert found.parameters == 77_360 + 346  # weights, and one bias a channel of each layer
    assert found.size_bytes == 4 * found.parameters


# MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597) and its reference models, batch norm folded;
# ViT-Ti: Touvron et al. 2020 (arXiv:2012.12877), whose class token is one of ours less.
PUBLISHED = {
    "dscnn": ({"name": "dscnn"}, (1, 49, 10), 12, 22_600, 2_660_000),
    "mobilenet_v1": ({"name": "mobilenet_v1"}, (3, 96, 96), 2, 211_000, 7_490_000),
    "autoencoder": ({"name": "autoencoder"}, (640,), 640, 265_900, 264_000),
    "vit_tiny as ViT-Ti": (
        {"name": "vit_tiny", "args": {"patch": 16, "dim": 192, "depth": 12, "heads": 3}},
        (3, 224, 224),
        1000,
        5_717_000,
        1_070_000_000,
    ),
}


@pytest.mark.parametrize(
    ("settings", "shape", "num_outputs", "parameters", "macs"), PUBLISHED.values(), ids=PUBLISHED
)
def test_built_in_nets_have_the_published_counts(settings, shape, num_outputs, parameters, macs):
    found = count.count(factory.build(params.Net(**settings), shape, num_outputs), shape)
    assert found.parameters == pytest.approx(parameters, rel=PUBLISHED_TOLERANCE)
    assert found.macs == pytest.approx(macs, rel=PUBLISHED_TOLERANCE)


class Twice(nn.Module):
    """One layer used two times: its weights count once, its work twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


class NormOfSum(nn.Module):
    """A batch norm that cannot be folded, because it does not read a layer's output."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.layer(x) + x)


def conv(*arguments, **settings):
    return nn.Conv2d(*arguments, **settings)


KNOWN = {
    "linear with bias": (nn.Linear(4, 3), (4,), 15, 12),
    "linear without bias": (nn.Linear(4, 3, bias=False), (4,), 12, 12),
    "conv, one position an output": (conv(2, 3, 3), (2, 5, 5), 57, 9 * 54),
    "conv with stride": (conv(2, 3, 3, 2, 1, bias=False), (2, 8, 8), 54, 16 * 54),
    "depthwise conv": (conv(4, 4, 3, 1, 1, groups=4, bias=False), (4, 8, 8), 36, 64 * 36),
    "folded norm is a bias": (
        nn.Sequential(conv(2, 3, 1, bias=False), nn.BatchNorm2d(3)),
        (2, 4, 4),
        6 + 3,
        16 * 6,
    ),
    "folded norm uses the bias there is": (
        nn.Sequential(conv(2, 3, 1), nn.BatchNorm2d(3)),
        (2, 4, 4),
        6 + 3,
        16 * 6,
    ),
    "norm before a layer stays": (
        nn.Sequential(nn.BatchNorm2d(2), conv(2, 3, 1, bias=False)),
        (2, 4, 4),
        4 + 6,
        16 * 6,
    ),
    "norm of a sum stays": (NormOfSum(), (2, 4, 4), 4 + 4, 16 * 4),
    "a layer used twice": (Twice(), (4,), 20, 32),
    "no layers": (nn.Flatten(), (2, 3), 0, 0),
}


@pytest.mark.parametrize(("net", "shape", "parameters", "macs"), KNOWN.values(), ids=KNOWN)
def test_known_counts(net, shape, parameters, macs):
    assert count.count(net, shape) == Counts(parameters, macs, 4 * parameters)


def test_counting_changes_nothing(resnet):
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    resnet.train()
    count.count(resnet, (1, 8, 8))
    assert resnet.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())
