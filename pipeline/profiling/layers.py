"""Layers as their runtime ran them: from an adapter's rows, and two candidates layer by layer."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from pipeline.compatibility import Runtime
from pipeline.errors import TargetError
from pipeline.measurement import Kind, Layer, Placement

NS_PER_MS = 1e6
NUM_RUNS = 100  # a median of so many is not one of the scheduler's
CPU = ("CPU", "CPUExecutionProvider")  # as a session's facts name it
# Why a runtime tells nothing of single operators.
SILENT: dict[Runtime, str] = {
    "litert": "LiteRT's Python interpreter gives no times of single operators",
    "tflite_runtime": "tflite-runtime's Python interpreter gives no times of single operators",
    "tflite_micro": "tflite-micro's Python interpreter gives no times of single operators",
    "tensorrt": "times of single operators are not read from TensorRT yet",
}
# What runtimes add to an operator's name: ONNX Runtime for another memory layout, for integers and
# where it fused Q/DQ; OpenVINO where a bias or a scale became part of it; torch's exporter.
_ADDED = re.compile(r"_nchwc$|_quant$|_token_\d+$|/WithoutBiases(/\w+)?$|^node_|^TFLITE2ONNX_FAF_")
# What they call one operator in integers or fused: QLinearConv, ConvInteger, FusedConv.
_VARIETY = re.compile(
    r"^(QLinear|Q(?=[A-Z])|Fused|DynamicQuantize(?=MatMul))"
    r"|(Integer(ToFloat)?|QuantizedLegacy)$|(?<=^Conv)olution$"
)
_SAME = {"Gemm": "MatMul", "FullyConnected": "MatMul"}


class _Row(msgspec.Struct, frozen=True):
    name: str
    operator: str
    time_ns: Annotated[float, Meta(ge=0)]
    provider: str | None = None


By = Literal["name", "order"]


class Pair(NamedTuple):
    """One layer of two candidates; one of them is None where nothing is known to be its match."""

    first: Layer | None
    second: Layer | None
    by: By | None = None


def of_rows(rows: Any) -> tuple[Layer, ...]:
    """Make layers of what an adapter's ``layers`` returned, or another runner's JSON.

    Raises:
        TargetError: they are no rows.
    """
    try:
        found = msgspec.convert(rows, list[_Row])
    except msgspec.ValidationError as error:
        raise TargetError(f"the runner's layers are malformed: {error}; mend the runner") from error
    return tuple(
        Layer(
            name=row.name,
            operator=row.operator,
            time_ms=row.time_ns / NS_PER_MS,
            provider=row.provider,
        )
        for row in found
    )


def why_none(runtime: Runtime, kind: Kind) -> str:
    """Say why there are no layers of a candidate for which they were asked."""
    if kind == "emulated":
        return "emulated time is not latency"
    if kind in {"built", "not_measured"}:
        return "it never ran"
    return SILENT.get(runtime, "none were recorded")


def coverage(layers: Iterable[Layer], p50_ms: float | None) -> float | None:
    """Return the layers' times over that of a request, as a ratio; None without either.

    Below 1 the rest is spent between operators, above 1 in taking their times: a session that does
    is slower.
    """
    times = [layer.time_ms for layer in layers if layer.time_ms is not None]
    return sum(times) / p50_ms if times and p50_ms else None


def placement(layers: Sequence[Layer], asked: str) -> Placement | None:
    """Count what ran on the provider asked for, and what fell back from it.

    None where the CPU was asked for, which nothing falls back from, or no layer says its provider.
    """
    known = [layer for layer in layers if layer.provider is not None]
    if asked in CPU or not known:
        return None
    left = [layer.operator for layer in known if layer.provider != asked]
    return Placement(len(known) - len(left), len(left), tuple(dict.fromkeys(left)))


def match(first: Sequence[Layer], second: Sequence[Layer]) -> tuple[Pair, ...]:
    """Pair two candidates' layers, in the order of the first.

    By name, without what runtimes add to it, where one layer alone has that name; what is left, by
    order among operators of one kind, where both have as many of these. No other layer is paired:
    it was fused into another, or put in, on one side. Such of ``second`` stand where they ran.
    """
    partner: dict[int, tuple[int, By]] = {}
    named = _places(second, _name_key)
    for key, places in _places(first, _name_key).items():
        others = named.get(key, [])
        if len(places) == len(others) == 1:
            partner[places[0]] = (others[0], "name")
    left = _places(second, _kind_key, {place for place, _ in partner.values()})
    for kind, places in _places(first, _kind_key, partner).items():
        others = left.get(kind, [])
        if len(places) == len(others):
            partner |= {a: (b, "order") for a, b in zip(places, others, strict=True)}
    return tuple(_in_order(first, second, partner))


def _in_order(
    first: Sequence[Layer], second: Sequence[Layer], partner: Mapping[int, tuple[int, By]]
) -> Iterator[Pair]:
    """Yield the first's layers, and what the second has alone behind the layer it ran after."""
    matched = {place for place, _ in partner.values()}
    reached = 0
    for place, layer in enumerate(first):
        if place not in partner:
            yield Pair(layer, None)
            continue
        other, by = partner[place]
        yield from (Pair(None, second[p]) for p in range(reached, other) if p not in matched)
        yield Pair(layer, second[other], by)
        reached = max(reached, other)
    yield from (Pair(None, second[p]) for p in range(reached, len(second)) if p not in matched)


def _places(
    layers: Sequence[Layer], key: Callable[[Layer], str], without: Collection[int] = ()
) -> dict[str, list[int]]:
    """Map each key to the places of the layers that have it."""
    found: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        if place not in without:
            found.setdefault(key(layer), []).append(place)
    return found


def plain_name(name: str) -> str:
    """Take off what runtimes add to an operator's name.

    >>> plain_name("node_Conv_105_token_1"), plain_name("head/WithoutBiases")
    ('Conv_105', 'head')
    """
    shorter = _ADDED.sub("", name)
    return shorter if shorter == name else plain_name(shorter)


def _name_key(layer: Layer) -> str:
    return f"{_kind_key(layer)} {plain_name(layer.name)}"


def _kind_key(layer: Layer) -> str:
    kind = _VARIETY.sub("", layer.operator)
    return _SAME.get(kind, kind)
