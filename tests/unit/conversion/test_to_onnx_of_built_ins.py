"""The nets of our own as ONNX: they export, and ONNX Runtime computes what torch does."""

import pytest
import torch

from pipeline import params
from pipeline.conversion import parity
from pipeline.conversion.to_onnx import to_onnx
from pipeline.nets import factory

MAX_ABS_ERROR = 1e-4
NETS = {
    "dscnn": ("dscnn", (1, 49, 10), 12),
    "mobilenet_v1": ("mobilenet_v1", (3, 96, 96), 2),
    "autoencoder": ("autoencoder", (640,), 640),
    "vit_tiny": ("vit_tiny", (3, 32, 32), 4),
}


@pytest.mark.parametrize(("name", "shape", "num_outputs"), NETS.values(), ids=NETS)
def test_parity(name, shape, num_outputs, tmp_path):
    torch.manual_seed(0)
    net = factory.build(params.Net(name=name), shape, num_outputs)
    net(torch.randn(8, *shape))
    net.eval()
    path = tmp_path / "model.onnx"
    signature = to_onnx(net, torch.zeros(1, *shape), path, 20)
    assert signature.inputs[0].shape == ("batch", *shape)
    assert signature.outputs[0].shape == ("batch", num_outputs)
    samples = torch.randn(5, *shape).numpy()
    found = parity.check(path, net, samples, MAX_ABS_ERROR, name)
    assert found.max_abs_error <= MAX_ABS_ERROR
