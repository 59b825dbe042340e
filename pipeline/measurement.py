"""Boundary object: what was measured, where, how, and how far to trust it."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline import files
from pipeline.errors import ManifestError
from pipeline.manifest import decode_document

SCHEMA_VERSION = 1
FILE_NAME = "measurement.json"

Kind = Literal["measured", "emulated", "estimated", "built", "not_measured"]
# Weakest evidence last; a target's `accept` names the weakest that may ship.
KINDS: tuple[Kind, ...] = ("measured", "emulated", "estimated", "built", "not_measured")
# Flags that make a run invalid, not slow, and what happened.
INVALID = {
    "clock_jump": "the clock jumped, or the machine was suspended,",
    "throttled": "the machine throttled",
}
# As MLPerf Inference defines them (arXiv:1911.02549, table 3).
Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]


class Interval(msgspec.Struct, frozen=True):
    """A 95 % interval around a value."""

    value: float
    lower: float
    upper: float


class Latency(msgspec.Struct, frozen=True):
    """Percentiles of single-request time; absent when there are too few samples for one."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p50_lower: float | None = None
    p50_upper: float | None = None


def digits(value: float, unit: str, sign: str = "") -> str:
    """Write a quality or a difference, without its unit: in % two decimals, else four digits.

    >>> digits(97.5, "%"), digits(0.4, "%", "+"), digits(0.012348, "mm"), digits(3.0, "")
    ('97.50', '+0.40', '0.01235', '3')
    """
    return f"{value:{sign}{'.2f' if unit == '%' else '.4g'}}"


class Quality(msgspec.Struct, frozen=True):
    """A quality figure on n samples with the half-width of its 95 % interval."""

    metric: str
    direction: Literal["higher", "lower"]
    unit: str
    value: float
    n: int
    half_width: float

    @property
    def figure(self) -> str:
        """The value with its unit, such as ``97.50 %``."""
        return f"{digits(self.value, self.unit)} {self.unit}".rstrip()

    @property
    def unit_of_drop(self) -> str:
        """The unit of differences; those of percentages are points."""
        return "point" if self.unit == "%" else self.unit


class Drop(msgspec.Struct, frozen=True):
    """Quality lost against the reference on identical inputs (paired), in the metric's unit.

    Positive is worse. A budget is judged by ``upper``, never by "not distinguishable".
    """

    value: float
    lower: float
    upper: float
    n: int
    num_discordant: int


class Agreement(msgspec.Struct, frozen=True):
    """How the outputs compare with the reference's on identical inputs."""

    max_abs_error: float
    sqnr_db: float | None
    top1_agreement: float | None


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator as the runtime ran it: its median time a request, or a compiler's cycles."""

    name: str
    operator: str
    time_ms: float | None = None
    num_cycles: int | None = None
    num_macs: int | None = None
    provider: str | None = None  # what executed it, where the runtime says so


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one scenario gave beside SingleStream; ``latency_ms`` is of a query.

    ``queries_per_s`` is what was asked for (Server), ``throughput_per_s`` the samples that were
    done. Percentiles are absent below their sample count, as everywhere.
    """

    scenario: Scenario
    batch_size: int = 1
    num_streams: int = 1
    num_threads: int = 1
    samples_per_query: int = 1
    queries_per_s: float | None = None
    num_queries: int
    latency_ms: Latency = Latency()
    throughput_per_s: float
    reason: str | None = None  # why it is not what was asked for
    flags: tuple[str, ...] = ()


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one request above idle, and what it rests on.

    ``kind`` says where the meter sits: on one or several supply rails, at a processor or a GPU as a
    whole (``package``), at the wall. A ``modelled`` figure is never compared with others.
    """

    value_mj: float
    meter: str
    kind: Literal["rail", "package", "wall", "modelled"]
    window_s: float
    num_runs: int
    idle_w: float | None = None
    busy_w: float | None = None
    flags: tuple[str, ...] = ()


class Placement(msgspec.Struct, frozen=True):
    """Where a compiler put the operators: on the accelerator, or ``fallback`` on the CPU."""

    num_accelerated: int
    num_fallback: int
    fallback_operators: tuple[str, ...] = ()

    @property
    def accelerated_ratio(self) -> float:
        """The share of operators on the accelerator, 0..1."""
        return self.num_accelerated / max(1, self.num_accelerated + self.num_fallback)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on one target. ``artifact`` is the digest of the candidate's manifest."""

    schema_version: int = SCHEMA_VERSION
    artifact: str
    candidate: str
    target: str
    kind: Kind
    reason: str | None = None
    time: str
    device: dict[str, Any] = {}
    fingerprint: str | None = None
    runtime: str
    runtime_version: str | None = None
    num_threads: int | None = None
    scenario: Scenario = "SingleStream"
    num_restarts: int = 0
    num_warmup: int = 0
    num_samples: int = 0
    runs_per_sample: int = 1
    latency_ms: Latency = Latency()
    latency_ratio: Interval | None = None
    throughput_per_s: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_memory_bytes: int | None = None
    energy: Energy | None = None
    size_bytes: int
    quality: Quality | None = None
    drop: Drop | None = None
    agreement: Agreement | None = None
    placement: Placement | None = None
    num_cycles: int | None = None
    layers: tuple[Layer, ...] = ()
    loads: tuple[Load, ...] = ()
    host: dict[str, Any] = {}
    flags: tuple[str, ...] = ()

    @property
    def processor(self) -> str:
        """What requests ran on: the accelerator that the runtime names, else the machine's CPU."""
        accelerator = self.host.get("facts", {}).get("device")
        return str(accelerator or self.device.get("cpu_model") or "an unknown processor")


def write(path: Path, measurement: Measurement) -> None:
    """Write one measurement, atomically."""
    files.write_atomic(path, files.encode_json(measurement))


def read(path: Path) -> Measurement:
    """Read one measurement."""
    if not path.is_file():
        raise ManifestError(f"{path} is missing; run dvc repro")
    return decode_document(path.read_bytes(), Measurement, SCHEMA_VERSION, str(path))
