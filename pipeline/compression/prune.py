"""Structured pruning: whole channels leave, and the net that stays is physically smaller.

Layers that share channels (the two sides of an addition, a convolution and its batch norm and its
readers) are pruned together, by the dependency graph of Fang et al. 2023 (arXiv:2301.12900).
"""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline import params
from pipeline.errors import DependencyError, NetError, ParamsError
from pipeline.training.loop import Tensors, batches
from pipeline.training.objective import CLASSIFICATION, Batch, Objective

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
# what shapes that do not fit raise, in torch and in torch-pruning
MISFITS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A smaller copy of a net.

    ``history`` replays it on a fresh net: [layer, True for its outputs, channels removed] in order.
    ``kept_whole`` gives, for each layer that kept all of its outputs, the reason.
    """

    net: nn.Module
    history: list[list[Any]]
    kept_whole: dict[str, str]


def prune(
    net: nn.Module,
    example: torch.Tensor,
    cfg: params.Prune,
    gradients_on: Tensors | None = None,
    objective: Objective = CLASSIFICATION,
) -> Pruned:
    """Remove ``cfg.ratio`` of each group's channels from a copy of the net, least important first.

    A channel's importance is the mean over its group's layers of the sum of w^2 (``magnitude``),
    or of |w dL/dw|, the first-order change of the loss without each weight (``taylor``, Molchanov
    et al. 2019, arXiv:1906.10771). What stays is rounded down to a multiple of ``cfg.round_to``; a
    group that would lose all is kept whole, and so is every layer whose channels are the net's
    output. Ratio 0 changes nothing. Equal weights give equal results.

    Args:
        net: maps [N, ...] to logits [N, K]; left as it is.
        example: one input with its batch axis.
        cfg: how much, by which criterion, and what to leave alone.
        gradients_on: samples for the gradients of ``taylor``; not read for ``magnitude``.
        objective: whose loss those gradients are of.

    Returns:
        The copy, in eval mode, with its history.

    Raises:
        ParamsError: an ignored layer is not in the net.
        NetError: the dependency graph cannot be drawn, or pruning would break the net.
    """
    names = [name for name, module in net.named_modules() if isinstance(module, PRUNABLE)]
    ignored = _asked_to_ignore(cfg, names) | {
        _last_layer(net, example, names): "its outputs are the net's"
    }
    net = copy.deepcopy(net).eval()
    if cfg.criterion == "taylor":
        assert gradients_on is not None
        _add_gradients(net, gradients_on, objective)
    expected = tuple(net(example).shape)
    candidate, history = _shrink(net, example, cfg, ignored, names)
    if _misfit(candidate, example, expected):
        ignored |= _breaking(net, example, cfg, ignored, names, expected)
        candidate, history = _shrink(net, example, cfg, ignored, names)
    if problem := _misfit(candidate, example, expected):
        raise NetError(
            f"pruning breaks the net: {problem}; name its layers in ignored_layers, or skip prune"
        )
    candidate.zero_grad(set_to_none=True)
    kept_whole = _kept_whole(net, candidate, example, cfg, ignored, names)
    return Pruned(candidate, history, kept_whole)


def _asked_to_ignore(cfg: params.Prune, names: list[str]) -> dict[str, str]:
    unknown = sorted(set(cfg.ignored_layers) - set(names))
    if unknown:
        raise ParamsError(
            f"prune ignored_layers {unknown} are no convolution or linear layer of the net; "
            f"it has {', '.join(names)}"
        )
    return dict.fromkeys(cfg.ignored_layers, "named in ignored_layers")


def _last_layer(net: nn.Module, example: torch.Tensor, names: list[str]) -> str:
    """Return the layer that ran last; other layers that reach the output are found by trying."""
    ran: list[str] = []

    def note(name: str, *_: Any) -> None:
        ran.append(name)

    handles = [
        net.get_submodule(name).register_forward_hook(functools.partial(note, name))
        for name in names
    ]
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(example)
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    if not ran:
        raise NetError(
            "the net has no convolution or linear layer to prune; let recipes skip prune"
        )
    return ran[-1]


def _add_gradients(net: nn.Module, samples: Tensors, objective: Objective) -> None:
    """Leave on each weight the gradient of the summed loss over all samples."""
    net.zero_grad(set_to_none=True)
    places = batches(torch.arange(len(samples.labels)))
    pieces = zip(batches(samples.inputs), batches(samples.labels), places, strict=True)
    for batch in map(Batch._make, pieces):
        torch.autograd.backward(objective.loss(net(batch.inputs), batch, reduction="sum"))


def _shrink(
    net: nn.Module,
    example: torch.Tensor,
    cfg: params.Prune,
    ignored: Mapping[str, str],
    names: list[str],
    only: str | None = None,
) -> tuple[nn.Module, list[list[Any]]]:
    """Prune a copy of the net and give it with its history; ``only`` one layer's group, or all."""
    smaller = _copy_with_gradients(net)
    modules = {name: smaller.get_submodule(name) for name in names}
    pruner_kind, importance = _library()[:2]
    try:
        pruner = pruner_kind(
            smaller,
            (example,),  # a bare tensor would first be tried unpacked, without its batch axis
            importance=importance[cfg.criterion](),
            pruning_ratio=cfg.ratio if only is None else 0.0,
            pruning_ratio_dict=None if only is None else {modules[only]: cfg.ratio},
            round_to=cfg.round_to,
            ignored_layers=[modules[name] for name in ignored],
            root_module_types=list(PRUNABLE),
            # the defaults of torch-pruning 1.6.1 are dicts that every pruner of the process shares
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
        )
        pruner.step()
    except MISFITS as error:
        raise NetError(
            f"torch-pruning cannot follow this net: {type(error).__name__}: {error}; "
            "let recipes skip prune, or name the layer in ignored_layers"
        ) from error
    history = [
        [name, bool(output), [int(channel) for channel in channels]]
        for name, output, channels in pruner.pruning_history()
    ]
    return smaller.eval(), history


def _copy_with_gradients(net: nn.Module) -> nn.Module:
    """Copy the net with its gradients, which `copy.deepcopy` leaves behind."""
    smaller = copy.deepcopy(net)
    for parameter, original in zip(smaller.parameters(), net.parameters(), strict=True):
        parameter.requires_grad_(True)  # the graph is drawn from autograd's record
        parameter.grad = None if original.grad is None else original.grad.clone()
    return smaller


def _library() -> tuple[Any, dict[str, Any], Any]:
    """Return torch-pruning's pruner, its importance by criterion, and its graph."""
    try:
        from torch_pruning import BasePruner, DependencyGraph, importance
    except ImportError as error:
        raise DependencyError("torch-pruning", "build") from error
    by_criterion = {
        "magnitude": importance.GroupMagnitudeImportance,
        "taylor": importance.GroupTaylorImportance,
    }
    return BasePruner, by_criterion, DependencyGraph


def _misfit(net: nn.Module, example: torch.Tensor, expected: tuple[int, ...]) -> str | None:
    """Say what is wrong with the net's output, or None."""
    try:
        with torch.no_grad():
            found = tuple(net(example).shape)
    except MISFITS as error:
        return f"{type(error).__name__}: {error}"
    return None if found == expected else f"its output has shape {found}, not {expected}"


def _breaking(
    net: nn.Module,
    example: torch.Tensor,
    cfg: params.Prune,
    ignored: Mapping[str, str],
    names: list[str],
    expected: tuple[int, ...],
) -> dict[str, str]:
    """Prune each layer's group alone and return, with the reason, those that break the net."""
    found = {}
    for name in names:
        if name not in ignored:
            alone, _ = _shrink(net, example, cfg, ignored, names, only=name)
            if problem := _misfit(alone, example, expected):
                found[name] = f"pruning it breaks the net: {problem}"
    return found


def _kept_whole(
    net: nn.Module,
    smaller: nn.Module,
    example: torch.Tensor,
    cfg: params.Prune,
    ignored: Mapping[str, str],
    names: list[str],
) -> dict[str, str]:
    """Explain every layer that has as many outputs as before; nothing to explain at ratio 0."""
    if cfg.ratio == 0:
        return {}
    graph = _library()[2]().build_dependency(_copy_with_gradients(net), (example,), verbose=False)
    whole = [name for name in names if _num_outputs(net, name) == _num_outputs(smaller, name)]
    return {name: _reason(graph, name, _num_outputs(net, name), cfg, ignored) for name in whole}


def _reason(
    graph: Any, name: str, num_outputs: int, cfg: params.Prune, ignored: Mapping[str, str]
) -> str:
    if name in ignored:
        return ignored[name]
    module = graph.model.get_submodule(name)
    if module not in graph.module2node:
        return "it does not take part in the net's output"
    handler = graph.get_pruner_of_module(module).prune_out_channels
    group = graph.get_pruning_group(module, handler, list(range(num_outputs)))
    for dependency, _ in group:
        other = graph._module2name.get(dependency.target.module)
        if other in ignored and graph.is_out_channel_pruning_fn(dependency.handler):
            return f"it shares channels with {other}: {ignored[other]}"
    left = int(num_outputs * (1 - cfg.ratio))
    if left < cfg.round_to:
        return f"{left} of {num_outputs} channels would stay, less than round_to {cfg.round_to}"
    return "torch-pruning refused its group"


def _num_outputs(net: nn.Module, name: str) -> int:
    layer = net.get_submodule(name)
    return int(getattr(layer, "out_channels", None) or getattr(layer, "out_features"))  # noqa: B009
