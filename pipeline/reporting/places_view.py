"""What `slipway profile` shows: tables of text, and lines on what has no figure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from pipeline.compatibility import Runtime
from pipeline.measurement import Energy, Layer, Load, Measurement
from pipeline.profiling import layers
from pipeline.profiling.across_places import Agreed
from pipeline.profiling.any_file import Row
from pipeline.profiling.loadgen import Verdict
from pipeline.reporting import words

MAX_LAYERS = 10
T = TypeVar("T")
Columns = Sequence[tuple[str, Callable[[T], str]]]


@dataclass(frozen=True)
class Table:
    """Cells under their heads, and what the table is of."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class _Placed(NamedTuple):
    """A figure of one place."""

    place: str
    agreed: Agreed


class _Loaded(NamedTuple):
    place: str
    model: str
    load: Load


class _Judged(NamedTuple):
    place: str
    verdict: Verdict


def tables(rows: Sequence[Row], names: tuple[str, str]) -> list[Table]:
    """Lay out what there is of the rows of `pipeline.profiling.any_file.profile`.

    Args:
        rows: one a place.
        names: what the file and its reference are called.
    """
    found = (_measured(rows), _agreements(rows, names), _loads(rows, names), *_layers(rows))
    return [table for table in (*found, _verdicts(rows)) if table.rows]


def remarks(rows: Sequence[Row], *, has_loads: bool, has_layers: bool) -> Iterator[str]:
    """Say what is absent in a place that runs the file, and why.

    Args:
        rows: one a place.
        has_loads: loads were asked for, LoadGen's too.
        has_layers: times of operators were asked for.
    """
    for row in rows:
        m, reference = row.measurement, row.reference
        if m is None:
            continue
        if reference is not None and reference.reason is not None:
            yield f"{row.place}: no reference: {reference.reason}"
        if has_loads and m.kind != "measured":
            yield f"{row.place}: no loads: {_why_none(m)}"
        if has_layers and not m.layers:
            yield f"{row.place}: no layers: {_why_none(m)}"


def _why_none(m: Measurement) -> str:
    return layers.why_none(cast(Runtime, m.runtime), m.kind)


def _table(caption: str, columns: Columns[T], items: Sequence[T]) -> Table:
    """Fill a table; a column that is empty throughout is left out."""
    cells = [[write(item) for item in items] for _, write in columns]
    kept = [index for index, column in enumerate(cells) if index == 0 or any(column)]
    return Table(
        caption,
        tuple(columns[index][0] for index in kept),
        tuple(tuple(cells[index][row] for index in kept) for row in range(len(items))),
    )


def _measured(rows: Sequence[Row]) -> Table:
    def told(write: Callable[[Measurement], str]) -> Callable[[Row], str]:
        return lambda row: write(row.measurement) if row.measurement else ""

    columns: Columns[Row] = [
        ("where", lambda row: row.place),
        ("evidence", lambda row: row.measurement.kind if row.measurement else "none"),
        ("p50", told(lambda m: words.latency(m) if m.latency_ms.p50 is not None else "")),
        ("p90", told(lambda m: _time(m.latency_ms.p90))),
        ("p99", told(lambda m: _time(m.latency_ms.p99))),
        ("peak memory", told(lambda m: _size(m.peak_memory_bytes))),
        ("energy", told(lambda m: _energy(m.energy))),
        ("quality", told(lambda m: words.quality(m) if m.quality else "")),
        ("against reference", lambda row: row.reason or "; ".join(_against(row))),
    ]
    return _table("", columns, rows)


def _against(row: Row) -> Iterator[str]:
    """Say how the file compares with the reference in the same place."""
    m, reference = row.measurement, row.reference
    if m is None or reference is None:
        return
    if reference.reason is not None:
        yield "none there"
    if m.latency_ratio is not None:
        yield f"p50 {words.interval(m.latency_ratio)}"
    if m.drop is not None:
        yield f"drop {words.drop(m)}"
    if m.agreement is not None and m.agreement.top1_agreement is not None:
        yield f"same class {100 * m.agreement.top1_agreement:.1f} %"


def _agreements(rows: Sequence[Row], names: tuple[str, str]) -> Table:
    by_model = dict(zip(("file", "reference"), names, strict=True))
    columns: Columns[_Placed] = [
        ("outputs in", lambda each: each.place),
        ("against", lambda each: f"{by_model[each.agreed.model]} in {each.agreed.against}"),
        ("bit-exact", lambda each: _bit_exact(each.agreed)),
        ("largest difference", lambda each: _largest(each.agreed)),
        ("classes changed", lambda each: _changed(each.agreed)),
        ("remarks", lambda each: each.agreed.reason or ""),
    ]
    placed = [_Placed(row.place, agreed) for row in rows for agreed in row.agreements]
    # first all against fp32, then all against the file elsewhere
    placed.sort(key=lambda each: each.agreed.model != "reference")
    return _table("agreement", columns, placed)


def _bit_exact(agreed: Agreed) -> str:
    return f"{100 * agreed.found.bit_exact_ratio:.1f} %" if agreed.found else ""


def _largest(agreed: Agreed) -> str:
    found = agreed.found
    if found is None:
        return ""
    if found.max_step is None:
        return f"{found.max_abs_error:.3g}"
    steps = "1 step" if found.max_step == 1 else f"{found.max_step} steps"
    return f"{steps} ({found.max_abs_error:.3g})"


def _changed(agreed: Agreed) -> str:
    found = agreed.found
    if found is None or found.num_changed is None or found.changed_ratio is None:
        return ""
    return f"{found.num_changed} of {found.n} ({100 * found.changed_ratio:.1f} %)"


def _loads(rows: Sequence[Row], names: tuple[str, str]) -> Table:
    columns: Columns[_Loaded] = [
        ("where", lambda each: each.place),
        ("model", lambda each: each.model),
        ("scenario", lambda each: each.load.scenario),
        ("batch", lambda each: str(each.load.batch_size)),
        ("threads", lambda each: str(each.load.num_threads)),
        ("streams", lambda each: str(each.load.num_streams)),
        ("queries / s asked", lambda each: _rate(each.load.queries_per_s)),
        ("samples / s", lambda each: _rate(each.load.throughput_per_s or None)),
        ("p50", lambda each: _time(each.load.latency_ms.p50)),
        ("p90", lambda each: _time(each.load.latency_ms.p90)),
        ("p99", lambda each: _time(each.load.latency_ms.p99)),
        ("remarks", lambda each: ", ".join(filter(None, (each.load.reason, *each.load.flags)))),
    ]
    loaded = [
        _Loaded(row.place, name, load)
        for row in rows
        for name, m in zip(names, (row.measurement, row.reference), strict=True)
        for load in (m.loads if m else ())
    ]
    return _table("loads", columns, loaded)


def _layers(rows: Sequence[Row]) -> Iterator[Table]:
    """Lay out, for each place, the operators that took longest."""
    columns: Columns[Layer] = [
        ("operator", lambda layer: layer.operator),
        ("name", lambda layer: layers.plain_name(layer.name.rpartition(";")[2])),
        ("time", lambda layer: _time(layer.time_ms)),
        ("run by", lambda layer: layer.provider or ""),
    ]
    for row in rows:
        m = row.measurement
        if m is None or not m.layers:
            continue
        longest = sorted(m.layers, key=lambda layer: layer.time_ms or 0.0, reverse=True)
        caption = f"operators in {row.place}: {min(MAX_LAYERS, len(longest))} of {len(longest)}"
        covered = layers.coverage(m.layers, m.latency_ms.p50)
        if covered is not None:
            caption += f"; all together {covered:.2f} x p50, in a session that notes their times"
        yield _table(caption, columns, longest[:MAX_LAYERS])


def _verdicts(rows: Sequence[Row]) -> Table:
    columns: Columns[_Judged] = [
        ("where", lambda each: each.place),
        ("scenario", lambda each: each.verdict.scenario),
        ("verdict", lambda each: each.verdict.verdict or "none"),
        ("asked", lambda each: _asked(each.verdict)),
        ("queries", lambda each: str(each.verdict.num_queries or "")),
        ("samples / s", lambda each: _rate(each.verdict.samples_per_s)),
        ("p50", lambda each: _time(each.verdict.p50_ms)),
        ("early stopping", lambda each: _estimates(each.verdict)),
        ("remarks", lambda each: ", ".join(each.verdict.unsatisfied) or each.verdict.reason or ""),
    ]
    judged = [_Judged(row.place, verdict) for row in rows for verdict in row.loadgen]
    return _table("MLPerf LoadGen", columns, judged)


def _asked(verdict: Verdict) -> str:
    return f"{verdict.min_duration_s:g} s, {verdict.min_query_count} queries"


def _estimates(verdict: Verdict) -> str:
    return ", ".join(f"p{at} {_time(value)}" for at, value in verdict.estimates_ms.items())


def _energy(energy: Energy | None) -> str:
    return f"{energy.value_mj:.3g} mJ, {energy.kind}, by {energy.meter}" if energy else ""


def _size(num_bytes: int | None) -> str:
    return words.size(num_bytes) if num_bytes is not None else ""


def _time(milliseconds: float | None) -> str:
    return words.duration(milliseconds) if milliseconds is not None else ""


def _rate(per_s: float | None) -> str:
    if per_s is None:
        return ""
    return f"{per_s:,.0f}" if per_s >= 1000 else f"{per_s:.4g}"
