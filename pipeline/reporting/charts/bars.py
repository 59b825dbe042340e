"""Sizes as bars from zero, one row a candidate."""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.measurement import Measurement
from pipeline.reporting import figures
from pipeline.reporting.charts import marks, svg
from pipeline.reporting.charts.marks import Mark

WIDTH = 480
ROW = 40
BAR = 11
NAME_AT = 24
MAX_NAME = 36


def chart(
    key: str, title: str, measurements: Sequence[Measurement], look: dict[str, Mark]
) -> Markup:
    """Draw the size of every candidate, measured or not."""
    largest = max(m.size_bytes for m in measurements)
    parts: list[Markup] = []
    for index, m in enumerate(measurements):
        parts += _row(m, look[m.candidate], index * ROW, m.size_bytes / max(1, largest))
    smallest = min(measurements, key=lambda m: m.size_bytes)
    description = (
        f"Sizes of {len(measurements)} candidates, from {figures.size(smallest.size_bytes)} "
        f"({look[smallest.candidate].name}) to {figures.size(largest)}. "
        "All figures are in the table below."
    )
    return svg.image(key, title, description, WIDTH, ROW * len(measurements), parts)


def _row(m: Measurement, mark: Mark, top: float, ratio: float) -> list[Markup]:
    weight = "row-name strong" if mark.standing == "ships" else "row-name"
    name = svg.short(f"{mark.number}  {mark.name}", MAX_NAME)
    width = max(2.0, ratio * (WIDTH - 2))
    return [
        marks.glyph(mark, 10, top + 12, 4.6),
        svg.text(name, NAME_AT, top + 17, weight),
        svg.text(figures.size(m.size_bytes), WIDTH - 1, top + 17, "value", "end"),
        svg.element(
            "rect", x=1, y=top + 24, width=width, height=BAR, rx=2, class_=f"bar {mark.css}"
        ),
    ]
