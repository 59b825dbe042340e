"""What charts of points share: the frame, its grid, and numbers that hide neither points nor text.

A point is a candidate: its mark, and its number beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.reporting.charts import marks, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scales import Scale

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 466, 34, 262
TICK_GAP_X, TICK_GAP_Y = 62, 34
RADIUS = 5.5
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


@dataclass(frozen=True)
class Point:
    """A candidate's place; ``label`` stands beside it, ``tip`` says its figures."""

    x: float
    y: float
    mark: Mark
    label: str
    tip: str


def grid(
    x: Scale, y: Scale, write_x: Callable[[float], str], write_y: Callable[[float], str]
) -> list[Markup]:
    """Draw the axes with their ticks."""
    parts = []
    for value in x.ticks(TICK_GAP_X):
        parts += [
            svg.line(x(value), TOP, x(value), BOTTOM, "grid"),
            svg.text(write_x(value), x(value), BOTTOM + 19, "tick", "middle"),
        ]
    for value in y.ticks(TICK_GAP_Y):
        parts += [
            svg.line(LEFT, y(value), RIGHT, y(value), "grid"),
            svg.text(write_y(value), LEFT - 7, y(value) + 4.5, "tick", "end"),
        ]
    parts.append(svg.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    parts.append(svg.line(LEFT, TOP, LEFT, BOTTOM, "axis"))
    return parts


def titles(x_title: str, y_title: str) -> list[Markup]:
    """Write what the axes are."""
    return [
        svg.text(y_title, 4, 18, "axis-title"),
        svg.text(x_title, (LEFT + RIGHT) / 2, HEIGHT - 10, "axis-title", "middle"),
    ]


def glyphs(points: Sequence[Point]) -> list[Markup]:
    """Draw each candidate's mark; pointing at it tells its figures."""
    return [
        svg.element(
            "g", svg.element("title", point.tip), marks.glyph(point.mark, point.x, point.y, RADIUS)
        )
        for point in points
    ]


def numbers(points: Sequence[Point], taken: Sequence[Box] = ()) -> list[Markup]:
    """Put each label where it hides no point, no other label and nothing that is ``taken``."""
    boxes = [*taken, *(_around(point) for point in points)]
    parts = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        dx, dy = _free(point, boxes)
        boxes.append(box(point.x + dx, point.y + dy, point.label))
        if abs(dx) + abs(dy) > FAR_LABEL:
            end_x, end_y = point.x + dx * 0.72, point.y + dy * 0.72
            parts.append(svg.line(point.x, point.y, end_x, end_y, "leader"))
        parts.append(svg.text(point.label, point.x + dx, point.y + dy + 4.5, "number", "middle"))
    return parts


def box(x: float, y: float, written: str) -> Box:
    """Estimate the room of a label from its middle."""
    half = len(written) * CHARACTER_WIDTH / 2
    return x - half, y - CHARACTER_HEIGHT / 2, x + half, y + CHARACTER_HEIGHT / 2


def overlap(a: Box, b: Box) -> bool:
    """Tell whether two boxes share room."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _around(point: Point) -> Box:
    reach = CLEAR + RADIUS * (2.2 if point.mark.standing == "ships" else 1.3)
    return point.x - reach, point.y - reach, point.x + reach, point.y + reach


def _free(point: Point, taken: Sequence[Box]) -> tuple[float, float]:
    half = len(point.label) * CHARACTER_WIDTH / 2

    def cost(place: tuple[float, float]) -> tuple[int, int]:
        found = box(point.x + place[0], point.y + place[1], point.label)
        outside = found[0] < LEFT or found[2] > RIGHT or found[1] < TOP or found[3] > BOTTOM
        return sum(overlap(found, other) for other in taken) + 2 * outside, places.index(place)

    # a long label stands as far from its point as a short one, on its nearer end
    shift = half - CHARACTER_WIDTH / 2
    places = [(dx + math.copysign(shift, dx) if dx else 0.0, float(dy)) for dx, dy in PLACES]
    return min(places, key=cost)
