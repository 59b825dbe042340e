"""Against the hardware itself: the roofline of its catalogue entry, and energy by request."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.measurement import KINDS, Measurement
from pipeline.reporting import figures, roofline
from pipeline.reporting.charts import energy, marks, svg
from pipeline.reporting.charts import roofline as chart
from pipeline.reporting.charts.energy import energy_of
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.roofline import Placed
from pipeline.reporting.views import Column, Key, Plot, table
from pipeline.targets.hardware import Hardware

if TYPE_CHECKING:
    from pipeline.conversion.onnx_count import Costs

FORMULA = (
    "Operations are 2 per multiply-accumulate of the exported net; bytes moved are the weights, "
    "inputs and outputs of each convolution and matrix product, once each, in the candidate's "
    "precision."
)
MODELLED = (
    "Modelled: busy time times the power in the catalogue. No meter was read; it is compared with "
    "none."
)


def rooflines(
    target: str,
    key: str,
    measured: Sequence[Measurement],
    hardware: Hardware,
    costs: Mapping[str, "Costs"],
    look: dict[str, Mark],
) -> tuple[list[Plot], str]:
    """Draw one roofline for each kind of evidence; else give the reason for none."""
    roofs = roofline.roofs_of(hardware)
    if not roofs.peaks and not roofs.bytes_per_s:
        return [], f"the catalogue has no peak and no bandwidth of {hardware.name}"
    elsewhere = [m for m in measured if roofline.is_elsewhere(m, hardware)]
    if elsewhere:
        arch = elsewhere[0].device.get("arch")
        return [], f"it was measured on {arch}, which is not {hardware.name}"
    plots = []
    for kind in KINDS:
        of_kind = [m for m in measured if m.kind == kind]
        if placed := roofline.place(of_kind, costs, roofs):
            plots.append(_roofline(target, f"{key}-{kind}", kind, placed, hardware, look))
    if plots:
        return plots, ""
    if any(m.kind == "emulated" for m in measured):
        return [], figures.NO_LATENCY["emulated"]
    return [], "no candidate has both a latency and known multiply-accumulates"


def _roofline(
    target: str,
    key: str,
    kind: str,
    placed: Sequence[Placed],
    hardware: Hardware,
    look: dict[str, Mark],
) -> Plot:
    title = f"Roofline of {hardware.name}, {kind}"
    roofs, facts = roofline.roofs_of(hardware), roofline.facts_of(hardware)
    threads = {p.measurement.num_threads for p in placed if p.measurement.num_threads}
    notes = [FORMULA, "Peaks are of the whole chip, on paper."]
    if kind == "measured":
        on = ", ".join(sorted({p.measurement.processor for p in placed}))
        notes.append(f"Measured on {on}.")
        if len(threads) == 1:
            (count,) = threads
            notes.append(f"The candidates ran on {count} thread{'s' if count > 1 else ''}.")
    legend = [
        Key(
            chart.icon(f"roof-{roof}"),
            f"{roof} peak {chart.ops(peak)}",
            _provenance(hardware, facts[roof].source),
        )
        for roof, peak in roofs.peaks.items()
    ]
    rate = hardware.memory.bandwidth_bytes_per_s
    if rate is not None:
        said = f"memory {chart.ops(rate.value).removesuffix(chart.UNIT)}B/s"
        provenance = _provenance(hardware, rate.source)
        legend.append(Key(chart.icon("roof-memory"), said, provenance))
    columns: list[Column[Placed]] = [
        ("candidate", lambda p: look[p.measurement.candidate].name),
        ("p50", lambda p: figures.latency(p.measurement)),
        ("operations per byte", lambda p: f"{p.ops_per_byte:.3g}"),
        ("operations / s", lambda p: chart.ops(p.ops_per_s)),
        ("lowest roof above it", lambda p: chart.ops(p.attainable) if p.attainable else ""),
        ("of that roof", _share),
    ]
    return Plot(
        key,
        title,
        chart.chart(key, f"{title}, {target}", placed, roofs, look),
        table(f"{title}: {target}", columns, placed),
        tuple(notes),
        (*legend, *_candidates([p.measurement for p in placed], look)),
    )


def _provenance(hardware: Hardware, source: str) -> str:
    return hardware.sources[source].kind.replace("_", " ")


def _share(p: Placed) -> str:
    if not p.attainable:
        return figures.ABSENT
    return f"{p.ops_per_s / p.attainable * 100:.2g}{figures.SPACE}%"


def _candidates(measured: Sequence[Measurement], look: dict[str, Mark]) -> list[Key]:
    shown = (look[m.candidate] for m in measured)
    return [Key(marks.icon(mark), f"{mark.number} {mark.name}") for mark in shown]


def energies(
    target: str, key: str, measured: Sequence[Measurement], look: dict[str, Mark]
) -> list[Plot]:
    """Draw one chart for each kind of evidence and each kind of meter."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in energy.drawable(measured):
        groups.setdefault((m.kind, energy_of(m).kind), []).append(m)
    return [
        _energy(target, f"{key}-{kind}-{meter}", meter, group, look)
        for (kind, meter), group in groups.items()
    ]


def _energy(
    target: str, key: str, meter: str, group: Sequence[Measurement], look: dict[str, Mark]
) -> Plot:
    title = f"Energy against latency, {meter if meter == 'modelled' else f'metered ({meter})'}"
    notes = ["Energy is of one request, above idle."]
    if meter == "modelled":
        notes.append(MODELLED)
    columns: list[Column[Measurement]] = [
        ("candidate", lambda m: look[m.candidate].name),
        ("p50", figures.latency),
        ("energy of a request", lambda m: energy.amount(energy_of(m))),
        ("meter", lambda m: f"{energy_of(m).meter} ({energy_of(m).kind})"),
        ("window", lambda m: f"{energy_of(m).window_s:g}{figures.SPACE}s"),
        ("requests in it", lambda m: f"{energy_of(m).num_runs:,}"),
        ("idle", lambda m: _power(energy_of(m).idle_w)),
        ("busy", lambda m: _power(energy_of(m).busy_w)),
        ("remarks", lambda m: ", ".join(f.replace("_", " ") for f in energy_of(m).flags)),
    ]
    return Plot(
        key,
        title,
        energy.chart(key, f"{title}, {target}", group, look),
        table(f"{title}: {target}", columns, group),
        tuple(notes),
        tuple(
            _hollow(entry) if meter == "modelled" else entry for entry in _candidates(group, look)
        ),
    )


def _hollow(key: Key) -> Key:
    return key._replace(icon=svg.element("span", key.icon, class_="modelled"))


def _power(watts: float | None) -> str:
    return figures.ABSENT if watts is None else f"{watts:.3g}{figures.SPACE}W"
