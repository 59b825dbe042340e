"""How much each layer suffers from integers: fake-quantize one at a time and watch the output.

Shapes: N samples, K outputs, O output channels of a layer, X its other weight axes flattened.
"""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.errors import NetError, ParamsError
from pipeline.nets.on_grids import QUANTIZABLE
from pipeline.training.loop import batches
from pipeline.training.objective import CLASSIFICATION, Objective
from pipeline.training.streaming import Inputs

# Activations stay at 8 bits whatever the weights have: no runtime we convert for has fewer.
ACTIVATION_BITS = 8


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer alone in integers.

    ``sqnr_db`` is that of the net's outputs against the float net's, None when they are equal;
    ``top1_agreement`` the share of samples with the float net's class, 0 to 1, None where outputs
    are no classes; ``activation_min`` and ``activation_max`` the range of the layer's input over
    the samples.
    """

    layer: str
    sqnr_db: float | None
    top1_agreement: float | None
    weight_bits: int
    activation_min: float
    activation_max: float


@dataclass(frozen=True)
class _Range:
    low: float
    high: float


def sensitivity(
    net: nn.Module,
    inputs: Inputs,
    cfg: params.Quantize,
    objective: Objective = CLASSIFICATION,
) -> tuple[LayerSensitivity, ...]:
    """Score every convolution and linear layer that runs, the most sensitive first.

    Weights are quantized per channel and symmetric, the layer's input per tensor and asymmetric
    with its min-max range. Batch norm need not be folded first: it multiplies a whole output
    channel, and a per-channel scale takes that factor up exactly.

    Args:
        net: maps [N, ...] to outputs [N, K], in eval mode; left as it is.
        inputs: the calibration set; the first ``cfg.num_samples`` are used.
        cfg: bits of the weights, and how many samples.
        objective: tells whether the outputs are classes.

    Raises:
        ParamsError: the calibration set is smaller than ``cfg.num_samples``.
        NetError: a weight or an activation is not finite.
    """
    if len(inputs) < cfg.num_samples:
        raise ParamsError(
            f"quantize num_samples is {cfg.num_samples}, but the calibration set has {len(inputs)} "
            "samples; lower it, or raise data.num_calibration"
        )
    net = copy.deepcopy(net).eval()
    chosen = inputs[: cfg.num_samples]
    reference, ranges = _observe(net, chosen)
    if not ranges:
        raise NetError(
            "the net has no convolution or linear layer to quantize; let recipes skip quantize"
        )
    scores = []
    for name, found in ranges.items():
        with _quantized(net.get_submodule(name), found, cfg.bits):
            outputs = _run(net, chosen)
        same = (outputs.argmax(1) == reference.argmax(1)).mean()
        agreement = float(same) if objective.has_classes else None
        scores.append(
            LayerSensitivity(
                name, sqnr_db(reference, outputs), agreement, cfg.bits, found.low, found.high
            )
        )
    return tuple(sorted(scores, key=lambda s: np.inf if s.sqnr_db is None else s.sqnr_db))


def fake_quantize_weight(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round weights [O, ...] to a grid of their own a channel: r = S q, |q| <= 2^(bits - 1) - 1.

    Jacob et al. 2018 (arXiv:1712.05877, eq. 1) with zero-point 0. No weight moves by more than
    half its channel's scale.
    """
    q_max = 2 ** (bits - 1) - 1  # the grid is symmetric: -2^(bits - 1) is never used
    weight_OX = weight.detach().flatten(1)
    amax_O = weight_OX.abs().amax(1)
    scale_O = torch.where(amax_O > 0, amax_O / q_max, 1.0)[:, None]
    return (torch.round(weight_OX / scale_O) * scale_O).reshape(weight.shape)


def fake_quantize_activation(activation: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Round to 2^8 values over [low, high], widened to hold 0 exactly; clamp what is outside."""
    q_max = 2**ACTIVATION_BITS - 1
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / q_max or 1.0
    zero_point = round(-low / scale)
    q = torch.round(activation / scale + zero_point).clamp(0, q_max)
    return (q - zero_point) * scale


def sqnr_db(reference_NK: NDArray[np.float32], outputs_NK: NDArray[np.float32]) -> float | None:
    """Return 10 log10(sum r^2 / sum (r - o)^2), None when the two are equal."""
    noise = float(np.square(reference_NK.astype(np.float64) - outputs_NK).sum())
    signal = float(np.square(reference_NK.astype(np.float64)).sum())
    if noise == 0:
        return None
    # a reference of zeros has no signal: as bad as float64 can say without leaving JSON
    return 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))


def _run(net: nn.Module, inputs: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        outputs: NDArray[np.float32] = torch.cat([net(batch) for batch in batches(inputs)]).numpy()
    return outputs


def _observe(net: nn.Module, inputs: torch.Tensor) -> tuple[NDArray[np.float32], dict[str, _Range]]:
    """Run the float net; return its outputs and each layer's input range, in the net's order."""
    ranges: dict[str, _Range] = {}

    def watch(name: str, layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        low, high = (value.item() for value in torch.aminmax(arguments[0]))
        weight = layer.get_parameter("weight")
        if not np.isfinite([low, high]).all() or not weight.isfinite().all():
            raise NetError(
                f"layer {name} has NaN or inf in its weight or input; train the net again"
            )
        seen = ranges.get(name, _Range(low, high))
        ranges[name] = _Range(min(seen.low, low), max(seen.high, high))

    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, QUANTIZABLE)]
    handles = [m.register_forward_pre_hook(functools.partial(watch, name)) for name, m in layers]
    try:
        outputs = _run(net, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, {name: ranges[name] for name, _ in layers if name in ranges}


@contextmanager
def _quantized(layer: nn.Module, found: _Range, bits: int) -> Iterator[None]:
    """Put one layer's weight and input on their grids inside the block."""

    def quantize_input(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        first, *rest = arguments
        return (fake_quantize_activation(first, found.low, found.high), *rest)

    handle = layer.register_forward_pre_hook(quantize_input)
    weight = layer.get_parameter("weight")
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(fake_quantize_weight(weight, bits))
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)
        handle.remove()
