"""Quantization-aware training by NVIDIA ModelOpt, with the loss of distillation.

ModelOpt puts int8 grids before every convolution and linear layer and on their weights (activations
one scale a tensor, weights one an output channel, all symmetric), takes the ranges from the
calibration set, and the weights then learn on these grids. What comes out is a plain net and its
ranges (`nets.ranges`), which need no ModelOpt any more.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline import params
from pipeline.compression.distill import Teacher, loss_of
from pipeline.errors import DependencyError, NetError, ParityError
from pipeline.nets import fold, on_grids
from pipeline.nets.on_grids import QUANTIZABLE
from pipeline.nets.ranges import Range
from pipeline.training import loop
from pipeline.training.loop import Tensors, batches
from pipeline.training.objective import Objective

# The plain net and its ranges compute what ModelOpt's net does, up to ties in rounding.
MIN_SQNR_DB = 30.0
NOTHING_TO_QUANTIZE = (
    "the net has no convolution or linear layer that ModelOpt quantizes; leave qat out of the "
    "quantize settings"
)


@dataclass(frozen=True, eq=False)
class Trained:
    """A plain net, in eval mode, with the ranges it learned.

    ``calibrated_quality`` is the figure on validation with ranges alone, before any training; the
    fit's own are on the grids too.
    """

    net: nn.Module
    ranges: tuple[Range, ...]
    fit: loop.Fit
    calibrated_quality: float


def train(
    net: nn.Module,
    calibration: torch.Tensor,
    train_on: Tensors,
    validation: Tensors,
    teacher: Teacher,
    cfg: params.Qat,
    objective: Objective,
    on_epoch: Callable[[loop.Epoch], None] | None = None,
) -> Trained:
    """Train a copy of the net on int8 grids; the epoch is chosen on validation, on the grids.

    Args:
        net: maps [N, ...] to outputs [N, K]; left as it is.
        calibration: inputs [N, ...] that the ranges of activations are taken from (largest
            absolute value).
        train_on: what is learned from.
        validation: what chooses the epoch.
        teacher: gives the outputs to learn from.
        cfg: optimizer, schedule, temperature and alpha.
        objective: of the task.
        on_epoch: called after each epoch.

    Raises:
        DependencyError: ModelOpt is not installed.
        NetError: the net has no layer that ModelOpt quantizes.
        TrainingError: the loss is NaN or inf.
    """
    if not any(isinstance(layer, QUANTIZABLE) for layer in net.modules()):
        raise NetError(NOTHING_TO_QUANTIZE)
    example = calibration[:1]
    with _modelopt() as quantization, loop.deterministic(cfg.seed):
        quantized = copy.deepcopy(net).eval()

        def calibrate(model: nn.Module) -> None:
            with torch.no_grad():
                for batch in batches(calibration):
                    model(batch)

        quantized = quantization.quantize(quantized, quantization.INT8_DEFAULT_CFG, calibrate)
        quantizers = _keep_layers_only(quantized)
        before = loop.evaluate(quantized, validation, objective).quality
        fit = loop.fit(
            quantized,
            train_on,
            validation,
            cfg,
            cfg.seed,
            objective=objective,
            loss=loss_of(cfg, teacher, objective),
            on_epoch=on_epoch,
        )
        plain = _plain(net, quantized, quantizers)
        found = _ranges(plain, quantizers, calibration)
        _check_same(quantized, on_grids.fake_quantized(plain, example, found), validation)
    return Trained(plain, found, fit, before)


@contextlib.contextmanager
def _modelopt() -> Iterator[Any]:
    """Give ModelOpt's quantization, silenced: it prints, logs and warns of other libraries."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            try:
                from modelopt.torch import quantization
            except ImportError as error:
                raise DependencyError("nvidia-modelopt", "qat") from error
            yield quantization
        finally:
            logging.disable(disabled)


def _keep_layers_only(quantized: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Map each layer to its quantizers of input and weight; those of anything else are put out.

    ModelOpt also rounds before poolings, which no runtime of ours does there.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, layer in quantized.named_modules():
        if not hasattr(layer, "input_quantizer"):
            continue
        of_input: Any = layer.input_quantizer
        of_weight: Any = getattr(layer, "weight_quantizer", None)
        is_layer = isinstance(layer, QUANTIZABLE) and of_weight is not None
        if is_layer and of_input.is_enabled and of_weight.is_enabled:
            if of_input.amax is not None:  # None: it never ran
                found[name] = of_input, of_weight
        else:
            for quantizer in filter(None, (of_input, of_weight)):
                quantizer.disable()
    if not found:
        raise NetError(NOTHING_TO_QUANTIZE)
    return found


def _plain(
    net: nn.Module, quantized: nn.Module, quantizers: dict[str, tuple[Any, Any]]
) -> nn.Module:
    """Return a copy of the net with the trained weights, clamped to their grids' ends.

    On the grids this changes nothing; a converter that takes a weight's range from the weight finds
    no wider one than was trained with.
    """
    plain = copy.deepcopy(net)
    trained = quantized.state_dict()
    plain.load_state_dict({name: trained[name] for name in plain.state_dict()})
    with torch.no_grad():
        for name, (_, of_weight) in quantizers.items():
            weight, amax = plain.get_submodule(name).get_parameter("weight"), of_weight.amax
            weight.copy_(torch.minimum(torch.maximum(weight, -amax), amax))
    return plain.eval()


def _ranges(
    plain: nn.Module, quantizers: dict[str, tuple[Any, Any]], calibration: torch.Tensor
) -> tuple[Range, ...]:
    """List the ranges in the order in which layers run, weights with batch norm folded."""
    example = calibration[:1]
    folds = {layer: norm for norm, layer in fold.pairs(plain, example).items()}
    weights = fold.folded(plain, example)
    found = []
    for name, lowest in _lowest_inputs(plain, calibration, set(quantizers)).items():
        of_input, of_weight = quantizers[name]
        amax = float(of_input.amax)
        weight_amax = of_weight.amax.detach().flatten()
        if name in folds:
            weight_amax = weight_amax * fold.factors(plain.get_submodule(folds[name])).abs()
        weight = weights.get_submodule(name).get_parameter("weight").detach()
        found.append(
            Range(
                layer=name,
                activation_amax=amax,
                activation_min=max(min(lowest, 0.0), -amax),
                weight_amax=tuple(weight_amax.tolist()),
                weight_norm=float(weight.double().norm()),
            )
        )
    return tuple(found)


def _lowest_inputs(net: nn.Module, inputs: torch.Tensor, names: set[str]) -> dict[str, float]:
    """Return the smallest input of each layer over the samples, in the order of the first run."""
    lowest: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            lowest[name] = min(lowest.get(name, 0.0), float(arguments[0].min()))

        return hook

    handles = [net.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        loop.outputs(net, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return lowest


def _check_same(quantized: nn.Module, rebuilt: nn.Module, validation: Tensors) -> None:
    """Hold the plain net on its ranges against ModelOpt's net."""
    expected, found = (
        loop.outputs(net, validation.inputs).double() for net in (quantized, rebuilt)
    )
    noise, signal = (expected - found).square().sum(), expected.square().sum()
    sqnr_db = float(10 * torch.log10(signal / noise.clamp(min=1e-300)))
    if sqnr_db < MIN_SQNR_DB:
        raise ParityError(
            f"the net on its learned ranges differs from ModelOpt's: {sqnr_db:.1f} dB, "
            f"{MIN_SQNR_DB:g} are needed; a layer runs behind two batch norms, or twice: let the "
            "recipe skip qat"
        )
