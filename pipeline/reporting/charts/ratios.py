"""Latency against the reference with its interval, small enough for a table cell."""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.measurement import Interval
from pipeline.reporting.charts import scales, svg
from pipeline.reporting.charts.scales import Scale

WIDTH, HEIGHT = 150, 30
MIDDLE = 11


def shared_scale(ratios: Sequence[Interval]) -> Scale:
    """Fit one scale for all cells, so that rows compare; it always holds 1, the reference."""
    bounds = [bound for r in ratios for bound in (r.lower, r.value, r.upper)]
    return scales.fit([*bounds, 0.5, 1.0, 2.0], 6, WIDTH - 6, log=True)


def chart(ratio: Interval, scale: Scale) -> Markup:
    """Draw the interval as a line with its value, and 1x as a mark; the text beside it says it."""
    one = scale(1.0)
    parts = [
        svg.line(6, MIDDLE, WIDTH - 6, MIDDLE, "grid"),
        svg.line(one, MIDDLE - 9, one, MIDDLE + 9, "reference"),
        svg.text("1\N{MULTIPLICATION SIGN}", one, HEIGHT - 1, "tick", "middle"),
        svg.line(scale(ratio.lower), MIDDLE, scale(ratio.upper), MIDDLE, "interval"),
        svg.element("circle", cx=scale(ratio.value), cy=MIDDLE, r=4.5, class_="value-dot"),
    ]
    return svg.element(
        "svg", *parts, class_="mini", viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_hidden="true",
        focusable="false",
    )  # fmt: skip
