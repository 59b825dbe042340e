"""One look per candidate on the whole page: a number, a shape for its precision, a colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from pipeline.measurement import Measurement
from pipeline.reporting import words
from pipeline.reporting.answer import Answer
from pipeline.reporting.charts import svg

Standing = Literal["ships", "fits", "rejected", "not measured"]

# Number of colours in report.css; a seventh variant takes the first again, numbers tell them apart.
NUM_SERIES = 6
# A shape as corners on the unit circle, in turns clockwise from the top; "" is the circle itself.
SHAPES: dict[str, tuple[float, ...]] = {
    "fp32": (),
    "bf16": (1 / 6, 3 / 6, 5 / 6),
    "fp16": (0, 1 / 5, 2 / 5, 3 / 5, 4 / 5),
    "fp16-weights": (1 / 8, 3 / 8, 5 / 8, 7 / 8),
    "int8-dynamic": (0, 1 / 3, 2 / 3),
    "int8-static": (0, 1 / 4, 2 / 4, 3 / 4),
}
AREA = {0: 1.0, 3: 1.35, 4: 1.22, 5: 1.12}  # radius by corners, so that shapes look equally large


@dataclass(frozen=True)
class Mark:
    """How a candidate is shown: the same in every chart and table of its target."""

    number: int
    candidate: str
    variant: str
    precision: str
    series: int
    standing: Standing

    @property
    def css(self) -> str:
        """The classes that give colour and fill."""
        return f"series-{self.series} {self.standing.replace(' ', '-')}"

    @property
    def name(self) -> str:
        """The candidate in words."""
        return words.readable(self.candidate)


def series_of(answers: Sequence[Answer]) -> dict[str, int]:
    """Give each variant of all targets a colour, the reference's variant the first."""
    variants: dict[str, None] = {}
    for answer in answers:
        if answer.selection is not None:
            variants.setdefault(words.parts(answer.selection.reference)[0])
    for answer in answers:
        for candidate in sorted(m.candidate for m in answer.candidates):
            variants.setdefault(words.parts(candidate)[0])
    return {variant: index % NUM_SERIES + 1 for index, variant in enumerate(variants)}


def of(answer: Answer, ordered: Sequence[Measurement], series: dict[str, int]) -> dict[str, Mark]:
    """Give each candidate of a target its mark, numbered in the order given."""
    marks = {}
    for number, m in enumerate(ordered, 1):
        variant, precision = words.parts(m.candidate)
        standing = _standing(answer, m)
        mark = Mark(number, m.candidate, variant, precision, series[variant], standing)
        marks[m.candidate] = mark
    return marks


def _standing(answer: Answer, m: Measurement) -> Standing:
    if m.kind == "not_measured":
        return "not measured"
    s = answer.selection
    if s is None or m.candidate not in s.ranking:
        return "rejected"
    return "ships" if m.candidate == s.chosen else "fits"


def glyph(mark: Mark, x: float, y: float, radius: float) -> Markup:
    """Draw a candidate's shape around a point; what ships has a ring."""
    corners = SHAPES.get(mark.precision, ())
    parts = [shape(corners, x, y, radius)]
    if mark.standing == "ships":
        parts.insert(0, svg.element("circle", cx=x, cy=y, r=radius * 1.95, class_="ring"))
    return svg.element("g", *parts, class_=f"mark {mark.css}")


def shape(corners: Sequence[float], x: float, y: float, radius: float) -> Markup:
    """Draw a shape of `SHAPES` around a point."""
    if not corners:
        return svg.element("circle", cx=x, cy=y, r=radius)
    size = radius * AREA[len(corners)]
    points = " ".join(
        f"{svg.number(x + size * math.sin(2 * math.pi * turn))},"
        f"{svg.number(y - size * math.cos(2 * math.pi * turn))}"
        for turn in corners
    )
    return svg.element("polygon", points=points)


def icon(mark: Mark) -> Markup:
    """Draw the shape alone, for a legend or a table row; decoration beside the name."""
    return svg.element(
        "svg",
        glyph(mark, 11, 11, 5),
        class_="icon",
        viewBox="0 0 22 22",
        aria_hidden="true",
        focusable="false",
    )
