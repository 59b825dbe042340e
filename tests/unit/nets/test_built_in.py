"""The nets of our own: what they map, what they take, and one line for what they do not."""

import pytest
import torch

from pipeline import params
from pipeline.errors import NetError
from pipeline.nets import factory, fold, store

NETS = {
    "dscnn": ({"name": "dscnn"}, (1, 49, 10), 12),
    "dscnn of another shape": ({"name": "dscnn", "args": {"dropout": 0.1}}, (2, 20, 7), 3),
    "mobilenet_v1": ({"name": "mobilenet_v1"}, (3, 32, 32), 2),
    "mobilenet_v1, wider": ({"name": "mobilenet_v1", "args": {"width": 0.5}}, (1, 16, 16), 5),
    "autoencoder": ({"name": "autoencoder"}, (640,), 640),
    "autoencoder of an image": ({"name": "autoencoder"}, (1, 4, 5), 20),
    "vit_tiny": ({"name": "vit_tiny"}, (3, 32, 32), 4),
    "vit_tiny, other patches": (
        {"name": "vit_tiny", "args": {"patch": 4, "dim": 32, "depth": 2, "heads": 4}},
        (1, 8, 12),
        4,
    ),
}


def build(settings, shape, num_outputs):
    torch.manual_seed(0)
    return factory.build(params.Net(**settings), shape, num_outputs)


@pytest.mark.parametrize(("settings", "shape", "num_outputs"), NETS.values(), ids=NETS)
def test_each_maps_samples_to_outputs_one_by_one(settings, shape, num_outputs):
    net = build(settings, shape, num_outputs)
    for module in net.modules():  # fresh batch norms let a deep net's signal die out
        if isinstance(module, fold.BATCH_NORMS):
            module.momentum = 1.0
    net(torch.randn(32, *shape))
    net.eval()
    inputs = torch.randn(3, *shape)
    with torch.no_grad():
        outputs = net(inputs)
        alone = torch.cat([net(sample[None]) for sample in inputs])
    assert outputs.shape == (3, num_outputs)
    assert torch.allclose(outputs, alone, atol=1e-4)
    assert len({tuple(row) for row in outputs.tolist()}) == 3  # the input matters


@pytest.mark.parametrize(("settings", "shape", "num_outputs"), NETS.values(), ids=NETS)
def test_each_learns_in_every_layer(settings, shape, num_outputs):
    net = build(settings, shape, num_outputs)
    torch.autograd.backward(net(torch.randn(4, *shape)).square().mean())
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize(("settings", "shape", "num_outputs"), NETS.values(), ids=NETS)
def test_each_comes_back_from_its_directory(settings, shape, num_outputs, tmp_path):
    net = build(settings, shape, num_outputs).eval()
    cfg = params.Net(**settings)
    store.save(tmp_path, net, cfg=cfg, input_shape=shape, num_classes=num_outputs)
    inputs = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(store.load(tmp_path).net(inputs), net(inputs))


VIT, IMAGE = "vit_tiny", (3, 32, 32)
REFUSED = {
    "features without channel": (
        {"name": "dscnn"},
        (49, 10),
        12,
        r"net.name dscnn takes images of channel, height, width, got shape \(49, 10\)",
    ),
    "an image that is flat": ({"name": VIT}, (64,), 2, r"net.name vit_tiny takes images of"),
    "an unknown arg": (
        {"name": "mobilenet_v1", "args": {"alpha": 0.25}},
        IMAGE,
        2,
        r"net.args \['alpha'\] go with net.factory; net.name mobilenet_v1 takes width",
    ),
    "an arg where there is none": (
        {"name": "autoencoder", "args": {"width": 2}},
        (640,),
        640,
        r"net.name autoencoder takes none",
    ),
    "an arg out of range": (
        {"name": "dscnn", "args": {"dropout": 1.0}},
        (1, 49, 10),
        12,
        r"net.args.dropout of dscnn must be float < 1.0, got 1.0; mend params.yaml",
    ),
    "an arg of another type": (
        {"name": VIT, "args": {"depth": "12"}},
        IMAGE,
        2,
        r"net.args.depth of vit_tiny must be int, got str, got '12'",
    ),
    "patches that do not fit": (
        {"name": VIT, "args": {"patch": 5}},
        IMAGE,
        2,
        r"net.args.patch 5 of vit_tiny must divide height and width, got 32x32",
    ),
    "heads that do not fit": (
        {"name": VIT, "args": {"heads": 5}},
        IMAGE,
        2,
        r"net.args.heads 5 of vit_tiny must divide net.args.dim, got 96",
    ),
    "an autoencoder for classes": (
        {"name": "autoencoder"},
        (640,),
        10,
        r"gives back the 640 values of its input \(640,\), the task asks for 10; set task.kind",
    ),
}


@pytest.mark.parametrize(
    ("settings", "shape", "num_outputs", "message"), REFUSED.values(), ids=REFUSED
)
def test_refused_with_one_line(settings, shape, num_outputs, message):
    with pytest.raises(NetError, match=message) as caught:
        build(settings, shape, num_outputs)
    assert "\n" not in str(caught.value)
