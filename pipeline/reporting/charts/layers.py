"""Two candidates layer by layer: one row a layer, the reference's bar above the other's."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from pipeline.reporting.charts import svg
from pipeline.reporting.charts.scales import Scale

WIDTH = 480
GUTTER, RIGHT = 206, 466
TOP = 8
ROW, BAR = 27, 9
TICK_GAP = 66
MAX_LAYERS = 24  # those that take longest; all are in the table
MAX_NAME = 18


class Row(NamedTuple):
    """One layer: its figures in either candidate, None where it has none there."""

    name: str
    first: float | None
    second: float | None


def longest(rows: Sequence[Row]) -> list[Row]:
    """Keep the rows with the largest figures, in the order given."""
    by_size = sorted(range(len(rows)), key=lambda index: -_largest(rows[index]))
    return [rows[index] for index in sorted(by_size[:MAX_LAYERS])]


def chart(
    key: str, title: str, rows: Sequence[Row], css: tuple[str, str], write: Callable[[float], str]
) -> Markup:
    """Draw bars from zero; ``css`` are the classes of both, ``write`` formats a figure."""
    shown = longest(rows)
    x = Scale(0.0, max(max(map(_largest, shown)) * 1.02, 1e-9), GUTTER, RIGHT)
    bottom = TOP + ROW * len(shown)
    tops = (0, BAR) if any(row.first is not None for row in shown) else (0, BAR / 2)
    parts = _axis(x, bottom, write)
    for index, row in enumerate(shown):
        top = TOP + ROW * index + 4.0
        name = svg.text(svg.short(row.name, MAX_NAME), GUTTER - 6, top + 13, "row-name", "end")
        told = " and ".join("none" if v is None else write(v) for v in (row.first, row.second))
        bars = [
            _bar(value, x, top + below, style)
            for value, below, style in zip((row.first, row.second), tops, css, strict=True)
            if value is not None
        ]
        parts.append(svg.element("g", svg.element("title", f"{row.name}: {told}"), name, *bars))
    most = max(shown, key=_largest)
    description = (
        f"Bars of {len(shown)} layers in the order in which they run; the longest is {most.name}, "
        f"{write(_largest(most))}. All figures are in the table below."
    )
    return svg.image(key, title, description, WIDTH, bottom + 28, parts)


def swatch(css: str) -> Markup:
    """Draw a small bar for the legend."""
    bar = svg.element("rect", x=2, y=6.5, width=18, height=BAR, rx=1.5, class_=f"bar {css}")
    return svg.element(
        "svg", bar, class_="icon", viewBox="0 0 22 22", aria_hidden="true", focusable="false"
    )


def _largest(row: Row) -> float:
    return max(row.first or 0.0, row.second or 0.0)


def _axis(x: Scale, bottom: float, write: Callable[[float], str]) -> list[Markup]:
    parts = [svg.line(GUTTER, TOP, GUTTER, bottom, "axis")]
    for value in x.ticks(TICK_GAP):
        at = x(value)
        anchor = "end" if at > RIGHT - 26 else "middle"
        parts += [
            svg.line(at, TOP, at, bottom, "grid"),
            svg.text(write(value), at, bottom + 19, "tick", anchor),
        ]
    return parts


def _bar(value: float, x: Scale, top: float, css: str) -> Markup:
    width = max(1.0, x(value) - GUTTER)
    return svg.element(
        "rect", x=GUTTER, y=top, width=width, height=BAR - 1.0, rx=1.5, class_=f"bar {css}"
    )
