"""Batch norm folded into the layer before it, as every converter does for inference."""

import copy
from typing import cast

import torch
from torch import nn

FOLDS_INTO = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def pairs(net: nn.Module, example: torch.Tensor) -> dict[str, str]:
    """Name each batch norm that follows a layer directly, with that layer, from one forward pass.

    The net must be in eval mode, and is left as it was.
    """
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
    names = {module: name for name, module in net.named_modules()}
    return {names[norm]: names[layer] for norm, layer in found.items()}


def factors(norm: nn.Module) -> torch.Tensor:
    """Return what a batch norm multiplies each channel by when it does not learn."""
    variance = cast("torch.Tensor", norm.running_var)
    factor = torch.rsqrt(variance + cast("float", norm.eps))
    return factor if norm.weight is None else factor * norm.get_parameter("weight").detach()


def folded(net: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a copy of the net, in eval mode, with identities in the place of what was folded.

    Up to rounding it computes what the net does. A convolution that is transposed keeps its norm:
    its output channels are not the first axis of its weight.
    """
    net = copy.deepcopy(net).eval()
    for norm_name, layer_name in pairs(net, example).items():
        norm, layer = net.get_submodule(norm_name), net.get_submodule(layer_name)
        if isinstance(layer, nn.ConvTranspose2d):
            continue
        factor, weight = factors(norm), layer.get_parameter("weight")
        bias = -cast("torch.Tensor", norm.running_mean)
        if layer.bias is not None:
            bias = bias + layer.get_parameter("bias").detach()
        bias = bias * factor
        if norm.bias is not None:
            bias = bias + norm.get_parameter("bias").detach()
        with torch.no_grad():
            weight.mul_(factor.reshape(-1, *(1,) * (weight.ndim - 1)))
        layer.register_parameter("bias", nn.Parameter(bias))
        parent, _, leaf = norm_name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, nn.Identity())
    return net
