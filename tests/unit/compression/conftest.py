import pytest
import torch
from torch import nn

SHAPE = (1, 6, 6)
NUM_CLASSES = 3


class Residual(nn.Module):
    """Two coupled convolutions, one free one between them, and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 32, 3, padding=1)
        self.outer = nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16 * 9, NUM_CLASSES)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture
def residual():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Residual()
        net(torch.randn(16, *SHAPE))  # batch norm has seen data
    return net.eval()


@pytest.fixture
def example():
    return torch.zeros(1, *SHAPE)


@pytest.fixture
def images():
    return torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(1))
