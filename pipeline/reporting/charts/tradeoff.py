"""Quality against latency, with both intervals and the Pareto front."""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.measurement import Measurement, Quality
from pipeline.reporting import figures, pareto
from pipeline.reporting.charts import scales, scatter, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scales import Scale
from pipeline.reporting.charts.scatter import Point

# Quality farther away than this many times the span of the candidates that may ship is drawn at the
# border: one broken candidate would press all others into a line.
FAR = 4.0


def drawable(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Keep what has both a latency and a quality."""
    return [m for m in measurements if m.latency_ms.p50 is not None and m.quality is not None]


def chart(
    key: str, title: str, measurements: Sequence[Measurement], look: dict[str, Mark]
) -> Markup:
    """Draw the candidates of one kind of evidence; at least one must be `drawable`."""
    shown = drawable(measurements)
    assert shown, "nothing has both figures"
    q = _quality(shown[0])
    x, y = _latency_scale(shown), _quality_scale(shown, look)
    front = pareto.front(shown)
    points = [_point(m, x, y, look[m.candidate]) for m in shown]
    parts = [
        *scatter.grid(x, y, figures.duration, scales.label),
        *_titles(q),
        _front(front, x, y),
        *(_whiskers(m, x, y, look[m.candidate]) for m in shown),
        *scatter.glyphs(points),
        *scatter.numbers(points),
    ]
    names = ", ".join(look[m.candidate].name for m in front)
    description = (
        f"{len(shown)} candidates: {q.metric} on validation against p50 latency. "
        f"On the Pareto front, fastest first: {names}. All figures are in the table below."
    )
    return svg.image(key, title, description, scatter.WIDTH, scatter.HEIGHT, parts)


def far_off(measurements: Sequence[Measurement], look: dict[str, Mark]) -> list[Measurement]:
    """List what is drawn at the border because its quality is far from all others."""
    shown = drawable(measurements)
    scale = _quality_scale(shown, look) if shown else None
    return [m for m in shown if scale is not None and not scale.holds(_quality(m).value)]


def _quality(m: Measurement) -> Quality:
    assert m.quality is not None
    return m.quality


def _latency_scale(shown: Sequence[Measurement]) -> Scale:
    bounds = [
        bound
        for m in shown
        for bound in (m.latency_ms.p50_lower, m.latency_ms.p50, m.latency_ms.p50_upper)
        if bound is not None
    ]
    return scales.fit(bounds, scatter.LEFT + 14, scatter.RIGHT - 10)


def _quality_scale(shown: Sequence[Measurement], look: dict[str, Mark]) -> Scale:
    def bounds(chosen: Sequence[Measurement]) -> list[float]:
        return [q.value + sign * q.half_width for q in map(_quality, chosen) for sign in (-1, 1)]

    fitting = [m for m in shown if look[m.candidate].standing in {"ships", "fits"}]
    inner = bounds(fitting or shown)
    reach = FAR * (max(inner) - min(inner))
    near = [
        m
        for m in shown
        if reach == 0 or min(inner) - reach <= _quality(m).value <= max(inner) + reach
    ]
    held = bounds(near)
    return scales.fit(held, scatter.BOTTOM - 12, scatter.TOP + 12, log=False)


def _titles(q: Quality) -> list[Markup]:
    unit = f", {q.unit}" if q.unit else ""
    better = "\N{UPWARDS ARROW}" if q.direction == "higher" else "\N{DOWNWARDS ARROW}"
    return scatter.titles("\N{LEFTWARDS ARROW} p50 latency", f"{better} {q.metric}{unit}")


def _place(m: Measurement, x: Scale, y: Scale) -> tuple[float, float]:
    assert m.latency_ms.p50 is not None
    value = _quality(m).value
    at = y(value)
    if not y.holds(value):
        at = scatter.BOTTOM - 9 if at > (scatter.TOP + scatter.BOTTOM) / 2 else scatter.TOP + 9
    return x(m.latency_ms.p50), at


def _front(front: Sequence[Measurement], x: Scale, y: Scale) -> Markup:
    """Draw steps: to the next latency at this quality, then to the next quality."""
    points: list[tuple[float, float]] = []
    for m in front:
        px, py = _place(m, x, y)
        if points:
            points.append((px, points[-1][1]))
        points.append((px, py))
    written = " ".join(f"{svg.number(px)},{svg.number(py)}" for px, py in points)
    return svg.element("polyline", points=written, class_="front")


def _whiskers(m: Measurement, x: Scale, y: Scale, mark: Mark) -> Markup:
    px, py = _place(m, x, y)
    parts = []
    latency, q = m.latency_ms, _quality(m)
    if latency.p50_lower is not None and latency.p50_upper is not None:
        parts.append(svg.line(x(latency.p50_lower), py, x(latency.p50_upper), py, "whisker"))
    if y.holds(q.value) and q.half_width > 0:
        lower, upper = y(q.value - q.half_width), y(q.value + q.half_width)
        parts.append(svg.line(px, lower, px, upper, "whisker"))
    return svg.element("g", *parts, class_=mark.css)


def _point(m: Measurement, x: Scale, y: Scale, mark: Mark) -> Point:
    """Place a candidate; what is drawn at the border has its value in its label."""
    px, py = _place(m, x, y)
    tip = f"{mark.name}: {figures.latency(m)}, {figures.quality(m.quality)}"
    return Point(px, py, mark, _label(m, y, mark), tip)


def _label(m: Measurement, y: Scale, mark: Mark) -> str:
    q = _quality(m)
    if y.holds(q.value):
        return str(mark.number)
    arrow = "\N{DOWNWARDS ARROW}" if q.value < y.lower else "\N{UPWARDS ARROW}"
    return f"{mark.number} {arrow}{figures.amount(q.value, q.unit)}"
