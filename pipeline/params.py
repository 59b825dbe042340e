"""One typed struct a section of params.yaml; unknown keys and values out of range are refused.

A recipe names, for each step of the fixed order prune, factorize, distill, quantize, ``skip`` or
one of the settings in that step's section, so that DVC sees which step a change concerns.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline import strict_yaml
from pipeline.errors import ParamsError

FILE_NAME = "params.yaml"
SKIP = "skip"
# Steps run in this order, because each reads what the one before learned (ADR 0003).
STEPS = ("prune", "factorize", "distill", "quantize")
TARGET_ID = re.compile(r"[a-z0-9][a-z0-9-]*")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
DIGEST = r"^sha256:[0-9a-f]{64}$"

Converter = Literal["to_onnxruntime", "to_litert"]
Runtime = Literal["onnxruntime", "litert", "tflite_runtime"]
Precision = Literal["fp32", "fp16-weights", "int8-dynamic", "int8-static"]
Evidence = Literal["measured", "emulated", "estimated", "built"]

# The closed tables of what goes with what.
PRECISIONS: dict[Converter, tuple[Precision, ...]] = {
    "to_onnxruntime": ("fp32", "int8-dynamic", "int8-static"),
    "to_litert": ("fp32", "fp16-weights", "int8-dynamic", "int8-static"),
}
RUNTIMES: dict[Converter, tuple[Runtime, ...]] = {
    "to_onnxruntime": ("onnxruntime",),
    "to_litert": ("litert", "tflite_runtime"),
}
ENVIRONMENTS: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("build",),
    "litert": ("build",),
    "tflite_runtime": ("device-tflite",),
}

Positive = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Ratio = Annotated[float, Meta(ge=0, lt=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Digest = Annotated[str, Meta(pattern=DIGEST)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every section refuses keys that it does not know: a typo costs a training run."""


class Scale(_Section, frozen=True, kw_only=True, tag="scale", tag_field="step"):
    """Multiply by ``factor`` as float32."""

    factor: float


class Normalize(_Section, frozen=True, kw_only=True, tag="normalize", tag_field="step"):
    """Subtract ``mean``, divide by ``std``: one value, or one for each channel (the last axis)."""

    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]


class Resize(_Section, frozen=True, kw_only=True, tag="resize", tag_field="step"):
    """Resize height and width (raw axes 0 and 1 of a sample) bilinearly, half-pixel centres."""

    height: Positive
    width: Positive


class AddChannel(_Section, frozen=True, kw_only=True, tag="add_channel", tag_field="step"):
    """Append a channel axis of size one to each sample."""


class ChannelsFirst(_Section, frozen=True, kw_only=True, tag="channels_first", tag_field="step"):
    """Turn height, width, channel into channel, height, width."""


Step = Scale | Normalize | Resize | AddChannel | ChannelsFirst


class Data(_Section, frozen=True, kw_only=True):
    """Where samples come from and how they are split by ratio; test is what is left."""

    source: Literal["digits", "npz"]
    path: str | None = None
    digest: Digest | None = None
    labels: tuple[str, ...] = ()
    seed: Seed
    train_ratio: Annotated[float, Meta(gt=0, lt=1)]
    validation_ratio: Annotated[float, Meta(gt=0, lt=1)]
    num_calibration: Positive
    preprocessing: tuple[Step, ...] = ()


class Task(_Section, frozen=True, kw_only=True):
    """What the net is for and by what it is judged."""

    kind: Literal["classification"]
    metric: Literal["accuracy"]


class Net(_Section, frozen=True, kw_only=True):
    """A built-in net by name, or the user's own ``factory: package.module:function``."""

    name: Literal["resnet8"] | None = None
    factory: Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")] | None = None
    factory_digest: Digest | None = None
    args: dict[str, Any] = {}


class Training(_Section, frozen=True, kw_only=True):
    """One run of the training loop: the teacher's, or a recovery's."""

    epochs: Positive
    global_batch_size: Positive
    optimizer: Literal["adamw", "sgd"]
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Meta(ge=0)]
    warmup_ratio: Ratio
    label_smoothing: Ratio
    patience: Positive


class Train(Training, frozen=True, kw_only=True):
    """The teacher. ``checkpoint`` (safetensors, or a state dict) skips training."""

    seed: Seed
    checkpoint: str | None = None
    checkpoint_digest: Digest | None = None


class Prune(_Section, frozen=True, kw_only=True):
    """Remove ``ratio`` of the channels of each group, keeping a multiple of ``round_to``."""

    ratio: Ratio
    round_to: Positive
    criterion: Literal["magnitude", "taylor"]
    ignored_layers: tuple[str, ...] = ()


class Distill(Training, frozen=True, kw_only=True):
    """Recover by the teacher: loss = alpha T^2 KL + (1 - alpha) CE (arXiv:1503.02531)."""

    seed: Seed
    temperature: PositiveFloat
    alpha: Annotated[float, Meta(ge=0, le=1)]


class Quantize(_Section, frozen=True, kw_only=True):
    """What the sensitivity of a layer is measured with."""

    bits: Annotated[int, Meta(ge=2, le=8)]
    num_samples: Positive


class Export(_Section, frozen=True, kw_only=True):
    """ONNX export and its parity gate."""

    opset: Annotated[int, Meta(ge=18, le=23)]
    max_abs_error: PositiveFloat


class Recipe(_Section, frozen=True, kw_only=True):
    """One variant: for each step ``skip`` or the name of settings in that step's section."""

    prune: str
    factorize: Literal["skip"]
    distill: str
    quantize: str


class Convert(_Section, frozen=True, kw_only=True):
    """Which precisions a converter tries. ``activation_dtype`` None takes the converter's own."""

    precisions: tuple[Precision, ...]
    activation_dtype: Literal["uint8", "int8"] | None = None
    num_calibration: Positive = 128


class Profile(_Section, frozen=True, kw_only=True):
    """How a target is measured. ``environment`` names one of the project's virtual environments."""

    preset: Literal["quick"] = "quick"
    num_threads: Positive = 1
    environment: Literal["build", "device-tflite"] = "build"


class Select(_Section, frozen=True, kw_only=True):
    """The budget a candidate must meet, and what is minimized among those that do.

    ``max_quality_drop`` is in the metric's unit (points for accuracy) and judged by the upper bound
    of the paired 95 % interval. ``accept`` is the weakest evidence that may ship.
    """

    objective: Literal["latency", "size"] = "latency"
    accept: Evidence = "measured"
    max_quality_drop: Annotated[float, Meta(ge=0)] = 2.0
    max_latency_ms: PositiveFloat | None = None
    max_size_bytes: Positive | None = None


class Target(_Section, frozen=True, kw_only=True):
    """Hardware with the runtime it will use. ``required`` fails the build if it cannot ship."""

    converter: Converter
    runtime: Runtime
    required: bool = False
    convert: Convert
    profile: Profile
    select: Select


class Params(_Section, frozen=True, kw_only=True):
    """All of params.yaml."""

    model: str
    data: Data
    task: Task
    net: Net
    train: Train
    prune: dict[str, Prune]
    distill: dict[str, Distill]
    quantize: dict[str, Quantize]
    export: Export
    recipes: dict[str, Recipe]
    targets: dict[str, Target]


def load(path: Path = Path(FILE_NAME)) -> Params:
    """Read params.yaml.

    Raises:
        ParamsError: naming the first problem; `parse` lists them all.
    """
    params, problems = parse(path)
    if params is None or problems:
        raise ParamsError(problems[0])
    return params


def parse(path: Path) -> tuple[Params | None, list[str]]:
    """Read params.yaml as ``(params or None, every problem at once, one line each)``."""
    document = strict_yaml.read(path)
    problems = document.problems(Params)
    if problems:
        return None, problems
    params = msgspec.convert(document.value, Params)
    rules = (_names, _splits, _sources, _recipes, _references, _targets)
    return params, [document.locate(*found) for rule in rules for found in rule(params)]


# A rule says what one field says of another: each problem as (key, what).
Problems = Iterator[tuple[tuple[str, ...], str]]


def _names(params: Params) -> Problems:
    if not NAME.fullmatch(params.model):
        yield ("model",), f"model must match {NAME.pattern}, got {params.model!r}"
    for section in ("prune", "distill", "quantize", "recipes"):
        for name in getattr(params, section):
            if name == SKIP or not NAME.fullmatch(name):
                rule = f"must match {NAME.pattern} and not be {SKIP}, got {name!r}"
                yield (section, name), f"{section}: a name {rule}"
    if not params.targets:
        yield ("targets",), "targets must name at least one target, got none"
    for name in params.targets:
        if not TARGET_ID.fullmatch(name):
            yield ("targets", name), f"targets: an id must match {TARGET_ID.pattern}, got {name!r}"


def _splits(params: Params) -> Problems:
    total = params.data.train_ratio + params.data.validation_ratio
    if total >= 1:
        what = "data.train_ratio + data.validation_ratio must be below 1 to leave a test split"
        yield ("data", "validation_ratio"), f"{what}, got {total:g}"


def _sources(params: Params) -> Problems:
    data, net, train = params.data, params.net, params.train
    if (data.source == "npz") != (data.path is not None):
        what = "data.path goes with data.source npz and only with it"
        yield ("data", "path"), f"{what}, got {data.source} and {data.path!r}"
    if (net.name is None) == (net.factory is None):
        yield ("net",), f"net needs one of name and factory, got {net.name!r} and {net.factory!r}"
    for section, key, source, digest in (
        ("data", "digest", data.path, data.digest),
        ("train", "checkpoint_digest", train.checkpoint, train.checkpoint_digest),
        ("net", "factory_digest", net.factory, net.factory_digest),
    ):
        if source is not None and digest is None:
            yield (section, key), f"{section}.{key} must pin {source}; run slipway inputs lock"


def _recipes(params: Params) -> Problems:
    for name, settings in params.quantize.items():
        if settings.num_samples > params.data.num_calibration:
            what = f"must be at most data.num_calibration {params.data.num_calibration}"
            key = ("quantize", name, "num_samples")
            yield key, f"{'.'.join(key)} {what}, got {settings.num_samples}"
    for name, recipe in params.recipes.items():
        for step in STEPS:
            chosen, known = getattr(recipe, step), getattr(params, step, {})
            if chosen != SKIP and chosen not in known:
                allowed = ", ".join([SKIP, *known])
                key = ("recipes", name, step)
                yield key, f"{'.'.join(key)} must be one of {allowed}, got {chosen!r}"


def _references(params: Params) -> Problems:
    found = reference_recipes(params)
    if len(found) != 1:
        what = "recipes needs exactly one that skips prune and distill, as the reference"
        yield ("recipes",), f"{what}, got {', '.join(found) or 'none'}"


def _targets(params: Params) -> Problems:
    for name, target in params.targets.items():
        at = ("targets", name)
        where = ".".join(at)
        makes = PRECISIONS[target.converter]
        for precision in target.convert.precisions:
            if precision not in makes:
                what = f"{target.converter} makes {', '.join(makes)}, got {precision}"
                yield (*at, "convert", "precisions"), f"{where}.convert.precisions: {what}"
        if len(set(target.convert.precisions)) < len(target.convert.precisions):
            what = f"names one twice, got {list(target.convert.precisions)}"
            yield (*at, "convert", "precisions"), f"{where}.convert.precisions {what}"
        if target.convert.num_calibration > params.data.num_calibration:
            what = f"must be at most data.num_calibration {params.data.num_calibration}"
            got = f"got {target.convert.num_calibration}"
            yield (*at, "convert"), f"{where}.convert.num_calibration {what}, {got}"
        if "fp32" not in target.convert.precisions:
            what = f"must hold fp32, the reference, got {list(target.convert.precisions)}"
            yield (*at, "convert", "precisions"), f"{where}.convert.precisions {what}"
        if target.runtime not in RUNTIMES[target.converter]:
            readers = ", ".join(RUNTIMES[target.converter])
            what = f"files of {target.converter} run in {readers}, got {target.runtime}"
            yield (*at, "runtime"), f"{where}.runtime: {what}"
        environments = ENVIRONMENTS[target.runtime]
        if target.profile.environment not in environments:
            what = f"{target.runtime} is in {', '.join(environments)}"
            got = f"got {target.profile.environment}"
            yield (*at, "profile", "environment"), f"{where}.profile.environment: {what}, {got}"
        if target.converter == "to_litert" and target.convert.activation_dtype == "uint8":
            what = "LiteRT kernels take int8, got uint8"
            yield (*at, "convert", "activation_dtype"), f"{where}.convert.activation_dtype: {what}"


def reference_recipes(params: Params) -> list[str]:
    """Return the recipes that skip both prune and distill; the one reference in a valid file."""
    return [name for name, r in params.recipes.items() if r.prune == r.distill == SKIP]


def reference_candidate(params: Params) -> str:
    """Return the id of the candidate that all others are compared with: the plain net in fp32."""
    return f"{reference_recipes(params)[0]}-fp32"
