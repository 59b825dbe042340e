"""What a runner's replies must hold, as docs/runner-protocol.md says; more keys are allowed."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.errors import TargetError
from pipeline.runtimes import runner
from pipeline.transports.base import PROTOCOL_PAGE

Nanoseconds = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1)]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in every reply."""

    protocol: int


class Failed(Reply, frozen=True, kw_only=True):
    """The reply with an exit code other than 0."""

    error: Annotated[str, Meta(pattern=r"^[^\n]+$")]


class Device(msgspec.Struct, frozen=True):
    """What decides a model's speed."""

    arch: Text
    cpu_model: Text
    isa_flags: list[str]
    num_cores: Positive
    accelerator: Text


class Described(Reply, frozen=True, kw_only=True):
    """The reply to ``describe``."""

    runner: Text
    device: Device
    runtimes: dict[Text, Text]


class Tensor(msgspec.Struct, frozen=True):
    """One input or output of the file."""

    name: str
    dtype: Text
    shape: list[Count | str]
    scale: float | None
    zero_point: int | None


class Facts(msgspec.Struct, frozen=True):
    """What really runs."""

    version: Text


class Loaded(Reply, frozen=True, kw_only=True):
    """The reply to ``load``."""

    load_ns: Nanoseconds
    peak_memory_bytes: Count | None
    facts: Facts
    inputs: list[Tensor]
    outputs: list[Tensor]


class Outputs(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: outputs``."""

    num_samples: Positive
    peak_memory_bytes: Count | None
    facts: Facts
    tensors: list[Tensor]


class Latency(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: latency``."""

    load_ns: Nanoseconds
    first_ns: Nanoseconds
    samples_ns: Annotated[list[Nanoseconds], Meta(min_length=1)]
    samples_per_turn: list[Positive] | None = None
    runs_per_sample: Positive
    num_warmup: Count
    steady: bool
    loop_overhead_ns: Annotated[float, Meta(ge=0)]
    facts: Facts
    input_digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    host_before: dict[str, Any]
    host_after: dict[str, Any]
    others_ratio: Ratio | None


class Queried(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: scenario``, where the model can be loaded so."""

    latencies_ns: list[Nanoseconds]
    num_queries: Count
    num_samples: Count
    duration_ns: Nanoseconds
    flags: list[str]
    facts: Facts


class Layer(msgspec.Struct, frozen=True):
    """One operator's median time."""

    name: str
    operator: str
    time_ns: Annotated[float, Meta(ge=0)]
    provider: str


class Layers(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: layers``."""

    layers: list[Layer]


class LoadgenFacts(Facts, frozen=True):
    """What LoadGen drove."""

    runtime: Text


class Judged(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: loadgen``, where the model can be driven so."""

    reason: None
    summary: Text
    num_queries: Count
    num_samples: Count
    loadgen_version: Text
    facts: LoadgenFacts


class Energy(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: energy``; joules and watts are null of a serial meter."""

    meter: Text
    window_ns: Positive
    num_runs: Count
    joules: float | None
    idle_w: tuple[float | None, float | None]
    facts: dict[str, Any]


# By the command and what is asked for.
KINDS: dict[str, type[Reply]] = {
    "describe": Described,
    "load": Loaded,
    "run outputs": Outputs,
    "run latency": Latency,
    "run scenario": Queried,
    "run layers": Layers,
    "run energy": Energy,
    "run loadgen": Judged,
}
MAY_DECLINE = ("run scenario", "run loadgen")


def problem(reply: Any, kind: type[Reply]) -> str | None:
    """Say what a reply lacks or has otherwise; None where it is as it must be."""
    try:
        found = msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        return str(error)
    if found.protocol != runner.PROTOCOL:
        return f"it speaks protocol {found.protocol}, this slipway {runner.PROTOCOL}"
    return None


def kind_of(reply: Any, asked: str) -> type[Reply]:
    """Return what a reply must hold: that of a load that cannot be had holds its reason."""
    if asked in MAY_DECLINE and isinstance(reply, dict) and isinstance(reply.get("reason"), str):
        return Reply
    return KINDS.get(asked, Reply)


def check(reply: Any, asked: str, where: str) -> None:
    """Hold another program's reply against the protocol.

    Args:
        reply: the document.
        asked: the command, and what was asked for, as in `KINDS`.
        where: names the device.

    Raises:
        TargetError: it lacks something.
    """
    found = problem(reply, kind_of(reply, asked))
    if found is not None:
        raise TargetError(
            f"{where}: the runner's reply to {asked} is not as {PROTOCOL_PAGE} says: {found}; "
            "see `slipway runner check`, or install another one there"
        )
