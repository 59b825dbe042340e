import pytest
import torch
from torch import nn

from pipeline import params
from pipeline.training.loop import Tensors


@pytest.fixture
def settings():
    def make(**changes):
        usual = {
            "epochs": 8,
            "global_batch_size": 16,
            "optimizer": "adamw",
            "learning_rate": 0.05,
            "weight_decay": 0.0001,
            "warmup_ratio": 0.1,
            "label_smoothing": 0.0,
            "patience": 8,
        }
        return params.Training(**{**usual, **changes})

    return make


@pytest.fixture
def clouds():
    """Three well separated clouds of points in the plane, 90 for train and 45 for validation."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[4.0, 0.0], [-4.0, 3.0], [0.0, -5.0]])

    def make(num):
        labels = torch.arange(num) % 3
        return Tensors(centres[labels] + torch.randn(num, 2, generator=generator), labels)

    return make(90), make(45)


@pytest.fixture
def make_net():
    """The same small net at every call, with noise of its own."""

    def make():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return nn.Sequential(
                nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
            )

    return make
