"""What a net costs on paper: parameters, multiply-accumulates and bytes, with batch norm folded.

Folding turns conv and batch norm into one conv with a bias, as every converter does for inference,
so these are the figures of what ships, and those that MLPerf Tiny publishes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

FP32_BYTES = 4
FOLDS_INTO = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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
        folded = _folded(net, example)
        with torch.no_grad(), counter:
            net(example)
    finally:
        net.train(training)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    for norm, layer in folded.items():
        parameters -= sum(parameter.numel() for parameter in norm.parameters())
        parameters += norm.num_features if layer.bias is None else 0
    macs = counter.get_total_flops() // 2
    return Counts(parameters, macs, parameters * FP32_BYTES)


def _folded(net: nn.Module, example: torch.Tensor) -> dict[nn.Module, nn.Module]:
    """Map each batch norm that follows a layer directly to that layer, seen in one forward pass."""
    # tensors are kept, so that no id is given twice
    made: dict[int, tuple[torch.Tensor, nn.Module]] = {}
    found: dict[nn.Module, nn.Module] = {}

    def remember(layer: nn.Module, _: tuple[torch.Tensor], output: torch.Tensor) -> None:
        made[id(output)] = (output, layer)

    def look_up(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if id(inputs[0]) in made:
            found[norm] = made[id(inputs[0])][1]

    handles = [
        *(m.register_forward_hook(remember) for m in net.modules() if isinstance(m, FOLDS_INTO)),
        *(
            m.register_forward_pre_hook(look_up)
            for m in net.modules()
            if isinstance(m, BATCH_NORMS)
        ),
    ]
    try:
        with torch.no_grad():
            net(example)
    finally:
        for handle in handles:
            handle.remove()
    return found
