"""What a net costs on paper: parameters, multiply-accumulates and bytes, with batch norm folded.

Folding turns conv and batch norm into one conv with a bias, as every converter does for inference,
so these are the figures of what ships, and those that MLPerf Tiny publishes.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.nets import fold

FP32_BYTES = 4


@dataclass(frozen=True)
class Counts:
    """``macs`` are multiply-accumulates a sample (FLOPs / 2), ``size_bytes`` those of float32."""

    parameters: int
    macs: int
    size_bytes: int


def count(net: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """Count the net for one sample of the shape (no batch axis), leaving it as it was.

    Parameters are all of the net's, where a batch norm that reads the output of a convolution or
    linear layer counts as that layer's bias alone. Multiply-accumulates are those of convolutions,
    matrix products and attention; element-wise work and recurrent layers are not counted.
    """
    example = torch.zeros(1, *input_shape)
    training = net.training
    counter = FlopCounterMode(display=False)
    try:
        net.eval()
        folded = fold.pairs(net, example)
        with torch.no_grad(), counter:
            net(example)
    finally:
        net.train(training)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    for name, layer in folded.items():
        norm = net.get_submodule(name)
        parameters -= sum(parameter.numel() for parameter in norm.parameters())
        if net.get_submodule(layer).bias is None:
            parameters += cast("int", norm.num_features)
    macs = counter.get_total_flops() // 2
    return Counts(parameters, macs, parameters * FP32_BYTES)
