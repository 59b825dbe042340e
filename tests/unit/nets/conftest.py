import itertools

import pytest
import torch

from pipeline import files, params
from pipeline.nets import factory

SHAPE = (1, 8, 8)
NUMBERS = (
    itertools.count()
)  # Python keeps imported modules, so each test's factory has its own name


@pytest.fixture
def resnet():
    """A ResNet-8 for 8x8 images and 3 classes whose batch norms have seen data."""
    torch.manual_seed(0)
    cfg = params.Net(name="resnet8")
    net = factory.build(cfg, SHAPE, 3)
    net(torch.randn(8, *SHAPE))
    return net.eval()


@pytest.fixture
def factory_cfg(tmp_path, monkeypatch):
    """Write a factory into the working directory; returns its pinned settings."""
    monkeypatch.chdir(tmp_path)

    def write(body, *, digest=None, **args):
        name = f"users_net_{next(NUMBERS)}"
        path = tmp_path / f"{name}.py"
        path.write_text(f"import torch\nfrom torch import nn\n\n\n{body}\n", encoding="utf-8")
        return params.Net(
            factory=f"{name}:make",
            factory_digest=digest or files.digest_file(path),
            args=args,
        )

    return write
