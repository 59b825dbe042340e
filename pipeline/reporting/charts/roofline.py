"""The roofline: what candidates achieve below what their hardware could (Williams et al. 2009).

Below the ridge a net waits for memory, above it for arithmetic (doi:10.1145/1498765.1498785).
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipeline import console
from pipeline.reporting import figures
from pipeline.reporting.charts import scales, scatter, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scales import Scale
from pipeline.reporting.charts.scatter import Point
from pipeline.reporting.roofline import Placed, Roofs

UNIT = "OPS"


def chart(
    key: str, title: str, placed: Sequence[Placed], roofs: Roofs, look: Mapping[str, Mark]
) -> Markup:
    """Draw candidates of one kind of evidence under the roofs; both axes are logarithmic."""
    x, y = _scales(placed, roofs)
    points = [_point(p, x, y, look[p.measurement.candidate]) for p in placed]
    parts = [
        *scatter.grid(x, y, scales.label, _tick),
        *scatter.titles(
            "operations per byte moved", "\N{UPWARDS ARROW} operations per second (OPS)"
        ),
        *_roofs(roofs, x, y),
        *scatter.glyphs(points),
        *scatter.numbers(points),
    ]
    best = max(placed, key=lambda p: p.ops_per_s)
    description = (
        f"{len(placed)} candidates by operations per byte and per second; the most is "
        f"{ops(best.ops_per_s)} ({look[best.measurement.candidate].name}). "
        "All figures are in the table below."
    )
    return svg.image(key, title, description, scatter.WIDTH, scatter.HEIGHT, parts)


def ops(value: float) -> str:
    """Write operations a second."""
    return console.scaled(value, UNIT).replace(" ", figures.SPACE)


def _tick(value: float) -> str:
    number, space, unit = ops(value).removesuffix(UNIT).partition(figures.SPACE)
    return f"{float(number):g}{space}{unit}"


def icon(css: str) -> Markup:
    """Draw a roof's stroke for the legend."""
    return svg.element(
        "svg", svg.line(1, 11, 21, 11, f"roof {css}"), class_="icon", viewBox="0 0 22 22",
        aria_hidden="true", focusable="false",
    )  # fmt: skip


def _scales(placed: Sequence[Placed], roofs: Roofs) -> tuple[Scale, Scale]:
    ridges = [p / roofs.bytes_per_s for p in roofs.peaks.values()] if roofs.bytes_per_s else []
    xs = [p.ops_per_byte for p in placed] + ridges
    ys = [p.ops_per_s for p in placed] + list(roofs.peaks.values())
    return (
        scales.fit([min(xs) / 2, max(xs) * 2], scatter.LEFT, scatter.RIGHT, log=True),
        scales.fit([min(ys) / 2, max(ys) * 2], scatter.BOTTOM, scatter.TOP, log=True),
    )


def _roofs(roofs: Roofs, x: Scale, y: Scale) -> list[Markup]:
    """Draw each precision's peak from its ridge on, and the bandwidth up to the highest."""
    parts = []
    rate = roofs.bytes_per_s
    for precision, peak in roofs.peaks.items():
        start = max(x.lower, peak / rate) if rate else x.lower
        if x.holds(start):
            parts.append(_line(start, peak, x.upper, peak, x, y, precision, ops(peak)))
    if rate:
        top = max(roofs.peaks.values(), default=y.upper)
        lower, upper = max(x.lower, y.lower / rate), min(x.upper, top / rate)
        if lower < upper:
            said = f"memory, {ops(rate).removesuffix(UNIT)}B/s"
            parts.append(_line(lower, lower * rate, upper, upper * rate, x, y, "memory", said))
    return parts


def _line(
    x1: float, y1: float, x2: float, y2: float, x: Scale, y: Scale, css: str, said: str
) -> Markup:
    drawn = svg.line(x(x1), y(y1), x(x2), y(y2), f"roof roof-{css}")
    return svg.element("g", svg.element("title", said), drawn)


def _point(p: Placed, x: Scale, y: Scale, mark: Mark) -> Point:
    tip = f"{mark.name}: {p.ops_per_byte:.3g} operations per byte, {ops(p.ops_per_s)}"
    return Point(x(p.ops_per_byte), y(p.ops_per_s), mark, str(mark.number), tip)
