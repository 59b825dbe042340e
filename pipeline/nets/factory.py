"""From params to an `nn.Module`: a built-in net by name, or the user's own factory.

Initial weights come from torch's global generator, so the caller seeds it first.
"""

import torch
from torch import nn

from pipeline import params, users_code
from pipeline.errors import NetError
from pipeline.nets import built_in

NUM_PROBES = 2  # a batch of 1 does not show a net that mixes up its batch axis


def build(cfg: params.Net, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build the net and try one forward pass of zeros.

    Args:
        cfg: a factory is called as ``function(input_shape=..., num_classes=..., **cfg.args)``.
        input_shape: of one sample as the net sees it, without the batch axis.
        num_classes: length of the net's output for one sample, whatever the task makes of it.

    Returns:
        The net in training mode, weights fresh. It maps [N, *input_shape] to [N, num_classes].

    Raises:
        InputsError: the factory's source file has other bytes than ``cfg.factory_digest`` pins.
        NetError: the factory cannot be imported, fails, or gives what cannot be used.
    """
    if cfg.factory is None:
        return built_in.build(cfg, input_shape, num_classes)
    where = f"net.factory {cfg.factory!r}"
    function = users_code.load("net.factory", cfg.factory, cfg.factory_digest, NetError)
    arguments = {"input_shape": input_shape, "num_classes": num_classes, **cfg.args}
    with users_code.running(f"{where} called with {', '.join(arguments)}", NetError):
        net = function(**arguments)
    if not isinstance(net, nn.Module):
        raise NetError(f"{where} returned {type(net).__name__}; it must return a torch.nn.Module")
    _probe(net, where, input_shape, num_classes)
    return net


def _probe(net: nn.Module, where: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse a net that does not map zeros [N, *input_shape] to float32 [N, num_classes]."""
    training = net.training
    what = f"{where}: a forward pass of shape {input_shape}"
    with torch.no_grad(), users_code.running(what, NetError):
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
