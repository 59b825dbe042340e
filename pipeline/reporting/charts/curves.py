"""Figures by training step: lines that share a unit share a chart."""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.reporting.charts import scales, svg
from pipeline.reporting.charts.scales import Scale
from pipeline.reporting.evidence import Curve

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 62, 368, 14, 188
TICK_GAP_X, TICK_GAP_Y = 42, 34
VALIDATION = "validation_"
LOG_NAMES = ("loss", "learning_rate")  # what falls by orders of magnitude


def grouped(curves: Sequence[Curve]) -> dict[str, tuple[Curve, ...]]:
    """Put ``x`` and ``validation_x`` together; a lone curve stands for itself."""
    groups: dict[str, list[Curve]] = {}
    names = {curve.name for curve in curves}
    for curve in sorted(curves, key=lambda c: c.name):
        plain = curve.name.removeprefix(VALIDATION)
        groups.setdefault(plain if plain in names else curve.name, []).append(curve)
    return {name: tuple(group) for name, group in groups.items()}


def chart(key: str, title: str, curves: Sequence[Curve]) -> Markup:
    """Draw curves over the same steps; the first is solid, the next dashed, and so on."""
    drawn = [curve for curve in curves if curve.steps]
    steps = [step for curve in drawn for step in curve.steps] or [0.0]
    values = [value for curve in drawn for value in curve.values] or [0.0]
    x = scales.fit(steps, LEFT + 2, RIGHT, log=False)
    spans_orders = any(curve.name.endswith(LOG_NAMES) for curve in drawn)
    y = scales.fit(values, BOTTOM - 2, TOP, log=None if spans_orders else False)
    parts = _grid(x, y)
    parts += [_line(curve, order, x, y) for order, curve in enumerate(drawn)]
    ends = "; ".join(f"{c.name} ends at {c.values[-1]:.4g}" for c in drawn) or "no step was logged"
    description = f"By training step: {ends}. All figures are in the table below."
    return svg.image(key, title, description, WIDTH, HEIGHT, parts)


def _grid(x: Scale, y: Scale) -> list[Markup]:
    parts = [
        svg.text(str(int(value)), x(value), BOTTOM + 19, "tick", "middle")
        for value in x.ticks(TICK_GAP_X)
        if value == int(value)  # there is no half step
    ]
    for value in y.ticks(TICK_GAP_Y):
        parts += [
            svg.line(LEFT, y(value), RIGHT, y(value), "grid"),
            svg.text(scales.label(value), LEFT - 7, y(value) + 4.5, "tick", "end"),
        ]
    middle = (LEFT + RIGHT) / 2
    return [
        *parts,
        svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"),
        svg.text("epoch", middle, HEIGHT - 8, "axis-title", "middle"),
    ]


def _line(curve: Curve, order: int, x: Scale, y: Scale) -> Markup:
    points = " ".join(
        f"{svg.number(x(step))},{svg.number(y(value))}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    )
    css = f"curve curve-{order % 3 + 1}"
    last = svg.element("circle", cx=x(curve.steps[-1]), cy=y(curve.values[-1]), r=3.4, class_=css)
    return svg.element("g", svg.element("polyline", points=points, class_=css), last)
