"""Throughput against batch size: one line for each number of threads and streams."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipeline.measurement import INVALID, Load
from pipeline.reporting.charts import marks, scales, scatter, svg
from pipeline.reporting.charts.scales import Scale

MIN_TICK_GAP = 30
Setting = tuple[int, int]  # threads, streams


def offline(loads: Sequence[Load]) -> list[Load]:
    """Return the Offline loads by setting and batch size; those without a rate too."""
    found = [load for load in loads if load.scenario == "Offline"]
    return sorted(found, key=lambda load: (load.num_threads, load.num_streams, load.batch_size))


def rate(load: Load) -> float | None:
    """Return the samples a second; None of what was refused, or of an invalid run."""
    has_rate = load.num_queries > 0 and not INVALID.keys() & set(load.flags)
    return load.throughput_per_s if has_rate else None


def lines(loads: Sequence[Load]) -> dict[Setting, tuple[Load, ...]]:
    """Put the Offline loads of one setting together, by batch size; those that have a `rate`."""
    found: dict[Setting, list[Load]] = {}
    for load in offline(loads):
        if rate(load) is not None:
            found.setdefault((load.num_threads, load.num_streams), []).append(load)
    return {setting: tuple(line) for setting, line in found.items()}


def named(setting: Setting) -> str:
    """Say a setting in words."""
    threads, streams = setting
    plural = "s" if threads > 1 else ""
    return f"{threads} thread{plural}, {streams} stream{'s' if streams > 1 else ''}"


def chart(key: str, title: str, drawn: Mapping[Setting, Sequence[Load]]) -> Markup:
    """Draw every line; batch sizes that were run are the ticks."""
    loads = [load for line in drawn.values() for load in line]
    batches = sorted({load.batch_size for load in loads})
    x = scales.fit([float(b) for b in batches], scatter.LEFT + 12, scatter.RIGHT - 12)
    rates = [load.throughput_per_s for load in loads]
    y = scales.fit(rates, scatter.BOTTOM - 10, scatter.TOP + 10)
    parts = [*_grid(x, y, batches), *scatter.titles("batch size", "\N{UPWARDS ARROW} samples / s")]
    parts += [_line(line, order, x, y) for order, line in enumerate(drawn.values())]
    best = max(loads, key=lambda load: load.throughput_per_s)
    description = (
        f"Samples a second by batch size, {len(drawn)} lines; the most is "
        f"{best.throughput_per_s:,.0f} at batch {best.batch_size} with "
        f"{named((best.num_threads, best.num_streams))}. All figures are in the table below."
    )
    return svg.image(key, title, description, scatter.WIDTH, scatter.HEIGHT, parts)


def icon(order: int) -> Markup:
    """Draw one line's mark for the legend."""
    return svg.element(
        "svg", svg.line(1, 11, 21, 11, f"rate {_css(order)}"), _dot(order, 11, 11),
        class_="icon", viewBox="0 0 22 22", aria_hidden="true", focusable="false",
    )  # fmt: skip


def _grid(x: Scale, y: Scale, batches: Sequence[int]) -> list[Markup]:
    parts = []
    last = float("-inf")
    for batch in batches:
        at = x(batch)
        parts.append(svg.line(at, scatter.TOP, at, scatter.BOTTOM, "grid"))
        if at - last >= MIN_TICK_GAP:
            parts.append(svg.text(str(batch), at, scatter.BOTTOM + 19, "tick", "middle"))
            last = at
    for value in y.ticks(scatter.TICK_GAP_Y):
        parts += [
            svg.line(scatter.LEFT, y(value), scatter.RIGHT, y(value), "grid"),
            svg.text(scales.label(value), scatter.LEFT - 7, y(value) + 4.5, "tick", "end"),
        ]
    parts.append(svg.line(scatter.LEFT, scatter.BOTTOM, scatter.RIGHT, scatter.BOTTOM, "axis"))
    parts.append(svg.line(scatter.LEFT, scatter.TOP, scatter.LEFT, scatter.BOTTOM, "axis"))
    return parts


def _line(line: Sequence[Load], order: int, x: Scale, y: Scale) -> Markup:
    places = [(x(load.batch_size), y(load.throughput_per_s)) for load in line]
    points = " ".join(f"{svg.number(px)},{svg.number(py)}" for px, py in places)
    drawn = svg.element("polyline", points=points, class_=f"rate {_css(order)}")
    return svg.element("g", drawn, *(_dot(order, px, py) for px, py in places))


def _dot(order: int, x: float, y: float) -> Markup:
    """Draw a point; shapes take turns, so that colour is not all that tells lines apart."""
    shapes = list(marks.SHAPES.values())
    corners = shapes[order % len(shapes)]
    return svg.element("g", marks.shape(corners, x, y, 4.4), class_=f"mark {_css(order)}")


def _css(order: int) -> str:
    return f"series-{order % marks.NUM_SERIES + 1}"
