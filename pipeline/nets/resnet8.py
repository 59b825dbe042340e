"""ResNet-8, the image classification net of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597).

At 32x32x3 and 10 classes: 77,360 weights and 346 folded biases, 12.5 M multiply-accumulates.
Shapes: N samples, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, a 1x1 convolution where the stride is not 1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            nn.Identity() if stride == 1 else nn.Conv2d(in_channels, out_channels, 1, stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResNet8(nn.Module):
    """Stem, three blocks of 16, 32 and 64 channels, global average pool, linear head."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.block1 = Block(16, 16, stride=1)
        self.block2 = Block(16, 32, stride=2)
        self.block3 = Block(32, 64, stride=2)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = F.relu(self.stem_norm(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits
