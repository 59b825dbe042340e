"""Pruning reaches the nets of our own: depthwise groups, bottlenecks, transformer blocks."""

import pytest
import torch

from pipeline import params
from pipeline.compression.prune import prune
from pipeline.nets import factory, store
from pipeline.nets.count import count

HALF = params.Prune(ratio=0.5, round_to=4, criterion="magnitude")
# name, args, shape, outputs, most of the MACs that may stay, layers that may stay whole
NETS = {
    "dscnn": ("dscnn", {}, (1, 49, 10), 12, 0.4, {"head"}),
    "mobilenet_v1": ("mobilenet_v1", {}, (3, 32, 32), 2, 0.4, {"head"}),
    "autoencoder": ("autoencoder", {}, (640,), 640, 0.55, {"head"}),
    "vit_tiny": ("vit_tiny", {"depth": 2}, (3, 32, 32), 4, 0.8, None),
}


@pytest.mark.parametrize(
    ("name", "args", "shape", "num_outputs", "most", "whole"), NETS.values(), ids=NETS
)
def test_half_of_the_channels_leave_and_a_directory_replays_it(
    name, args, shape, num_outputs, most, whole, tmp_path
):
    cfg = params.Net(name=name, args=args)
    torch.manual_seed(0)
    net = factory.build(cfg, shape, num_outputs).eval()
    found = prune(net, torch.zeros(1, *shape), HALF)
    before, after = count(net, shape), count(found.net, shape)
    assert after.macs < most * before.macs
    assert after.parameters < before.parameters
    if whole is not None:
        assert set(found.kept_whole) == whole
    store.save(
        tmp_path,
        found.net,
        cfg=cfg,
        input_shape=shape,
        num_classes=num_outputs,
        pruning_history=found.history,
    )
    inputs, replayed = torch.randn(2, *shape), store.load(tmp_path).net
    with torch.no_grad():
        assert torch.equal(replayed(inputs), found.net(inputs))
