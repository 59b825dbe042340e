"""A net directory describes itself: ``weights.safetensors`` and ``net.json``, no pickle.

A pruned net's weights do not fit the factory's net, so net.json also holds the pruning history, a
list of [layer, output side, channel indices] which `load` replays on the freshly built net before
it fills it. Same weights and description, same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import nn

from pipeline import files, params
from pipeline.errors import DependencyError, NetError
from pipeline.nets import factory

WEIGHTS_NAME = "weights.safetensors"
DESCRIPTION_NAME = "net.json"
NUM_NAMES_SHOWN = 5

Cut = tuple[str, bool, list[int]]  # layer, True for its outputs, channels removed
History = list[Cut]


class _Description(msgspec.Struct, frozen=True):
    net: params.Net
    input_shape: tuple[int, ...]
    num_classes: int
    pruning_history: History | None


@dataclass(frozen=True, eq=False)
class StoredNet:
    """A net read from disk, in eval mode, with all that `save` needs to write it again."""

    net: nn.Module
    cfg: params.Net
    input_shape: tuple[int, ...]
    num_classes: int
    pruning_history: History | None


def save(
    directory: Path,
    net: nn.Module,
    *,
    cfg: params.Net,
    input_shape: tuple[int, ...],
    num_classes: int,
    pruning_history: Sequence[Any] | None = None,
) -> None:
    """Write the net's two files into the directory, which is made if missing.

    Args:
        directory: may hold other files; the manifest is the caller's.
        net: as `factory.build` makes it from ``cfg``, then pruned by ``pruning_history``.
        cfg: how the net is built.
        input_shape: of one sample, without the batch axis.
        num_classes: length of the output.
        pruning_history: as torch_pruning's ``pruning_history()`` gives it, None for a net as built.
    """
    history = None
    if pruning_history is not None:
        history = [
            (str(layer), bool(output), [int(channel) for channel in channels])
            for layer, output, channels in pruning_history
        ]
    # clones, because safetensors refuses tensors that share memory (tied weights)
    weights = {name: t.detach().cpu().contiguous().clone() for name, t in net.state_dict().items()}
    directory.mkdir(parents=True, exist_ok=True)
    files.write_atomic(directory / WEIGHTS_NAME, safetensors.torch.save(weights))
    description = msgspec.to_builtins(_Description(cfg, input_shape, num_classes, history))
    description["net"] = describe(cfg)
    files.write_atomic(directory / DESCRIPTION_NAME, files.encode_json(description))


def save_like(
    directory: Path, net: nn.Module, stored: StoredNet, pruning_history: Sequence[Any] | None = None
) -> None:
    """Write a net that was made from a stored one: pruned further, or trained again.

    Args:
        directory: as `save` takes it.
        net: what is written.
        stored: tells how it is built.
        pruning_history: how it was pruned, where not as ``stored`` was.
    """
    save(
        directory,
        net,
        cfg=stored.cfg,
        input_shape=stored.input_shape,
        num_classes=stored.num_classes,
        pruning_history=stored.pruning_history if pruning_history is None else pruning_history,
    )


def describe(cfg: params.Net) -> dict[str, Any]:
    """Return how a net is built, as files say it; an ONNX file is never a net of ours."""
    found: dict[str, Any] = msgspec.to_builtins(cfg)
    return {key: value for key, value in found.items() if not key.startswith("onnx")}


def load(directory: Path) -> StoredNet:
    """Rebuild the net of a directory; torch's global generator is left as it was.

    Raises:
        InputsError: the user's factory is no longer the pinned one.
        NetError: a file is missing or malformed, or the weights do not fit the net.
    """
    path = directory / DESCRIPTION_NAME
    try:
        description = msgspec.json.decode(path.read_bytes(), type=_Description)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NetError(f"{path} cannot be read: {error}; restore it (dvc checkout)") from error
    with torch.random.fork_rng(devices=[]):
        net = factory.build(description.net, description.input_shape, description.num_classes)
    if description.pruning_history:
        _replay(net, description, path)
    load_checkpoint(directory / WEIGHTS_NAME, net)
    return StoredNet(
        net=net.eval(),
        cfg=description.net,
        input_shape=description.input_shape,
        num_classes=description.num_classes,
        pruning_history=description.pruning_history,
    )


def load_checkpoint(path: Path, net: nn.Module) -> None:
    """Fill the net, in place, from ``.safetensors``, else from a state dict of `torch.save`.

    Floating-point weights of another precision are converted to the net's. Nothing of a pickle but
    tensors and plain containers is ever loaded.

    Raises:
        NetError: naming the weights that are missing, unexpected, of another shape, or not finite.
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_state_dict
    weights, expected = read(path), net.state_dict()
    problems = [
        *_listed("missing", expected.keys() - weights.keys()),
        *_listed("unexpected", weights.keys() - expected.keys()),
        *_listed(
            "of another shape",
            (
                f"{name} {list(weights[name].shape)} for {list(expected[name].shape)}"
                for name in weights.keys() & expected.keys()
                if weights[name].shape != expected[name].shape
            ),
        ),
        *_listed(
            "with NaN or inf",
            (name for name, weight in weights.items() if not weight.isfinite().all()),
        ),
    ]
    if problems:
        raise NetError(
            f"{path} does not fit the net: {'; '.join(problems)}; "
            "give a checkpoint of the same net and number of classes"
        )
    net.load_state_dict(weights)


def _listed(what: str, names: Any) -> list[str]:
    """Make ``N missing (a, b, ...)``, or nothing when there is none."""
    found = sorted(names)
    dots = ", ..." if len(found) > NUM_NAMES_SHOWN else ""
    return [f"{len(found)} {what} ({', '.join(found[:NUM_NAMES_SHOWN])}{dots})"] if found else []


def _read_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise NetError(f"{path} is not a safetensors file: {error}; restore it") from error


def _read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can raise nearly anything
        # torch's own words advise to load it unsafely; they stay in the cause
        raise NetError(
            f"{path} is not a plain state dict ({type(error).__name__}); write it by "
            "torch.save(net.state_dict(), path), or as .safetensors"
        ) from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(weight, torch.Tensor) for weight in weights.values()
    ):
        keys = sorted(map(str, weights)) if isinstance(weights, Mapping) else []
        shown = ", ".join(keys[:NUM_NAMES_SHOWN]) or f"a {type(weights).__name__}"
        raise NetError(
            f"{path} is not a plain state dict: it holds {shown}; write it by "
            "torch.save(net.state_dict(), path), or as .safetensors"
        )
    return weights


def _replay(net: nn.Module, description: _Description, path: Path) -> None:
    """Remove the channels of the history again, in place."""
    try:
        from torch_pruning import DependencyGraph
    except ImportError as error:
        raise DependencyError("torch-pruning", "build") from error
    example = torch.zeros(1, *description.input_shape)
    try:
        graph = DependencyGraph().build_dependency(net.eval(), (example,))
        graph.load_pruning_history(description.pruning_history)
    except (AttributeError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise NetError(
            f"{path}: the pruning history does not fit the net: {reason}; run prune again"
        ) from error
