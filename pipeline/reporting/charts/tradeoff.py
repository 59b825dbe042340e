"""Quality against latency, with both intervals and the Pareto front."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from pipeline.measurement import Measurement, Quality
from pipeline.reporting import figures, pareto
from pipeline.reporting.charts import marks, scales, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scales import Scale

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 466, 34, 262
TICK_GAP_X, TICK_GAP_Y = 62, 34
RADIUS = 5.5
# Quality farther away than this many times the span of the candidates that may ship is drawn at the
# border: one broken candidate would press all others into a line.
FAR = 4.0
# Where a number may stand beside its point, nearest first: offsets of its middle.
PLACES = (
    (14, -13), (-14, -13), (14, 14), (-14, 14), (19, 0), (-19, 0), (18, -17), (-18, -17),
    (0, -17), (0, 18), (26, -18), (-26, -18), (26, 18), (-26, 18), (0, -29), (0, 30),
    (36, -8), (-36, -8), (36, 28), (-36, 28), (36, -30), (-36, -30),
)  # fmt: skip
CHARACTER_WIDTH, CHARACTER_HEIGHT = 8.0, 14.0
CLEAR = 2.0  # between a number and any point
FAR_LABEL = 34  # from here on a line leads from the number to its point

Box = tuple[float, float, float, float]


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
    parts = [
        *_grid(x, y),
        *_titles(q),
        _front(front, x, y),
        *(_whiskers(m, x, y, look[m.candidate]) for m in shown),
        *(_point(m, x, y, look[m.candidate]) for m in shown),
        *_numbers(shown, x, y, look),
    ]
    names = ", ".join(look[m.candidate].name for m in front)
    description = (
        f"{len(shown)} candidates: {q.metric} on validation against p50 latency. "
        f"On the Pareto front, fastest first: {names}. All figures are in the table below."
    )
    return svg.image(key, title, description, WIDTH, HEIGHT, parts)


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
    return scales.fit(bounds, LEFT + 14, RIGHT - 10)


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
    return scales.fit(held, BOTTOM - 12, TOP + 12, log=False)


def _grid(x: Scale, y: Scale) -> list[Markup]:
    parts = []
    for value in x.ticks(TICK_GAP_X):
        parts += [
            svg.line(x(value), TOP, x(value), BOTTOM, "grid"),
            svg.text(figures.duration(value), x(value), BOTTOM + 19, "tick", "middle"),
        ]
    for value in y.ticks(TICK_GAP_Y):
        parts += [
            svg.line(LEFT, y(value), RIGHT, y(value), "grid"),
            svg.text(scales.label(value), LEFT - 7, y(value) + 4.5, "tick", "end"),
        ]
    parts.append(svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    parts.append(svg.line(LEFT, TOP, LEFT, BOTTOM, "axis"))
    return parts


def _titles(q: Quality) -> list[Markup]:
    unit = f", {q.unit}" if q.unit else ""
    better = "\N{UPWARDS ARROW}" if q.direction == "higher" else "\N{DOWNWARDS ARROW}"
    return [
        svg.text(f"{better} {q.metric}{unit}", 4, 18, "axis-title"),
        svg.text(
            "\N{LEFTWARDS ARROW} p50 latency", (LEFT + RIGHT) / 2, HEIGHT - 10, "axis-title",
            "middle",
        ),
    ]  # fmt: skip


def _place(m: Measurement, x: Scale, y: Scale) -> tuple[float, float]:
    assert m.latency_ms.p50 is not None
    value = _quality(m).value
    at = y(value)
    if not y.holds(value):
        at = BOTTOM - 9 if at > (TOP + BOTTOM) / 2 else TOP + 9
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


def _point(m: Measurement, x: Scale, y: Scale, mark: Mark) -> Markup:
    px, py = _place(m, x, y)
    tip = f"{mark.name}: {figures.latency(m)}, {figures.quality(m.quality)}"
    parts = [svg.element("title", tip), marks.glyph(mark, px, py, RADIUS)]
    return svg.element("g", *parts)


def _numbers(
    shown: Sequence[Measurement], x: Scale, y: Scale, look: dict[str, Mark]
) -> list[Markup]:
    """Put each candidate's number where it hides no point and no other number.

    What is drawn at the border has its value there too.
    """
    taken: list[Box] = []
    for m in shown:
        px, py = _place(m, x, y)
        reach = CLEAR + RADIUS * (2.2 if look[m.candidate].standing == "ships" else 1.3)
        taken.append((px - reach, py - reach, px + reach, py + reach))
    parts = []
    for m in sorted(shown, key=lambda m: _place(m, x, y)):
        px, py = _place(m, x, y)
        written = _label(m, y, look[m.candidate])
        dx, dy = _free(px, py, written, taken)
        taken.append(_box(px + dx, py + dy, written))
        if abs(dx) + abs(dy) > FAR_LABEL:
            parts.append(svg.line(px, py, px + dx * 0.72, py + dy * 0.72, "leader"))
        parts.append(svg.text(written, px + dx, py + dy + 4.5, "number", "middle"))
    return parts


def _label(m: Measurement, y: Scale, mark: Mark) -> str:
    q = _quality(m)
    if y.holds(q.value):
        return str(mark.number)
    arrow = "\N{DOWNWARDS ARROW}" if q.value < y.lower else "\N{UPWARDS ARROW}"
    return f"{mark.number} {arrow}{figures.amount(q.value, q.unit)}"


def _free(px: float, py: float, written: str, taken: Sequence[Box]) -> tuple[float, float]:
    half = len(written) * CHARACTER_WIDTH / 2

    def cost(place: tuple[float, float]) -> tuple[int, int]:
        box = _box(px + place[0], py + place[1], written)
        outside = box[0] < LEFT or box[2] > RIGHT or box[1] < TOP or box[3] > BOTTOM
        return sum(_overlap(box, other) for other in taken) + 2 * outside, places.index(place)

    # a long label stands as far from its point as a short one, on its nearer end
    shift = half - CHARACTER_WIDTH / 2
    places = [(dx + math.copysign(shift, dx) if dx else 0.0, float(dy)) for dx, dy in PLACES]
    return min(places, key=cost)


def _box(x: float, y: float, written: str) -> Box:
    half = len(written) * CHARACTER_WIDTH / 2
    return x - half, y - CHARACTER_HEIGHT / 2, x + half, y + CHARACTER_HEIGHT / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
