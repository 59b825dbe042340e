"""Which layers suffer most at low precision: one row a layer, one dot a variant."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipeline.reporting.charts import scales, svg
from pipeline.reporting.evidence import Layer

WIDTH = 480
GUTTER = 206
RIGHT = 468
ROW = 23
TOP = 8
TICK_GAP = 48
MAX_LAYERS = 24  # the most sensitive; all are in the table
MAX_NAME = 20


def most_sensitive(variants: Mapping[str, Sequence[Layer]]) -> list[str]:
    """Order the layers of all variants by their lowest SQNR; what has no error comes last."""
    lowest: dict[str, float] = {}
    for layers in variants.values():
        for found in layers:
            sqnr = float("inf") if found.sqnr_db is None else found.sqnr_db
            lowest[found.layer] = min(sqnr, lowest.get(found.layer, float("inf")))
    return sorted(lowest, key=lambda layer: (lowest[layer], layer))


def chart(
    key: str, title: str, variants: Mapping[str, Sequence[Layer]], series: Mapping[str, int]
) -> Markup:
    """Draw the signal-to-noise ratio of the outputs when one layer alone is quantized."""
    layers = most_sensitive(variants)[:MAX_LAYERS]
    known = [s.sqnr_db for found in variants.values() for s in found if s.sqnr_db is not None]
    x = scales.fit(known or [0.0], GUTTER + 8, RIGHT - 4, log=False)
    bottom = TOP + ROW * len(layers)
    parts = _axis(x, bottom)
    for index, layer in enumerate(layers):
        at = TOP + ROW * (index + 0.5)
        name = svg.text(svg.short(layer, MAX_NAME), GUTTER - 6, at + 4.5, "row-name", "end")
        parts += [
            svg.element("g", svg.element("title", layer), name),
            svg.line(GUTTER, at, RIGHT, at, "grid"),
        ]
        for order, (variant, found) in enumerate(variants.items()):
            sqnr = next((s.sqnr_db for s in found if s.layer == layer), None)
            if sqnr is not None:
                parts.append(dot(order, series.get(variant, 1), x(sqnr), at))
    description = (
        f"Signal to quantization noise of the outputs, in dB, by layer and variant; "
        f"the most sensitive layer is {layers[0]}. All figures are in the table below."
    )
    return svg.image(key, title, description, WIDTH, bottom + 44, parts)


def _axis(x: scales.Scale, bottom: float) -> list[Markup]:
    parts = [svg.line(GUTTER, bottom, RIGHT, bottom, "axis")]
    for value in x.ticks(TICK_GAP):
        parts += [
            svg.line(x(value), TOP, x(value), bottom, "grid"),
            svg.text(scales.label(value), x(value), bottom + 18, "tick", "middle"),
        ]
    middle = (GUTTER + RIGHT) / 2
    title = "SQNR, dB \N{RIGHTWARDS ARROW}"
    parts.append(svg.text(title, middle, bottom + 38, "axis-title", "middle"))
    return parts


def dot(order: int, series: int, x: float, y: float) -> Markup:
    """Draw one variant's dot; shapes take turns, so that colour is not all that tells them."""
    css = f"mark fits series-{series}"
    if order % 3 == 0:
        return svg.element("circle", cx=x, cy=y, r=5, class_=css)
    if order % 3 == 1:
        points = f"{_at(x, y - 6.2)} {_at(x + 6.2, y)} {_at(x, y + 6.2)} {_at(x - 6.2, y)}"
        return svg.element("polygon", points=points, class_=css)
    return svg.element("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, class_=css)


def _at(x: float, y: float) -> str:
    return f"{svg.number(x)},{svg.number(y)}"
