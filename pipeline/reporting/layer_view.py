"""What ships against the fp32 reference, layer by layer."""

from collections.abc import Callable
from typing import NamedTuple

from pipeline import console
from pipeline.measurement import Layer, Measurement
from pipeline.profiling import layers
from pipeline.profiling.layers import Pair
from pipeline.reporting import figures, words
from pipeline.reporting.answer import Answer
from pipeline.reporting.charts import layers as chart
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.views import Column, Key, Plot, table

LONE = "Layers without a partner were fused into another, or put in, on one side."
SLOWED = "They are timed in a session of its own, which noting times slows."
ALONE = "The fp32 reference has none, so there is nothing to put beside them."


class _Unit(NamedTuple):
    """What the figures of layers are, and how one is written."""

    figure: Callable[[Layer], float | None]
    write: Callable[[float], str]
    name: str


TIME = _Unit(lambda layer: layer.time_ms, figures.duration, "time")
CYCLES = _Unit(
    lambda layer: None if layer.num_cycles is None else float(layer.num_cycles),
    lambda value: console.scaled(value).replace(" ", figures.SPACE),
    "cycles",
)


def plot(answer: Answer, key: str, look: dict[str, Mark]) -> Plot | None:
    """Show what ships, or else the reference, with the reference beside it; None without layers."""
    subject, reference = _chosen(answer)
    if subject is None:
        return None
    both = [m for m in (reference, subject) if m is not None]
    found = [layer for m in both for layer in m.layers]
    unit = TIME if any(TIME.figure(layer) is not None for layer in found) else CYCLES
    first = _with(reference, unit) if reference else ()
    second = _with(subject, unit)
    if not first and not second:
        return None
    pairs = layers.match(first, second)
    names = (look[reference.candidate].name if reference else "", look[subject.candidate].name)
    title = f"Layer by layer: {names[1]}" + (f" against {names[0]}" if first else "")
    css = (f"outlined {_series(reference, look)}", _series(subject, look))
    rows = [chart.Row(_name(p), _figure(p.first, unit), _figure(p.second, unit)) for p in pairs]
    drawn = [row for row in rows if (row.first, row.second) != (None, None)]
    drawing = chart.chart(key, f"{title}, {answer.target}", drawn, css, unit.write)
    legend = [Key(chart.swatch(style), name) for style, name in zip(css, names, strict=True)]
    return Plot(
        key,
        title,
        drawing,
        table(f"{title}: {answer.target}", _columns(names, unit, bool(first)), pairs),
        tuple(_notes(pairs, len(drawn), reference, subject, unit)),
        tuple(legend if first else legend[1:]),
    )


def _chosen(answer: Answer) -> tuple[Measurement | None, Measurement | None]:
    """Find what ships (or the reference) and the reference (if another, of the same evidence)."""
    s = answer.selection
    if s is None:
        return None, None
    by_name = {m.candidate: m for m in answer.candidates}
    reference = by_name.get(s.reference)
    subject = by_name.get(s.chosen or "") or reference
    if subject is reference or (reference and subject and reference.kind != subject.kind):
        return subject, None
    return subject, reference


def _with(m: Measurement, unit: _Unit) -> tuple[Layer, ...]:
    """Return the layers if any has a figure: of what Vela leaves on the CPU none has."""
    return m.layers if any(unit.figure(layer) is not None for layer in m.layers) else ()


def _series(m: Measurement | None, look: dict[str, Mark]) -> str:
    return f"series-{look[m.candidate].series}" if m else ""


def _figure(layer: Layer | None, unit: _Unit) -> float | None:
    return None if layer is None else unit.figure(layer)


def _name(pair: Pair) -> str:
    layer = pair.second or pair.first
    assert layer is not None
    # TFLite joins the names of all that it fused; the last is the operator's own
    return layers.plain_name(layer.name.rpartition(";")[2]) or layer.operator


def _columns(names: tuple[str, str], unit: _Unit, has_both: bool) -> list[Column[Pair]]:
    def written(layer: Layer | None) -> str:
        value = _figure(layer, unit)
        return figures.ABSENT if value is None else unit.write(value)

    def ratio(pair: Pair) -> str:
        first, second = _figure(pair.first, unit), _figure(pair.second, unit)
        return figures.ratio(second / first) if first and second is not None else figures.ABSENT

    def told(layer: Layer | None, field: str) -> str:
        return str(getattr(layer, field) or "") if layer else figures.ABSENT

    own: list[Column[Pair]] = [
        ("operator", lambda p: told(p.second, "operator")),
        (f"{names[1]}: {unit.name}", lambda p: written(p.second)),
        ("run by", lambda p: told(p.second, "provider")),
        ("MACs", lambda p: f"{p.second.num_macs:,}" if p.second and p.second.num_macs else ""),
    ]
    if not has_both:
        return [("layer", _name), *own]
    return [
        ("layer", _name),
        (f"operator in {names[0]}", lambda p: told(p.first, "operator")),
        (f"{names[0]}: {unit.name}", lambda p: written(p.first)),
        *own,
        ("ratio", ratio),
        ("paired by", lambda p: p.by or "nothing"),
    ]


def _notes(
    pairs: tuple[Pair, ...],
    num_drawn: int,
    reference: Measurement | None,
    subject: Measurement,
    unit: _Unit,
) -> list[str]:
    notes = []
    if unit is CYCLES:
        notes.append(
            "Cycles of the accelerator, as its compiler estimates them; nothing was timed."
        )
    if any(pair.first for pair in pairs):
        by = [pair.by for pair in pairs]
        order = f", {by.count('order')} by order among operators of one kind"
        notes.append(
            f"{by.count('name')} layers are paired by name{order if 'order' in by else ''}. {LONE}"
        )
    elif reference is not None:
        notes.append(ALONE)
    covered = [
        f"{figures.ratio(ratio)} of {words.readable(m.candidate)}"
        for m in (reference, subject)
        if m is not None and (ratio := layers.coverage(m.layers, m.latency_ms.p50)) is not None
    ]
    if covered:
        notes.append(f"Their sum against p50: {', '.join(covered)}. {SLOWED}")
    if num_drawn > chart.MAX_LAYERS:
        notes.append(
            f"Drawn are the {chart.MAX_LAYERS} longest of {len(pairs)} layers; the table has all."
        )
    return notes
