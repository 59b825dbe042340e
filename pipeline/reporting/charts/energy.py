"""Energy against latency: candidates of one kind of evidence, read from one kind of meter."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipeline.measurement import Energy, Measurement
from pipeline.reporting import figures
from pipeline.reporting.charts import scales, scatter, svg
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.charts.scatter import Point


def drawable(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Keep what has both an energy and a latency."""
    return [m for m in measurements if m.energy is not None and m.latency_ms.p50 is not None]


def chart(
    key: str, title: str, measurements: Sequence[Measurement], look: Mapping[str, Mark]
) -> Markup:
    """Draw the energy of a request above idle; a modelled one is a hollow mark.

    All of them are `drawable` and of one kind of evidence and of meter.
    """
    energies = [(m, energy_of(m)) for m in measurements]
    assert len({(m.kind, e.kind) for m, e in energies}) == 1, "kinds are never compared"
    latencies = [
        bound
        for m, _ in energies
        for bound in (m.latency_ms.p50_lower, m.latency_ms.p50, m.latency_ms.p50_upper)
        if bound is not None
    ]
    x = scales.fit(latencies, scatter.LEFT + 14, scatter.RIGHT - 10)
    y = scales.fit([e.value_mj for _, e in energies], scatter.BOTTOM - 12, scatter.TOP + 12)
    points, whiskers = [], []
    for m, energy in energies:
        mark, times = look[m.candidate], m.latency_ms
        assert times.p50 is not None
        at_x, at_y = x(times.p50), y(energy.value_mj)
        tip = f"{mark.name}: {figures.latency(m)}, {amount(energy)}"
        points.append(Point(at_x, at_y, mark, str(mark.number), tip))
        if times.p50_lower is not None and times.p50_upper is not None:
            bar = svg.line(x(times.p50_lower), at_y, x(times.p50_upper), at_y, "whisker")
            whiskers.append(svg.element("g", bar, class_=mark.css))
    modelled = energies[0][1].kind == "modelled"
    parts = [
        *scatter.grid(x, y, figures.duration, scales.label),
        *scatter.titles(
            "\N{LEFTWARDS ARROW} p50 latency", "\N{DOWNWARDS ARROW} energy of a request, mJ"
        ),
        *whiskers,
        svg.element("g", *scatter.glyphs(points), class_="modelled" if modelled else None),
        *scatter.numbers(points),
    ]
    description = (
        f"{len(points)} candidates: {'modelled ' if modelled else ''}energy of a request above "
        "idle against p50 latency. All figures are in the table below."
    )
    return svg.image(key, title, description, scatter.WIDTH, scatter.HEIGHT, parts)


def energy_of(m: Measurement) -> Energy:
    """Return the energy of what is `drawable`."""
    assert m.energy is not None
    return m.energy


def amount(energy: Energy) -> str:
    """Write an energy; a modelled one never without its word."""
    written = f"{energy.value_mj:.3g}{figures.SPACE}mJ"
    return f"{figures.ABOUT} {written}, modelled" if energy.kind == "modelled" else written
