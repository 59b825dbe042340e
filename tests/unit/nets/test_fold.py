"""Folding: the same function with less in it, and what must not be folded stays."""

import pytest
import torch
from torch import nn

from pipeline import params
from pipeline.nets import factory, fold

TOLERANCE = 1e-5  # float32 in another order of operations


def trained(net, shape):
    """Give batch norms something to fold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net.train()
        for _ in range(5):
            net(2 * torch.randn(16, *shape) + 1)
        for module in net.modules():
            if isinstance(module, fold.BATCH_NORMS) and module.affine:
                nn.init.normal_(module.weight)  # negative factors too
                nn.init.normal_(module.bias)
    return net.eval()


NETS = {
    "dscnn": (factory.build(params.Net(name="dscnn"), (1, 49, 10), 12), (1, 49, 10), 9),
    "autoencoder": (factory.build(params.Net(name="autoencoder"), (20,), 20), (20,), 9),
    "with a bias": (nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), (2, 4, 4), 1),
    "without factors": (
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3, affine=False)),
        (2, 4),
        1,
    ),
}


@pytest.mark.parametrize(("net", "shape", "num_folded"), NETS.values(), ids=NETS)
def test_a_folded_net_computes_the_same_without_its_norms(net, shape, num_folded):
    net = trained(net, shape)
    inputs = torch.randn(8, *shape, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = fold.folded(net, inputs[:1])
    assert sum(isinstance(m, fold.BATCH_NORMS) for m in net.modules()) == num_folded
    assert not any(isinstance(m, fold.BATCH_NORMS) for m in found.modules())
    with torch.no_grad():
        expected = net(inputs)
        assert torch.allclose(found(inputs), expected, atol=TOLERANCE * expected.abs().max())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_norm_that_reads_no_layer_stays():
    net = trained(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.ReLU()), (2, 4, 4))
    found = fold.folded(net, torch.zeros(1, 2, 4, 4))
    assert isinstance(found[0], nn.BatchNorm2d)
    assert fold.pairs(net, torch.zeros(1, 2, 4, 4)) == {}


def test_a_transposed_convolution_keeps_its_norm():
    net = trained(nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3)), (2, 4, 4))
    inputs = torch.randn(2, 2, 4, 4)
    found = fold.folded(net, inputs[:1])
    assert isinstance(found[1], nn.BatchNorm2d)
    with torch.no_grad():
        assert torch.equal(found(inputs), net(inputs))
