"""Other loads than one request at a time: throughput against batch, and a table of them all."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.measurement import Load, Measurement
from pipeline.reporting import figures
from pipeline.reporting.charts import throughput
from pipeline.reporting.charts.marks import Mark
from pipeline.reporting.views import Column, Key, Plot, Table, table


class _Row(NamedTuple):
    name: str
    load: Load


def plot(
    target: str, key: str, measured: Sequence[Measurement], look: dict[str, Mark]
) -> Plot | None:
    """Draw what ships, or else the first that has Offline loads with a rate; None when none has.

    Loads that were refused, or whose run is invalid, are in the table alone, with their reason.
    """
    subject = _drawn(measured, look)
    if subject is None:
        return None
    drawn = throughput.lines(subject.loads)
    name = look[subject.candidate].name
    title = f"Throughput against batch: {name}"
    columns: list[Column[Load]] = [
        ("batch", lambda load: str(load.batch_size)),
        ("threads", lambda load: str(load.num_threads)),
        ("streams", lambda load: str(load.num_streams)),
        ("samples / s", _samples_per_s),
        ("queries", lambda load: f"{load.num_queries:,}"),
        ("remarks", _remarks),
    ]
    legend = (
        Key(throughput.icon(order), throughput.named(setting))
        for order, setting in enumerate(drawn)
    )
    return Plot(
        key,
        title,
        throughput.chart(key, f"{title}, {target}", drawn),
        table(f"{title}, {target}", columns, throughput.offline(subject.loads)),
        ("MLPerf's Offline scenario: all samples are there from the start.",),
        tuple(legend),
    )


def loads(target: str, measured: Sequence[Measurement], look: dict[str, Mark]) -> Table | None:
    """List every load that the chart's own table has not; None when there is none."""
    drawn = _drawn(measured, look)
    rows = [
        _Row(look[m.candidate].name, load)
        for m in measured
        for load in m.loads
        if m is not drawn or load.scenario != "Offline"
    ]
    if not rows:
        return None
    columns: list[Column[_Row]] = [
        ("candidate", lambda row: row.name),
        ("scenario", lambda row: row.load.scenario),
        ("batch", lambda row: str(row.load.batch_size)),
        ("threads", lambda row: str(row.load.num_threads)),
        ("streams", lambda row: str(row.load.num_streams)),
        ("samples a query", lambda row: str(row.load.samples_per_query)),
        ("queries / s asked", lambda row: _rate(row.load.queries_per_s)),
        ("samples / s done", lambda row: _rate(throughput.rate(row.load))),
        ("queries", lambda row: f"{row.load.num_queries:,}"),
        ("p50 of a query", lambda row: figures.duration(row.load.latency_ms.p50)),
        ("p90", lambda row: figures.duration(row.load.latency_ms.p90)),
        ("p99", lambda row: figures.duration(row.load.latency_ms.p99)),
        ("remarks", lambda row: _remarks(row.load)),
    ]
    return table(f"Under other loads: {target}", columns, rows)


def _drawn(measured: Sequence[Measurement], look: dict[str, Mark]) -> Measurement | None:
    """Choose the candidate whose Offline loads are drawn."""
    ships_first = sorted(measured, key=lambda m: look[m.candidate].standing != "ships")
    return next((m for m in ships_first if throughput.lines(m.loads)), None)


def why_none(measured: Sequence[Measurement]) -> str:
    """Say why no throughput is drawn."""
    asked = [load for m in measured for load in throughput.offline(m.loads)]
    if not asked:
        return "no Offline load was recorded"
    reason = next((load.reason for load in asked if load.reason), "none was answered")
    return f"no Offline load has a rate: {reason}"


def _samples_per_s(load: Load) -> str:
    rate = throughput.rate(load)
    return figures.ABSENT if rate is None else f"{rate:,.0f}"


def _rate(value: float | None) -> str:
    if value is None:
        return figures.ABSENT
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _remarks(load: Load) -> str:
    flags = [figures.FLAGS.get(flag, flag.replace("_", " ")) for flag in load.flags]
    return ", ".join(filter(None, (load.reason, *flags)))
