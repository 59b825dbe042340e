"""DS-CNN, the keyword spotting net of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597).

After Zhang et al. 2017 (arXiv:1711.07128). At 1x49x10 and 12 classes: 22,604 parameters with batch
norm folded, 2.66 M multiply-accumulates.
Shapes: N samples, C channels, T frames, F coefficients.
"""

import torch
import torch.nn.functional as F
from torch import nn

NUM_CHANNELS = 64
NUM_BLOCKS = 4


class Block(nn.Module):
    """A 3x3 convolution a channel, then a 1x1 convolution across channels."""

    def __init__(self, num_channels: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.depthwise = nn.Conv2d(
            num_channels, num_channels, 3, padding=1, groups=num_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(num_channels)
        self.pointwise = nn.Conv2d(num_channels, num_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(num_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, T, F] to the same shape."""
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return F.relu(self.pointwise_norm(self.pointwise(x)))


class DSCNN(nn.Module):
    """A 10x4 stem of stride 2, four depthwise separable blocks, average pool, linear head.

    Dropout stands where the reference model has it: a half of ``dropout`` behind the stem, all of
    it before the pool (the reference: 0.2 and 0.4).
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.4) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.stem = nn.Conv2d(in_channels, NUM_CHANNELS, (10, 4), 2, padding=(5, 1), bias=False)
        self.stem_norm = nn.BatchNorm2d(NUM_CHANNELS)
        self.stem_dropout = nn.Dropout(dropout / 2)
        self.blocks = nn.Sequential(*(Block(NUM_CHANNELS) for _ in range(NUM_BLOCKS)))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(NUM_CHANNELS, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features [N, C, T, F] to logits [N, num_classes]."""
        x = self.stem_dropout(F.relu(self.stem_norm(self.stem(x))))
        x = self.dropout(self.blocks(x))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits
