"""A net computed on its learned int8 grids, in plain torch: what an int8 file of it should give."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from pipeline.errors import NetError
from pipeline.nets import fold, ranges
from pipeline.nets.ranges import Range

QUANTIZABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # output channels are weight axis 0
Q_MIN, Q_MAX = -128, 127


def fake_quantized(net: nn.Module, example: torch.Tensor, learned: Sequence[Range]) -> nn.Module:
    """Return a copy of the net that computes on the grids, with batch norm folded, in eval mode.

    Raises:
        NetError: a range is of no layer of the net, or of one with another number of channels.
    """
    made = fold.folded(net, example)
    layers = dict(made.named_modules())
    for found in learned:
        layer = layers.get(found.layer)
        if not isinstance(layer, QUANTIZABLE) or len(layer.weight) != len(found.weight_amax):
            raise NetError(
                f"{ranges.FILE_NAME} has a range of layer {found.layer!r} with "
                f"{len(found.weight_amax)} output channels, which the net has not; run quantize "
                "again"
            )
        parent, _, leaf = found.layer.rpartition(".")
        setattr(made.get_submodule(parent), leaf, _OnGrid(layer, found))
    return made.eval()


class _OnGrid(nn.Module):
    """A layer whose input and weight are rounded to their grids."""

    def __init__(self, layer: nn.Module, found: Range) -> None:
        super().__init__()
        self.layer = layer
        scale = torch.tensor(found.weight_amax) / Q_MAX
        self.register_buffer("weight_scale", torch.where(scale > 0, scale, 1.0))
        self.register_buffer("zero_points", torch.zeros(len(scale), dtype=torch.int32))
        self.activation_scale = found.activation_amax / Q_MAX or 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.activation_scale, 0, Q_MIN, Q_MAX)
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.get_parameter("weight"),
            cast("torch.Tensor", self.weight_scale),
            cast("torch.Tensor", self.zero_points),
            0,
            Q_MIN,
            Q_MAX,
        )
        bias = self.layer.bias
        found: torch.Tensor = (
            nn.functional.linear(x, weight, cast("torch.Tensor | None", bias))
            if isinstance(self.layer, nn.Linear)
            else self.layer._conv_forward(x, weight, bias)  # type: ignore[operator]
        )
        return found
