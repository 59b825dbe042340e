"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861), at width 0.25 the vision net of MLPerf Tiny.

At 3x96x96 and 2 classes: 210,850 parameters with batch norm folded, 7.49 M multiply-accumulates.
The 221,794 of the reference model count a bias and all four numbers of batch norm a channel.
Shapes: N samples, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import nn

# of each block at width 1: channels out, stride (arXiv:1704.04861, table 1)
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
STEM_CHANNELS = 32


class Block(nn.Module):
    """A 3x3 convolution a channel, then a 1x1 convolution across channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return F.relu(self.pointwise_norm(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """A 3x3 stem of stride 2, thirteen depthwise separable blocks, average pool, linear head."""

    def __init__(self, in_channels: int, num_classes: int, width: float = 0.25) -> None:
        """Build with fresh weights from torch's global generator; ``width`` scales all channels."""
        super().__init__()
        num_channels = max(1, int(STEM_CHANNELS * width))
        self.stem = nn.Conv2d(in_channels, num_channels, 3, 2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(num_channels)
        blocks = []
        for full_channels, stride in BLOCKS:
            out_channels = max(1, int(full_channels * width))
            blocks.append(Block(num_channels, out_channels, stride))
            num_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(num_channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits
