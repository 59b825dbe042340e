"""The hardware catalogue: one YAML file a piece of hardware, each fact with where it comes from.

A fact that is not known is absent. Units stand in the keys: ``_hz``, ``_bytes``, ``_bytes_per_s``,
``_w``, ``_c`` (degrees Celsius), ``_ms``, ``_mj``; ``_ops_per_s`` counts two operations a
multiply-accumulate. The user's own file has the same schema (`read`).
"""

import datetime as dt
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from pipeline import strict_yaml
from pipeline.compatibility import PRECISIONS, Converter, Precision
from pipeline.errors import TargetError
from pipeline.params import TARGET_ID, Positive, PositiveFloat

CATALOGUE_PATH = Path(__file__).with_name("catalogue")

Kind = Literal["measured", "vendor", "derived", "general_knowledge"]
Granularity = Literal["per_tensor", "per_channel"]
Symmetry = Literal["symmetric", "asymmetric"]
Dtype = Literal["uint8", "int8", "int16", "float16", "bfloat16", "float32"]
Transport = Literal["local", "ssh", "adb", "serial", "usb3", "pcie"]
Format = Literal[
    "c_source", "edgetpu_tflite", "engine", "network_binary", "npu_blob", "onnx", "openvino_ir",
    "pte", "tflite",
]  # fmt: skip
# What must be equal where an artifact is made and where it runs.
Bound = Literal[
    "accelerator_config", "compile_key", "compute_capability", "device", "driver_version",
    "memory_mode", "runtime_version", "system_config",
]  # fmt: skip

Text = Annotated[str, Meta(min_length=1)]
Ratio = Annotated[float, Meta(gt=0, le=1)]
ComputeCapability = Annotated[str, Meta(pattern=r"^\d+\.\d$")]
AcceleratorConfig = Annotated[str, Meta(pattern=r"^ethos-u(55|65|85)-\d+$")]
T = TypeVar("T")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every section refuses keys that it does not know."""


class Source(_Section, frozen=True, kw_only=True):
    """Where facts come from; ``date`` is when it was measured, read, or else written down here.

    ``general_knowledge`` is to be checked before anything relies on it.
    """

    text: Text
    date: dt.date
    kind: Kind


class Sourced(_Section, frozen=True, kw_only=True):
    """Something known: ``source`` is a key of `Hardware.sources`, ``note`` its conditions."""

    source: str
    note: Text | None = None


class Fact(Sourced, Generic[T], frozen=True, kw_only=True):
    """One value; its unit is the suffix of its key."""

    value: T


class Cpu(_Section, frozen=True, kw_only=True):
    """The processor that runs what no accelerator does."""

    core: Fact[Text] | None = None
    isa: Fact[Text] | None = None
    features: Fact[tuple[Text, ...]] | None = None
    num_cores: Fact[Positive] | None = None
    clock_hz: Fact[PositiveFloat] | None = None
    macs_per_cycle: Fact[Positive] | None = None


class Accelerator(_Section, frozen=True, kw_only=True):
    """The GPU, NPU or signal processor."""

    name: Fact[Text] | None = None
    clock_hz: Fact[PositiveFloat] | None = None
    macs_per_cycle: Fact[Positive] | None = None


class Peak(_Section, frozen=True, kw_only=True):
    """Theoretical throughput; ``int8_ops_per_s`` where the source says not whether it is dense."""

    int8_dense_ops_per_s: Fact[PositiveFloat] | None = None
    int8_sparse_ops_per_s: Fact[PositiveFloat] | None = None
    int8_ops_per_s: Fact[PositiveFloat] | None = None
    fp16_ops_per_s: Fact[PositiveFloat] | None = None
    fp32_ops_per_s: Fact[PositiveFloat] | None = None


class Memory(_Section, frozen=True, kw_only=True):
    """Sizes and bandwidths: the budgets of what is compiled."""

    ram_bytes: Fact[Positive] | None = None
    sram_bytes: Fact[Positive] | None = None
    flash_bytes: Fact[Positive] | None = None
    on_chip_cache_bytes: Fact[Positive] | None = None
    bandwidth_bytes_per_s: Fact[PositiveFloat] | None = None


class Power(_Section, frozen=True, kw_only=True):
    """Electrical power by mode or load, and the temperatures at which clocks fall."""

    min_w: Fact[PositiveFloat] | None = None
    max_w: Fact[PositiveFloat] | None = None
    idle_w: Fact[PositiveFloat] | None = None
    ops_per_s_per_w: Fact[PositiveFloat] | None = None
    soft_limit_c: Fact[PositiveFloat] | None = None
    hard_limit_c: Fact[PositiveFloat] | None = None


class Software(Sourced, frozen=True, kw_only=True):
    """A runtime, compile tool or platform release; versions are inclusive."""

    role: Literal["runtime", "compile_tool", "platform"]
    oldest: Text | None = None
    newest: Text | None = None
    host: Text | None = None


class SystemConfig(Sourced, frozen=True, kw_only=True):
    """A system configuration of Vela: the accelerator's clock, and what memories give it."""

    clock_hz: PositiveFloat
    flash_clock_ratio: Ratio | None = None
    sram_bytes_per_s: PositiveFloat | None = None
    flash_bytes_per_s: PositiveFloat | None = None


class Artifact(_Section, frozen=True, kw_only=True):
    """What is loaded, and the keys by which an artifact fits or does not."""

    formats: Fact[tuple[Format, ...]] | None = None
    compute_capability: Fact[ComputeCapability] | None = None
    accelerator_config: Fact[AcceleratorConfig] | None = None
    memory_modes: Fact[tuple[Text, ...]] | None = None
    system_configs: dict[str, SystemConfig] = {}
    bound_to: Fact[tuple[Bound, ...]] | None = None


class Numerics(_Section, frozen=True, kw_only=True):
    """Number formats; several granularities or symmetries stand where each is taken."""

    precisions: Fact[tuple[Precision, ...]] | None = None
    compute_dtypes: Fact[tuple[Dtype, ...]] | None = None
    io_dtypes: Fact[tuple[Dtype, ...]] | None = None
    weight_granularity: Fact[tuple[Granularity, ...]] | None = None
    weight_symmetry: Fact[tuple[Symmetry, ...]] | None = None
    activation_granularity: Fact[tuple[Granularity, ...]] | None = None
    activation_symmetry: Fact[tuple[Symmetry, ...]] | None = None
    power_of_two_scales: Fact[bool] | None = None


class Graph(_Section, frozen=True, kw_only=True):
    """What a compiler takes; ``max_rank`` counts the dimensions above 1."""

    static_shapes: Fact[bool] | None = None
    max_rank: Fact[Positive] | None = None
    max_opset: Fact[Positive] | None = None
    recommended_opset: Fact[Positive] | None = None
    op_source: Fact[Text] | None = None
    partition: Fact[Text] | None = None


class Measuring(_Section, frozen=True, kw_only=True):
    """How it is reached, and where energy and heat are read."""

    transports: Fact[tuple[Transport, ...]] | None = None
    energy_source: Fact[Text] | None = None
    thermal_source: Fact[Text] | None = None


class Figures(_Section, frozen=True, kw_only=True):
    """One number for each MLPerf Tiny benchmark."""

    ic01: PositiveFloat | None = None
    kws01: PositiveFloat | None = None
    vww01: PositiveFloat | None = None
    ad01: PositiveFloat | None = None


class Result(Sourced, frozen=True, kw_only=True):
    """A published result, or a compiler's estimate; ``inferences_per_s`` of SingleStream."""

    software: Text
    inferences_per_s: Figures | None = None
    latency_ms: Figures | None = None
    energy_mj: Figures | None = None
    sram_bytes: Figures | None = None


class Service(_Section, frozen=True, kw_only=True):
    """What a converter makes for this hardware today; ``presets`` are of `slipway init`."""

    precisions: tuple[Precision, ...]
    presets: tuple[str, ...] = ()
    note: Text | None = None


class Hardware(_Section, frozen=True, kw_only=True):
    """One piece of hardware; its id is the name of its file.

    Either ``converters`` or ``not_supported_yet``, the reason, is there.
    """

    name: Text
    vendor: Text | None = None
    sources: dict[str, Source]
    converters: dict[Converter, Service] = {}
    not_supported_yet: Text | None = None
    soc: Fact[Text] | None = None
    cpu: Cpu = Cpu()
    accelerator: Accelerator = Accelerator()
    peak: Peak = Peak()
    memory: Memory = Memory()
    power: Power = Power()
    software: dict[str, Software] = {}
    artifact: Artifact = Artifact()
    numerics: Numerics = Numerics()
    graph: Graph = Graph()
    measuring: Measuring = Measuring()
    results: dict[str, Result] = {}


Key = tuple[str, ...]
Problems = Iterator[tuple[Key, str]]


def ids() -> tuple[str, ...]:
    """Return the ids of the catalogue, sorted."""
    return tuple(sorted(path.stem for path in CATALOGUE_PATH.glob("*.yaml")))


def find(name: str, folder: Path = Path()) -> Hardware:
    """Return what params.yaml calls ``hardware``: an id of the catalogue, or a file of the user's.

    Such a file is neither pinned nor a dep of a stage: it decides what `slipway check` says, what
    the report compares with, and modelled energy, whose record keeps the watts that it took.

    Args:
        name: an id, or the path of a YAML file.
        folder: of the project, which that path is relative to.

    Raises:
        TargetError: the id is not known.
        ParamsError: the file has a problem.
    """
    return read(folder / name) if is_file(name) else load(name)


def is_file(name: str) -> bool:
    """Tell the path of a YAML file from an id."""
    return Path(name).suffix in {".yaml", ".yml"}


def load(hardware_id: str) -> Hardware:
    """Read an entry of the catalogue.

    Raises:
        TargetError: the id is not known; names the known ones, the closest first.
    """
    known = ids()
    if hardware_id not in known:
        close = difflib.get_close_matches(hardware_id, known, n=5)
        names = ", ".join((*close, *(name for name in known if name not in close)))
        raise TargetError(f"hardware {hardware_id!r} is not known; known: {names}")
    return read(CATALOGUE_PATH / f"{hardware_id}.yaml")


def read(path: Path) -> Hardware:
    """Read a file of the catalogue's schema, as a user's own.

    Raises:
        ParamsError: naming the first problem; `parse` lists them all.
    """
    return strict_yaml.sound(parse(path))


def parse(path: Path) -> tuple[Hardware | None, list[str]]:
    """Read a file as ``(hardware or None, every problem at once, one line each)``.

    Raises:
        ParamsError: when it cannot be read, is not YAML or is not a mapping.
    """
    return strict_yaml.parse(path, Hardware, (lambda _: _file_name(path), *RULES))


def facts(hardware: Hardware) -> Iterator[tuple[Key, Sourced]]:
    """Yield every sourced statement with its key, in the order of the schema."""
    return _facts(hardware, ())


def _facts(value: Any, at: Key) -> Iterator[tuple[Key, Sourced]]:
    if isinstance(value, Sourced):
        yield at, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _facts(member, (*at, name))
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _facts(getattr(value, name), (*at, name))


def _file_name(path: Path) -> Problems:
    if not TARGET_ID.fullmatch(path.stem):
        yield (), f"the file's name is the id and must match {TARGET_ID.pattern}, got {path.stem!r}"


def _sources(hardware: Hardware) -> Problems:
    unused = set(hardware.sources)
    for key, fact in facts(hardware):
        unused.discard(fact.source)
        if fact.source not in hardware.sources:
            known = ", ".join(hardware.sources)
            where = ".".join((*key, "source"))
            yield (*key, "source"), f"{where} must be one of {known}, got {fact.source!r}"
    for name in sorted(unused):
        yield ("sources", name), f"sources.{name} is the source of no fact; remove it"


def _support(hardware: Hardware) -> Problems:
    if bool(hardware.converters) == bool(hardware.not_supported_yet):
        got = "both" if hardware.converters else "neither"
        yield (), f"one of converters and not_supported_yet (the reason) must be there, got {got}"


def _precisions(hardware: Hardware) -> Problems:
    computed = hardware.numerics.precisions
    for converter, service in hardware.converters.items():
        key = ("converters", converter, "precisions")
        wrong = [p for p in service.precisions if p not in PRECISIONS[converter]]
        if wrong or not service.precisions:
            made = ", ".join(PRECISIONS[converter])
            yield key, f"{'.'.join(key)}: it makes {made}, got {', '.join(wrong) or 'none'}"
        made_here = [p for p in service.precisions if p not in wrong]
        beyond = [p for p in made_here if computed and p not in computed.value]
        if computed and beyond:
            has = ", ".join(computed.value)
            yield key, f"{'.'.join(key)}: the hardware computes {has}, got {', '.join(beyond)}"


def _compatibility_keys(hardware: Hardware) -> Problems:
    needed: dict[Converter, str] = {
        "to_ethos_u": "accelerator_config",
        "to_tensorrt": "compute_capability",
        "to_tensorrt_bundle": "compute_capability",
    }
    for converter in hardware.converters:
        field = needed.get(converter)
        if field and getattr(hardware.artifact, field) is None:
            what = f"artifact.{field} is missing; {converter} compiles for it"
            yield ("artifact",), what


def _ranges(hardware: Hardware) -> Problems:
    high = hardware.power.max_w
    for key in ("min_w", "idle_w"):
        low = getattr(hardware.power, key)
        if low and high and low.value > high.value:
            what = f"power.{key} must be at most power.max_w {high.value:g}, got {low.value:g}"
            yield ("power", key), what


RULES = (_sources, _support, _precisions, _compatibility_keys, _ranges)
