"""What these benchmarks share: a target, a ratio over rounds, a page of docs/benchmarks."""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline import params
from pipeline.measurement import Interval
from pipeline.targets import device

ROOT = Path(__file__).parents[2]
CONFIDENCE = 0.95


def target_of(
    runtime: params.Runtime,
    converter: params.Converter,
    connection: params.Connection | None = None,
    environment: params.Environment = "build",
) -> params.Target:
    """Return an fp32 target on one thread, on this machine or on a device."""
    return params.Target(
        converter=converter,
        runtime=runtime,
        connection=connection,
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(environment=environment),
        select=params.Select(),
    )


@contextmanager
def on_one_core(number: int) -> Iterator[None]:
    """Keep this process and those that it starts meanwhile on one of its cores, counted round."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(usable)[number % len(usable)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the median over rounds of ours to theirs, with its 95 % interval.

    The interval is of order statistics (a binomial with 1/2), so nothing is supposed of how rounds
    are distributed: on a shared machine those in which the core changed its speed are far off.
    """
    from scipy import stats

    ratios = np.sort(np.divide(ours, theirs))
    rank = int(stats.binom.ppf((1 - CONFIDENCE) / 2, len(ratios), 0.5))
    if rank < 1:
        raise SystemExit(f"{len(ratios)} rounds have no interval of 95 %; ask for 6 at least")
    return Interval(float(np.median(ratios)), float(ratios[rank - 1]), float(ratios[-rank]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table of Markdown."""
    first, *rest = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [first, "|---" * len(head) + "|", *rest]


def write(name: str, title: str, lines: Sequence[str], doc: str | None) -> Path:
    """Write docs/benchmarks/NAME_DATE.md: title, lines, how it was done as the module says it."""
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    how = (doc or "").partition("\n\n")[2].strip()
    whole = [f"# {title}: {device.describe()['cpu_model']}, {today}", "", *lines, "", how]
    path = ROOT / f"docs/benchmarks/{name}_{today}.md"
    path.write_text("\n".join(whole) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))
    return path


def load_average() -> str:
    """Say how busy the machine is."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end"
