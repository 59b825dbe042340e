"""How latencies are spread: one small histogram a candidate, over one logarithmic axis."""

from markupsafe import Markup

from pipeline.measurement import Measurement
from pipeline.reporting import figures
from pipeline.reporting.charts import marks, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scales import Scale
from pipeline.reporting.evidence import Distributions, Histogram

WIDTH = 480
LEFT, RIGHT = 4, 472
ROW = 62
RISE = 30  # of the highest bin
TICK_GAP = 64
MAX_NAME = 36


def chart(
    key: str,
    title: str,
    measurements: dict[str, Measurement],
    spread: Distributions,
    look: dict[str, Mark],
) -> Markup:
    """Draw every candidate that has samples, in the order of ``look``."""
    x = Scale(float(spread.edges_ms[0]), float(spread.edges_ms[-1]), LEFT, RIGHT, log=True)
    shown = [name for name in look if name in spread.of]
    bottom = ROW * len(shown) + 6
    parts = _axis(x, bottom)
    for index, name in enumerate(shown):
        baseline = index * ROW + ROW - 6.0
        histogram, mark = spread.of[name], look[name]
        parts += _row(measurements[name], histogram, spread, mark, x, baseline)
    description = (
        f"Histograms of single-request times of {len(shown)} candidates on one logarithmic axis. "
        "The long line is p50; the short ticks below are the medians of the restarts. "
        "All figures are in the table below."
    )
    return svg.image(key, title, description, WIDTH, bottom + 26, parts)


def _axis(x: Scale, bottom: float) -> list[Markup]:
    parts = [svg.line(LEFT, bottom, RIGHT, bottom, "axis")]
    for value in x.ticks(TICK_GAP):
        at = x(value)
        anchor = "start" if at < LEFT + 22 else "end" if at > RIGHT - 22 else "middle"
        parts += [
            svg.line(at, 0, at, bottom, "grid"),
            svg.text(figures.duration(value), at, bottom + 19, "tick", anchor),
        ]
    return parts


def _row(
    m: Measurement,
    histogram: Histogram,
    spread: Distributions,
    mark: Mark,
    x: Scale,
    baseline: float,
) -> list[Markup]:
    weight = "row-name strong" if mark.standing == "ships" else "row-name"
    top = baseline - ROW + 6
    parts = [
        marks.glyph(mark, 10, top + 13, 4.6),
        svg.text(
            svg.short(f"{mark.number}  {mark.name}", MAX_NAME), 24, top + 18, f"{weight} halo"
        ),
        svg.text(figures.duration(m.latency_ms.p50), WIDTH - 1, top + 18, "value halo", "end"),
        _bins(histogram, spread, mark, x, baseline),
        svg.line(LEFT, baseline, RIGHT, baseline, "baseline"),
    ]
    if m.latency_ms.p50 is not None:
        at = x(m.latency_ms.p50)
        parts.append(svg.line(at, baseline - RISE - 2, at, baseline, "median"))
    ticks = map(x, histogram.medians_ms)
    parts.extend(svg.line(at, baseline + 1, at, baseline + 5, "restart") for at in ticks)
    return parts


def _bins(
    histogram: Histogram, spread: Distributions, mark: Mark, x: Scale, baseline: float
) -> Markup:
    """Draw the outline of all bins as one path, each row to its own height."""
    highest = max(float(histogram.shares.max()), 1e-9)
    points = [f"M{svg.number(x(float(spread.edges_ms[0])))},{svg.number(baseline)}"]
    for share, left, right in zip(
        histogram.shares, spread.edges_ms, spread.edges_ms[1:], strict=False
    ):
        height = svg.number(baseline - RISE * float(share) / highest)
        points.append(
            f"L{svg.number(x(float(left)))},{height}L{svg.number(x(float(right)))},{height}"
        )
    points.append(f"L{svg.number(x(float(spread.edges_ms[-1])))},{svg.number(baseline)}Z")
    return svg.element("path", d="".join(points), class_=f"bins {mark.css}")
