"""The dense autoencoder of MLPerf Tiny's anomaly detection (Banbury et al. 2021, arXiv:2106.07597).

At 640 inputs: 265,864 parameters with batch norm folded, 0.264 M multiply-accumulates.
Shapes: N samples, D values of a flattened sample.
"""

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN = 128
BOTTLENECK = 8
WIDTHS = (*(HIDDEN,) * 4, BOTTLENECK, *(HIDDEN,) * 4)


class Layer(nn.Module):
    """Linear, batch norm, ReLU."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.BatchNorm1d(out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, in_features] to [N, out_features]."""
        return F.relu(self.norm(self.linear(x)))


class Autoencoder(nn.Module):
    """Four layers of 128, one of 8, four of 128, and a linear layer back to the input's size."""

    def __init__(self, num_features: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        into = (num_features, *WIDTHS[:-1])
        self.layers = nn.Sequential(*map(Layer, into, WIDTHS))
        self.head = nn.Linear(WIDTHS[-1], num_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map samples [N, ...] of D values to their reconstruction [N, D]."""
        reconstruction: torch.Tensor = self.head(self.layers(x.flatten(1)))
        return reconstruction
