"""A small vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929), average-pooled.

The defaults suit images of 32 to 96 pixels. ViT-Ti (Touvron et al. 2020, arXiv:2012.12877, table 1)
is patch 16, dim 192, depth 12, heads 3 at 3x224x224: 5.7 M parameters.
Shapes: N samples, C channels, H height, W width, P patches, D values of a token, S of one head.
"""

import torch
import torch.nn.functional as F
from torch import nn

MLP_RATIO = 4
POSITION_STD = 0.02  # of the initial position embedding, as in the paper's code


class Attention(nn.Module):
    """Self-attention of several heads; queries, keys and values from one linear layer."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [N, P, D] to the same shape."""
        tokens, dim = x.shape[1:]
        parts = self.qkv(x).reshape(-1, tokens, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, P, S]
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: torch.Tensor = self.project(mixed.transpose(1, 2).reshape(-1, tokens, dim))
        return projected


class Block(nn.Module):
    """Attention, then two linear layers with GELU; each behind a layer norm and beside a sum."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build with fresh weights from torch's global generator."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, MLP_RATIO * dim)
        self.contract = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [N, P, D] to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        widened = F.gelu(self.expand(self.mlp_norm(x)))
        summed: torch.Tensor = x + self.contract(widened)
        return summed


class ViT(nn.Module):
    """Patches to tokens, transformer blocks, the mean token, a linear head."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        patch: int = 8,
        dim: int = 96,
        depth: int = 4,
        heads: int = 3,
    ) -> None:
        """Build with fresh weights from torch's global generator.

        Args:
            input_shape: channel, height, width; ``patch`` divides the last two.
            num_classes: length of the output.
            patch: height and width of what becomes one token.
            dim: length of a token, a multiple of ``heads``.
            depth: number of blocks.
            heads: of each attention.
        """
        super().__init__()
        num_channels, height, width = input_shape
        num_patches = (height // patch) * (width // patch)
        self.embed = nn.Conv2d(num_channels, dim, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, num_patches, dim) * POSITION_STD)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits
