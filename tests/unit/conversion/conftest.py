"""Tiny nets with operators that one tool or another refuses."""

import sys

import numpy as np
import pytest
import torch

from pipeline import files, manifest, params
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.nets import factory, store

SHAPE, NUM_CLASSES = (1, 8, 8), 3
MODULE = "conversion_nets"
SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """A convolution with batch norm, one operator to choose, a linear head."""

    def __init__(self, channels, classes, middle):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)
        self.middle = middle

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(MIDDLE[self.middle](x).mean((2, 3)))


class Bare(nn.Module):
    """No weight at all: nothing to quantize."""

    def forward(self, x):
        return torch.sin(x.mean((2,)))[:, 0, :3]


MIDDLE = {
    "plain": lambda x: x,
    "sine": torch.sin,  # ai-edge-quantizer has no int8 form
    "sorted": lambda x: torch.sort(x, -1)[0],  # lowers, but LiteRT has no kernel
    "determinant": lambda x: x * torch.det(x)[..., None, None],  # litert-torch has no lowering
    "inverse error": lambda x: torch.erfinv(x / 100),  # ONNX has no such operator
    "fixed batch": lambda x: x.reshape(2, -1, 8, 8),
}


def make(input_shape, num_classes, middle):
    return Bare() if middle == "bare" else Net(input_shape[0], num_classes, middle)
'''


@pytest.fixture(scope="package")
def nets_path(tmp_path_factory):
    """The file of the nets, importable."""
    folder = tmp_path_factory.mktemp("nets")
    path = folder / f"{MODULE}.py"
    path.write_text(SOURCE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield path
    sys.path.remove(str(folder))


@pytest.fixture
def make_net(nets_path):
    """Build the net with the operator asked for, in eval mode, with its cfg."""

    def make(middle):
        digest = files.digest_file(nets_path)
        cfg = params.Net(factory=f"{MODULE}:make", factory_digest=digest, args={"middle": middle})
        torch.manual_seed(0)
        net = factory.build(cfg, SHAPE, NUM_CLASSES)
        net(torch.randn(2, *SHAPE))
        return net.eval(), cfg

    return make


@pytest.fixture(scope="package")
def exports():
    """Exported bytes by operator: an export takes two seconds."""
    return {}


@pytest.fixture
def make_variant(make_net, exports, tmp_path):
    """Store the net, and export it too if ONNX can hold it."""

    def make(middle, *, export=False):
        net, cfg = make_net(middle)
        folder = tmp_path / middle.replace(" ", "-")
        store.save(folder / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=NUM_CLASSES)
        path = folder / "onnx" / "model.onnx"
        path.parent.mkdir()
        if export and middle not in exports:
            to_onnx(net, torch.zeros(1, *SHAPE), path, 20)
            exports[middle] = path.read_bytes()
        if export:
            path.write_bytes(exports[middle])
        return Variant(
            middle, path, folder / "net", manifest.write(path.parent, model="tiny", stage="export")
        )

    return make


@pytest.fixture
def samples():
    return np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)
