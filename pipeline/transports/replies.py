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
    runs_per_sample: Positive
    num_warmup: Count
    steady: bool
    loop_overhead_ns: Annotated[float, Meta(ge=0)]
    facts: Facts
    input_digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    host_before: dict[str, Any]
    host_after: dict[str, Any]
    others_ratio: Ratio | None


class Scenario(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: scenario``; ``reason`` stands alone where it is refused."""

    reason: str | None
    latencies_ns: list[Nanoseconds] = []
    num_queries: Count = 0
    num_samples: Count = 0
    duration_ns: Nanoseconds = 1
    flags: tuple[Text, ...] = ()
    facts: dict[str, Any] = {}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator."""

    name: str
    operator: str
    time_ns: Annotated[float, Meta(ge=0)]
    provider: str | None = None


class Layers(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: layers``."""

    layers: list[Row]


class Energy(Reply, frozen=True, kw_only=True):
    """The reply to ``run`` with ``what: energy``; joules and watts are null of a serial meter."""

    meter: Text
    window_ns: Positive
    num_runs: Count
    joules: float | None
    idle_w: tuple[float | None, float | None]
    facts: dict[str, Any]


# By the command, or by what `run` was asked for.
KINDS: dict[str, type[Reply]] = {
    "describe": Described,
    "load": Loaded,
    "outputs": Outputs,
    "latency": Latency,
    "scenario": Scenario,
    "layers": Layers,
    "energy": Energy,
}


def problem(reply: Any, kind: type[Reply]) -> str | None:
    """Say what a reply lacks or has otherwise; None where it is as it must be."""
    try:
        found = msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        return str(error)
    if found.protocol != runner.PROTOCOL:
        return f"it speaks protocol {found.protocol}, this slipway {runner.PROTOCOL}"
    return None


def check(reply: Any, what: str, where: str) -> None:
    """Hold another program's reply against the protocol, where this is written down.

    Raises:
        TargetError: it lacks something.
    """
    found = problem(reply, KINDS.get(what, Reply))
    if found is not None:
        raise TargetError(
            f"{where}: the runner's reply to {what} is not as {PROTOCOL_PAGE} says: {found}; "
            "see `slipway runner check`, or install another one there"
        )
