"""From params to an `nn.Module`: a built-in net by name, or the user's own factory.

Initial weights come from torch's global generator, so the caller seeds it first.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pipeline import files, params
from pipeline.errors import NetError
from pipeline.nets import source
from pipeline.nets.resnet8 import ResNet8

NUM_PROBES = 2  # a batch of 1 does not show a net that mixes up its batch axis


def build(cfg: params.Net, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build the net and try one forward pass of zeros.

    Args:
        cfg: a factory is called as ``function(input_shape=..., num_classes=..., **cfg.args)``.
        input_shape: of one sample as the net sees it, without the batch axis.
        num_classes: length of the net's output for one sample.

    Returns:
        The net in training mode, weights fresh. It maps [N, *input_shape] to [N, num_classes].

    Raises:
        InputsError: the factory's source file has other bytes than ``cfg.factory_digest`` pins.
        NetError: the factory cannot be imported, fails, or gives what cannot be used.
    """
    if cfg.factory is None:
        return _built_in(cfg, input_shape, num_classes)
    where = f"net.factory {cfg.factory!r}"
    function = _find(cfg.factory, cfg.factory_digest)
    arguments = {"input_shape": input_shape, "num_classes": num_classes, **cfg.args}
    with _users_code(f"{where} called with {', '.join(arguments)}"):
        net = function(**arguments)
    if not isinstance(net, nn.Module):
        raise NetError(f"{where} returned {type(net).__name__}; it must return a torch.nn.Module")
    _probe(net, where, input_shape, num_classes)
    return net


def _built_in(cfg: params.Net, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    assert cfg.name == "resnet8", cfg  # params allows no other
    if cfg.args:
        raise NetError(
            f"net.args {sorted(cfg.args)} go with net.factory; net.name resnet8 takes none"
        )
    if len(input_shape) != 3:
        raise NetError(
            f"net.name resnet8 takes images of channel, height, width, got shape {input_shape}; "
            "add add_channel and channels_first to data.preprocessing"
        )
    return ResNet8(input_shape[0], num_classes)


def _find(factory: str, digest: str | None) -> Callable[..., Any]:
    """Import the function, after its file was compared with the pin."""
    path = source.find(factory)
    files.check_pin(path, digest, "net.factory", "net.factory_digest")
    name, _, function = factory.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _users_code(f"net.factory {factory!r}: import of {name}"):
            module = importlib.import_module(name)
    finally:
        sys.path.remove(str(Path.cwd()))
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise NetError(
            f"net.factory {factory!r}: another module {name!r} is loaded already; "
            f"rename {path.name}"
        )
    found = getattr(module, function, None)
    if not callable(found):
        raise NetError(
            f"net.factory {factory!r}: {path.name} has no function {function!r}; mend params.yaml"
        )
    return cast("Callable[..., Any]", found)


def _probe(net: nn.Module, where: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse a net that does not map zeros [N, *input_shape] to float32 [N, num_classes]."""
    training = net.training
    with torch.no_grad(), _users_code(f"{where}: a forward pass of shape {input_shape}"):
        outputs = net.eval()(torch.zeros(NUM_PROBES, *input_shape))
    net.train(training)
    expected = (NUM_PROBES, num_classes)
    if not isinstance(outputs, torch.Tensor):
        raise NetError(
            f"{where}: forward returned {type(outputs).__name__}; "
            "it must return one tensor of logits"
        )
    if tuple(outputs.shape) != expected or outputs.dtype != torch.float32:
        raise NetError(
            f"{where}: forward gave {outputs.dtype} {tuple(outputs.shape)} for {NUM_PROBES} "
            f"samples of {input_shape}; it must give torch.float32 {expected}"
        )


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line; the cause keeps its trace."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise NetError(f"{what} failed: {type(error).__name__}: {reason}; mend it") from error
