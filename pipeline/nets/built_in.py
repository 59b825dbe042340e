"""The nets of our own by name: what shape each takes, and its args with their ranges."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from torch import nn

from pipeline import params
from pipeline.errors import NetError
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.dscnn import DSCNN
from pipeline.nets.mobilenet_v1 import MobileNetV1
from pipeline.nets.resnet8 import ResNet8
from pipeline.nets.vit_tiny import ViT

Positive = Annotated[int, Meta(ge=1)]


class _NoArgs(msgspec.Struct, frozen=True):
    pass


class _DSCNNArgs(msgspec.Struct, frozen=True):
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.4


class _MobileNetV1Args(msgspec.Struct, frozen=True):
    width: Annotated[float, Meta(gt=0, le=4)] = 0.25


class _ViTArgs(msgspec.Struct, frozen=True):
    patch: Positive = 8
    dim: Positive = 96
    depth: Positive = 4
    heads: Positive = 3


ARGS: dict[str, type[msgspec.Struct]] = {
    "resnet8": _NoArgs,
    "dscnn": _DSCNNArgs,
    "mobilenet_v1": _MobileNetV1Args,
    "autoencoder": _NoArgs,
    "vit_tiny": _ViTArgs,
}


def build(cfg: params.Net, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build the net that ``cfg.name`` names, as `factory.build` does.

    Raises:
        NetError: args that the net does not take, or a shape or number of outputs that it cannot.
    """
    assert cfg.name is not None
    args = _args(cfg.name, cfg.args)
    if cfg.name == "autoencoder":
        _check_reconstructs(input_shape, num_classes)
        return Autoencoder(num_classes)
    num_channels, height, width = _image(cfg.name, input_shape)
    if cfg.name == "resnet8":
        return ResNet8(num_channels, num_classes)
    if cfg.name == "dscnn":
        return DSCNN(num_channels, num_classes, **args)
    if cfg.name == "mobilenet_v1":
        return MobileNetV1(num_channels, num_classes, **args)
    assert cfg.name == "vit_tiny", cfg  # params allows no other
    _check_divides(args, height, width)
    return ViT((num_channels, height, width), num_classes, **args)


def _args(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the net's args with defaults filled in, each in its range."""
    fields = {field.name: field for field in msgspec.structs.fields(ARGS[name])}
    unknown = sorted(given.keys() - fields.keys())
    if unknown:
        raise NetError(
            f"net.args {unknown} go with net.factory; net.name {name} takes "
            f"{', '.join(fields) or 'none'}"
        )
    for key, value in given.items():
        _check(f"net.args.{key} of {name}", value, fields[key].type)
    return {**{key: field.default for key, field in fields.items()}, **given}


def _check(what: str, value: Any, kind: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        rule = str(error).removeprefix("Expected ").replace("`", "")
        raise NetError(f"{what} must be {rule}, got {value!r}; mend params.yaml") from error


def _image(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise NetError(
            f"net.name {name} takes images of channel, height, width, got shape {input_shape}; "
            "add add_channel and channels_first to data.preprocessing"
        )
    return input_shape[0], input_shape[1], input_shape[2]


def _check_reconstructs(input_shape: tuple[int, ...], num_outputs: int) -> None:
    num_values = math.prod(input_shape)
    if num_outputs != num_values:
        raise NetError(
            f"net.name autoencoder gives back the {num_values} values of its input {input_shape}, "
            f"the task asks for {num_outputs}; set task.kind anomaly, or take another net"
        )


def _check_divides(args: Mapping[str, int], height: int, width: int) -> None:
    if height % args["patch"] or width % args["patch"]:
        raise NetError(
            f"net.args.patch {args['patch']} of vit_tiny must divide height and width, got "
            f"{height}x{width}; change it, or resize in data.preprocessing"
        )
    if args["dim"] % args["heads"]:
        raise NetError(
            f"net.args.heads {args['heads']} of vit_tiny must divide net.args.dim, got "
            f"{args['dim']}; change one"
        )
