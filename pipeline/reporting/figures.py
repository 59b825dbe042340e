"""Figures as the page shows them: the value to read at a glance, apart from how sure it is."""

from typing import NamedTuple

from pipeline import measurement
from pipeline.measurement import Drop, Interval, Measurement, Quality
from pipeline.reporting import words

ABSENT = "\N{EM DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
ABOUT = "\N{ALMOST EQUAL TO}"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"  # between a number and its unit
# What stands where there is no latency.
NO_LATENCY = {
    "emulated": "emulated time is not latency",
    "built": "built, never run",
    "not_measured": "not measured",
}
# What a reader must know of a number before trusting it.
FLAGS = {
    "clock_jump": "clock jumped, or suspended",
    "cpu_operators_not_counted": "operators on the CPU not counted",
    "host_busy": "busy machine",
    "no_reference": "no reference",
    "not_steady": "not steady",
    "throttled": "throttled",
}


class Figure(NamedTuple):
    """A value with its unit, and the small print under it."""

    value: str
    detail: str = ""

    def __str__(self) -> str:
        """Give both in one line, for a table cell."""
        return f"{self.value} ({self.detail})" if self.detail else self.value


def duration(milliseconds: float | None) -> str:
    """Format a time; an absent percentile stays absent."""
    if milliseconds is None:
        return ABSENT
    return words.duration(milliseconds).replace(" us", " \N{MICRO SIGN}s").replace(" ", SPACE)


def size(num_bytes: int) -> str:
    """Format bytes in decimal units."""
    return words.size(num_bytes).replace(" ", SPACE)


def latency(m: Measurement) -> Figure:
    """Give p50 with its interval; an estimate is one number and says so."""
    times = m.latency_ms
    if times.p50 is None:
        return Figure(ABSENT, NO_LATENCY.get(m.kind, "too few samples"))
    if m.kind == "estimated":
        cycles = "" if m.num_cycles is None else f", {m.num_cycles:,} cycles"
        return Figure(f"{ABOUT} {duration(times.p50)}", f"estimated by the compiler{cycles}")
    if times.p50_lower is None or times.p50_upper is None:
        return Figure(duration(times.p50))
    return Figure(duration(times.p50), between(times.p50_lower, times.p50_upper))


def between(lower_ms: float, upper_ms: float) -> str:
    """Format an interval of times, with the unit once if both have the same."""
    lower, upper = duration(lower_ms), duration(upper_ms)
    number, _, unit = lower.partition(SPACE)
    return f"{number if upper.endswith(f'{SPACE}{unit}') else lower} to {upper}"


def amount(value: float, unit: str, *, signed: bool = False) -> str:
    """Format a quality: two decimals of a percentage, else four digits that count."""
    written = measurement.digits(value, "%" if unit == "point" else unit, "+" if signed else "")
    return written.replace("-", MINUS) + (f"{SPACE}{unit}" if unit and unit != "point" else "")


def quality(q: Quality | None) -> Figure:
    """Give a quality with its half-width and n."""
    if q is None:
        return Figure(ABSENT, "unknown: never run")
    half = amount(q.half_width, q.unit)
    count = f"n{SPACE}={SPACE}{q.n:,}"
    return Figure(amount(q.value, q.unit), f"\N{PLUS-MINUS SIGN}{SPACE}{half}, {count}")


def loss_unit(q: Quality | None) -> str:
    """Name the unit of a difference: percentages differ by points."""
    return q.unit_of_drop if q else ""


def lost(d: Drop, q: Quality | None) -> Figure:
    """Say how much quality was lost against the reference, with the interval."""
    unit = loss_unit(q)
    lower, upper = (amount(bound, unit, signed=True) for bound in (d.lower, d.upper))
    return Figure(budget(d.value, unit, signed=True), f"{lower} to {upper}")


def budget(value: float, unit: str, *, signed: bool = False) -> str:
    """Format a quality budget or its widening, with the unit in words."""
    written = amount(value, unit, signed=signed)
    return f"{written}{SPACE}points" if unit == "point" else written


def ratio(value: float) -> str:
    """Format a ratio."""
    return f"{value:.2f}{TIMES}" if value < 100 else f"{value:.0f}{TIMES}"


def ratio_interval(r: Interval) -> Figure:
    """Give a ratio with its interval."""
    return Figure(ratio(r.value), f"{r.lower:.2f} to {r.upper:.2f}")


def is_settled(r: Interval) -> bool:
    """Tell whether the interval shows a difference from the reference."""
    return r.upper < 1 or r.lower > 1


def noise(m: Measurement) -> str:
    """Say in words what makes a measurement less sure; empty when nothing does."""
    return ", ".join(FLAGS[flag] for flag in m.flags if flag in FLAGS)
