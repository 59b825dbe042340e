"""One typed struct a section of params.yaml; unknown keys and values out of range are refused.

A recipe names, for each step of the fixed order prune, factorize, distill, quantize, ``skip`` or
one of the settings in that step's section, so that DVC sees which step a change concerns.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline import strict_yaml
from pipeline.compatibility import (
    EMULATED,
    EVIDENCE,
    Converter,
    Environment,
    Evidence,
    Precision,
    Runtime,
)

__all__ = ["Converter", "Environment", "Evidence", "Precision", "Runtime"]

FILE_NAME = "params.yaml"
SKIP = "skip"
# Steps run in this order, because each reads what the one before learned (ADR 0003).
STEPS = ("prune", "factorize", "distill", "quantize")
TARGET_ID = re.compile(r"[a-z0-9][a-z0-9-]*")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
DIGEST = r"^sha256:[0-9a-f]{64}$"

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
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


class Mfcc(_Section, frozen=True, kw_only=True, tag="mfcc", tag_field="step"):
    """Turn a waveform [time] into mel-frequency cepstral coefficients [frame, coefficient].

    As Kaldi computes them (kaldi-native-fbank), without dither, so that equal samples give equal
    coefficients.
    """

    sample_rate_hz: Positive
    num_coefficients: Positive
    num_mel_bins: Positive
    frame_length_ms: PositiveFloat
    frame_shift_ms: PositiveFloat


class Center(_Section, frozen=True, kw_only=True, tag="center", tag_field="step"):
    """Subtract from each sample its own mean along its first axis.

    Of cepstral coefficients that is the mean over time, with which go the microphone and the room
    (cepstral mean normalization).
    """


Step = Scale | Normalize | Resize | AddChannel | ChannelsFirst | Mfcc | Center


class Data(_Section, frozen=True, kw_only=True):
    """Where samples come from and how they are split: by ratio or by speaker; test is what is left.

    ``preprocessing`` is one list of steps, or one for each input of a net that has several.
    ``channels`` is of images: 3 (RGB) or 1 (grey).
    """

    source: Literal["digits", "npz", "fsdd", "image_folder"]
    path: str | None = None
    url: str | None = None
    digest: Digest | None = None
    labels: tuple[str, ...] = ()
    channels: Literal[1, 3] = 3
    seed: Seed
    train_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    validation_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    test_speakers: tuple[str, ...] = ()
    validation_speakers: tuple[str, ...] = ()
    num_calibration: Positive
    preprocessing: tuple[Step, ...] | dict[str, tuple[Step, ...]] = ()


FUNCTION = r"^[\w.]+:\w+$"


class Task(_Section, frozen=True, kw_only=True):
    """What the net is for and by what it is judged.

    ``metric`` is the kind's own (`METRICS`) or the user's ``module:function``, called as
    ``function(outputs, labels) -> float`` with arrays [N, ...] of any N; ``direction`` and ``unit``
    are of the user's metric. Of several outputs it gets a structured array (``outputs["name"]``),
    and of kind ``anomaly`` the scores [N]; the other metrics judge the first output. Kind
    ``agreement`` needs no labels: quality is agreement with the fp32 model.
    """

    kind: Literal["classification", "regression", "anomaly", "agreement"]
    metric: str
    metric_digest: Digest | None = None
    direction: Literal["higher", "lower"] | None = None
    unit: str | None = None


METRICS = {
    "classification": "accuracy",
    "regression": "mae",
    "anomaly": "auc",
    "agreement": "top1",
}


class Net(_Section, frozen=True, kw_only=True):
    """A built-in net by name, the user's own ``factory: package.module:function``, or an ONNX file.

    An ``onnx`` file is trained already: it enters the chain where ``export`` leaves it.
    """

    name: Literal["resnet8", "dscnn", "mobilenet_v1", "autoencoder", "vit_tiny"] | None = None
    factory: Annotated[str, Meta(pattern=FUNCTION)] | None = None
    factory_digest: Digest | None = None
    onnx: str | None = None
    onnx_digest: Digest | None = None
    args: dict[str, Any] = {}


class Augmentation(_Section, frozen=True, kw_only=True):
    """Random changes of training samples; pairs are of the two axes behind the channel.

    ``shift`` is the most places a sample moves, ``stretch`` the most it is scaled (to e^stretch),
    ``mask`` the longest run set to zero. ``offset_std`` is of one number added to a whole line of
    the last axis, ``noise_std`` of one for each value.
    """

    shift: tuple[NotNegative, NotNegative] = (0, 0)
    stretch: tuple[Ratio, Ratio] = (0.0, 0.0)
    mask: tuple[NotNegative, NotNegative] = (0, 0)
    offset_std: Annotated[float, Meta(ge=0)] = 0.0
    noise_std: Annotated[float, Meta(ge=0)] = 0.0


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
    augmentation: Augmentation | None = None


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


class Qat(Training, frozen=True, kw_only=True):
    """Quantization-aware training with the distillation loss of `Distill`."""

    seed: Seed
    temperature: PositiveFloat
    alpha: Annotated[float, Meta(ge=0, le=1)]


class Quantize(_Section, frozen=True, kw_only=True):
    """What the sensitivity of a layer is measured with; ``qat`` also trains at low precision."""

    bits: Annotated[int, Meta(ge=2, le=8)]
    num_samples: Positive
    qat: Qat | None = None


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


class Vela(_Section, frozen=True, kw_only=True):
    """What Vela compiles for; none of it has a default, since a wrong one is off by 3.5x."""

    accelerator_config: Annotated[str, Meta(pattern=r"^ethos-u(55|65|85)-\d+$")]
    system_config: str
    memory_mode: str


class TensorRT(_Section, frozen=True, kw_only=True):
    """The GPU that an engine is for; ``version`` is the TensorRT of a device's own build."""

    compute_capability: Annotated[str, Meta(pattern=r"^\d+\.\d$")]
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+(\.\d+)*$")] | None = None


class Convert(_Section, frozen=True, kw_only=True):
    """Which precisions a converter tries. ``activation_dtype`` None takes the converter's own."""

    precisions: tuple[Precision, ...]
    activation_dtype: Literal["uint8", "int8"] | None = None
    num_calibration: Positive = 128
    vela: Vela | None = None
    tensorrt: TensorRT | None = None


class Scenario(_Section, frozen=True, kw_only=True):
    """A load beside SingleStream, which is always measured; as MLPerf Inference defines them.

    ``queries_per_s`` is of Server (Poisson arrivals), ``samples_per_query`` of MultiStream.
    ``num_streams`` sessions run at once, each with ``num_threads`` of the target.
    """

    scenario: Literal["MultiStream", "Server", "Offline"]
    batch_size: Positive = 1
    num_streams: Positive = 1
    samples_per_query: Positive = 8
    queries_per_s: PositiveFloat | None = None


class Sweep(_Section, frozen=True, kw_only=True):
    """Offline throughput at every combination."""

    batch_size: tuple[Positive, ...] = (1,)
    num_threads: tuple[Positive, ...] = (1,)
    num_streams: tuple[Positive, ...] = (1,)


class EnergyMeter(_Section, frozen=True, kw_only=True):
    """Which meter energy is read from; ``port`` is of a serial one.

    ``modelled`` is busy time times the hardware's power in the catalogue, which ``hardware`` names.
    """

    meter: Literal["rapl", "nvml", "ina", "serial", "modelled"]
    port: str | None = None
    window_s: Annotated[float, Meta(ge=10)] = 10.0


class Profile(_Section, frozen=True, kw_only=True):
    """How a target is measured. ``environment`` names one of the project's virtual environments.

    ``layers`` asks for times of single operators, in a pass of its own, where the runtime has them.
    """

    preset: Literal["quick", "ci", "official"] = "quick"
    num_threads: Positive = 1
    environment: Environment = "build"
    layers: bool = False
    scenarios: tuple[Scenario, ...] = ()
    sweep: Sweep | None = None
    energy: EnergyMeter | None = None


class Ssh(_Section, frozen=True, kw_only=True, tag="ssh", tag_field="transport"):
    """A board by OpenSSH; its host key must be known, and a key or an agent must open it.

    ``host`` is as ssh takes it (``user@host`` or a name of its configuration); ``folder`` is on the
    board, relative to the home there; ``runner`` a program on the board that speaks the runner
    protocol (docs/runner-protocol.md), instead of our own, which ``python`` runs.
    """

    host: Annotated[str, Meta(pattern=r"^[^-\s][^\s]*$")]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    identity: str | None = None
    known_hosts: str | None = None
    python: str = "python3"
    runner: str | None = None
    folder: str = ".cache/slipway"


class Adb(_Section, frozen=True, kw_only=True, tag="adb", tag_field="transport"):
    """An Android device by adb; ``python`` or a ``runner`` that speaks the protocol is there."""

    serial: Annotated[str, Meta(pattern=r"^[^-\s][^\s]*$")]
    python: str = "python3"
    runner: str | None = None
    folder: str = "/data/local/tmp/slipway"


Connection = Ssh | Adb


class Select(_Section, frozen=True, kw_only=True):
    """The budget a candidate must meet, and what is minimized among those that do.

    ``max_quality_drop`` is in the metric's unit (points for accuracy) and judged by the upper bound
    of the paired 95 % interval. ``accept`` is the weakest evidence that may ship.
    ``min_accelerated_ratio`` is of operators and judged where the compiler tells their placement.
    ``precision`` lets no other ship: what was only ``built`` has no figure to choose it by.
    """

    precision: Precision | None = None
    objective: Literal["latency", "size", "energy"] = "latency"
    accept: Evidence = "measured"
    max_quality_drop: Annotated[float, Meta(ge=0)] = 2.0
    max_latency_ms: PositiveFloat | None = None
    max_size_bytes: Positive | None = None
    max_memory_bytes: Positive | None = None
    min_accelerated_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0


class Target(_Section, frozen=True, kw_only=True):
    """Hardware with the runtime it will use. ``required`` fails the build if it cannot ship.

    ``hardware`` is an id of the catalogue or a YAML file of the user's own. ``connection`` is where
    such a device answers; without one the target's ``profile.environment`` runs here.
    """

    converter: Converter
    runtime: Runtime
    required: bool = False
    hardware: str | None = None
    connection: Connection | None = None
    convert: Convert
    profile: Profile
    select: Select

    @property
    def evidence(self) -> Evidence:
        """The strongest evidence that can be had of it from here."""
        found = EVIDENCE[self.converter]
        emulated = self.connection is None and self.profile.environment in EMULATED
        return "emulated" if found == "measured" and emulated else found


class Params(_Section, frozen=True, kw_only=True):
    """All of params.yaml."""

    model: str
    data: Data
    task: Task
    net: Net
    train: Train | None = None  # absent with net.onnx, and only then
    prune: dict[str, Prune] = {}
    distill: dict[str, Distill] = {}
    quantize: dict[str, Quantize] = {}
    export: Export
    recipes: dict[str, Recipe]
    targets: dict[str, Target]


def load(path: Path = Path(FILE_NAME)) -> Params:
    """Read params.yaml.

    Raises:
        ParamsError: naming the first problem; `parse` lists them all.
    """
    return strict_yaml.sound(parse(path))


def parse(path: Path) -> tuple[Params | None, list[str]]:
    """Read params.yaml as ``(params or None, every problem at once, one line each)``."""
    from pipeline import rules  # which reads the structs of this module

    return strict_yaml.parse(path, Params, rules.ALL)


def reference_recipes(params: Params) -> list[str]:
    """Return the recipes that leave the net as trained; the one reference in a valid file.

    These skip prune and distill, and their quantize settings hold no ``qat``.
    """
    trained = {name for name, settings in params.quantize.items() if settings.qat is not None}
    return [
        name
        for name, r in params.recipes.items()
        if r.prune == r.distill == SKIP and r.quantize not in trained
    ]


def reference_candidate(params: Params) -> str:
    """Return the id of the candidate that all others are compared with: the plain net in fp32."""
    return f"{reference_recipes(params)[0]}-fp32"
