"""Say an answer in words: figures with units and intervals, and the sentence per target."""

from collections.abc import Sequence
from typing import get_args

from pipeline.measurement import Interval, Measurement, Quality, digits
from pipeline.params import Precision
from pipeline.reporting.answer import Answer

# The flags that make a number less sure; others (``batched``) only say how it was taken.
NOISE = ("clock_jump", "host_busy", "not_steady", "throttled")
SUPERLATIVES = {"latency": "fastest", "size": "smallest", "energy": "most frugal"}


def parts(candidate: str) -> tuple[str, str]:
    """Split ``pruned-int8-static`` into variant and precision; another name has no precision."""
    for precision in get_args(Precision):
        if candidate.endswith(f"-{precision}"):
            return candidate.removesuffix(f"-{precision}"), precision
    return candidate, ""


def readable(candidate: str) -> str:
    """Turn ``pruned-int8-static`` into ``pruned, int8-static``."""
    return ", ".join(filter(None, parts(candidate)))


def size(num_bytes: int) -> str:
    """Format bytes in decimal units, as disks and networks count."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    return f"{num_bytes / 1000:.1f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:.2f} MB"


def duration(milliseconds: float | None) -> str:
    """Format a latency; an absent percentile stays absent."""
    if milliseconds is None:
        return "absent"
    if milliseconds < 1:
        return f"{milliseconds * 1000:.3g} us"
    return f"{milliseconds:.3g} ms"


def latency(m: Measurement) -> str:
    """Format p50 with its interval."""
    interval = ""
    if m.latency_ms.p50_lower is not None:
        interval = f" [{duration(m.latency_ms.p50_lower)}..{duration(m.latency_ms.p50_upper)}]"
    return duration(m.latency_ms.p50) + interval


def quality(m: Measurement) -> str:
    """Format quality with its half-width and n."""
    q = m.quality
    return "absent" if q is None else f"{q.figure} (+-{digits(q.half_width, q.unit)}, n={q.n})"


def metric(answers: Sequence[Answer]) -> str:
    """Name what quality is, such as ``accuracy`` or ``top-1 agreement with fp32``."""
    q = _any_quality(answers)
    return q.metric if q else "quality"


def lost(answers: Sequence[Answer]) -> str:
    """Head a column of quality differences: ``points lost``, or ``mm lost``."""
    q = _any_quality(answers)
    unit = q.unit_of_drop if q else ""
    return f"{'points' if unit == 'point' else unit or 'quality'} lost"


def lower_is_better(answers: Sequence[Answer]) -> bool:
    """Tell whether quality is an error."""
    q = _any_quality(answers)
    return q is not None and q.direction == "lower"


def _any_quality(answers: Sequence[Answer]) -> Quality | None:
    """Find a quality: all of a project have one metric."""
    found = (m for a in answers for m in (a.artifact, *a.candidates) if m and m.quality)
    first = next(found, None)
    return first.quality if first else None


def drop(m: Measurement) -> str:
    """Format the paired quality drop with its interval."""
    d, unit = m.drop, m.quality.unit if m.quality else "%"
    if d is None:
        return "-"
    value, lower, upper = (digits(x, unit, "+") for x in (d.value, d.lower, d.upper))
    return f"{value} [{lower}..{upper}]"


def _in_unit(amount: str, m: Measurement) -> str:
    """Put the unit of quality differences behind an amount."""
    return f"{amount} {m.quality.unit_of_drop if m.quality else ''}".rstrip()


def interval(ratio: Interval) -> str:
    """Format a ratio with its interval."""
    return f"{ratio.value:.2f} x [{ratio.lower:.2f}..{ratio.upper:.2f}]"


def ratio(m: Measurement) -> str:
    """Format latency against the reference, which itself is 1; absent where nothing was timed."""
    r = m.latency_ratio
    if m.kind != "measured":
        return "absent"
    return "1 x" if r is None else f"{r.value:.2f} x [{r.lower:.2f}..{r.upper:.2f}]"


def against_reference(m: Measurement) -> str:
    """Say how latency compares with fp32's, and when the interval does not settle it."""
    r = m.latency_ratio
    if r is None:
        return "the fp32 reference itself"
    verdict = "" if r.upper < 1 or r.lower > 1 else ", not shown to differ"
    return f"{ratio(m)} the latency of fp32{verdict}"


def took(m: Measurement) -> str:
    """Say the latency: a median with its interval, a compiler's one number, or that it has none."""
    if m.kind == "emulated":
        return "emulated, so its time is not known"
    if m.kind == "estimated":
        return f"latency {duration(m.latency_ms.p50)}, estimated"
    return f"p50 {latency(m)}"


def speed(m: Measurement) -> str:
    """Say the latency and how it compares, where it was measured."""
    return f"{took(m)}, {against_reference(m)}" if m.kind == "measured" else took(m)


def energy(m: Measurement) -> str:
    """Say the energy of a request with its meter, as what it is: read, or modelled."""
    if m.energy is None:
        return "energy absent"
    how = "modelled from" if m.energy.kind == "modelled" else f"{m.energy.kind}, by"
    return f"{m.energy.value_mj:.3g} mJ a request above idle ({how} {m.energy.meter})"


def _cost(m: Measurement, objective: str) -> str:
    """Say the latency, and before it what was minimized."""
    return f"{energy(m)}, {took(m)}" if objective == "energy" else took(m)


def noise(m: Measurement) -> str:
    """Name what makes a measurement less sure; empty when nothing does."""
    found = [flag for flag in m.flags if flag in NOISE]
    return f"; measured under noise: {', '.join(found)}" if found else ""


def headline(answer: Answer) -> str:
    """Say in one sentence what to ship on the target, or why nothing."""
    m = answer.artifact
    if m is None:
        return f"Nothing ships on {answer.target}: {answer.reason}."
    if m.kind == "built":
        ships = f"Ship `{readable(m.candidate)}` on {answer.target} unproven"
        return f"{ships}: {unproven(m)}; {size(m.size_bytes)}."
    change = f", {_in_unit(drop(m), m)} lost" if m.drop else ""
    return (
        f"Ship `{readable(m.candidate)}` on {answer.target}: {speed(m)}; {size(m.size_bytes)}; "
        f"test {metric([answer])} {quality(m)}{change}{noise(m)}."
    )


def unproven(m: Measurement) -> str:
    """Say of what never ran why it did not."""
    return f"built, not measured: {m.reason}"


def explain(answer: Answer) -> list[str]:
    """Give the reasons behind the headline, one line each."""
    lines = [headline(answer), *reasons(answer)]
    if answer.selection is not None:
        rejected = answer.selection.rejected
        lines += [f"Rejected: {readable(r.candidate)}: {r.reason}." for r in rejected]
    lines += [f"Not built: {readable(n.candidate)}: {n.reason}." for n in answer.not_built]
    return lines


def reasons(answer: Answer) -> list[str]:
    """Say why it ships, what comes next, what would change it and on what evidence."""
    if answer.selection is None or answer.artifact is None:
        return []
    if answer.artifact.kind == "built":
        return [_why_unproven(answer)]
    return [why(answer), *next_best(answer), *would_change(answer), evidence(answer)]


def _why_unproven(answer: Answer) -> str:
    s = answer.selection
    assert s is not None
    return (
        f"It is the smallest of {len(s.ranking)} candidates that were built; none has run, so "
        "nothing says which is fastest or how good they are."
    )


def why(answer: Answer) -> str:
    """Say why the artifact was chosen; it must ship."""
    s, m = answer.selection, answer.artifact
    assert s is not None
    assert m is not None
    superlative = SUPERLATIVES[s.objective]
    validation = next(c for c in answer.candidates if c.candidate == m.candidate)
    bound = "it is the reference itself"
    if validation.drop is not None:
        unit = validation.quality.unit if validation.quality else "%"
        change = _in_unit(digits(validation.drop.value, unit, "+"), validation)
        upper, n = digits(validation.drop.upper, unit, "+"), validation.drop.n
        bound = f"its quality drop on validation is {change}, upper bound {upper} (n={n})"
    num_judged = sum(c.kind == m.kind for c in answer.candidates)
    place = f"the {superlative} of {len(s.ranking)} candidates"
    if len(s.ranking) == 1:
        place = "the only candidate"
    cost = _cost(validation, s.objective)
    return f"It is {place} within the budget ({num_judged} {m.kind}): {cost}; {bound}."


def next_best(answer: Answer) -> list[str]:
    """Name the second of the ranking, and whether the order may be chance."""
    s = answer.selection
    assert s is not None
    second = next((c for c in answer.candidates if c.candidate == s.next_best), None)
    if second is None:
        return ["Next best: none, no other candidate meets the budget."]
    doubt = "; their intervals overlap, so the order may be chance"
    if s.objective == "energy":
        doubt = "; energy has no interval, so the order may be chance"
    if s.distinguishable or second.kind != "measured":
        doubt = ""
    figures = f"{_cost(second, s.objective)}, {size(second.size_bytes)}"
    return [f"Next best: `{readable(second.candidate)}`, {figures}{doubt}."]


def would_change(answer: Answer) -> list[str]:
    """Name the first candidate that a wider quality budget would put before the chosen one."""
    s = answer.selection
    assert s is not None
    if s.better_if is None:
        return ["It would change: no wider quality budget makes another candidate win."]
    other = next(c for c in answer.candidates if c.candidate == s.better_if)
    took_by_other = (
        f"p50 {duration(other.latency_ms.p50)}" if other.kind == "measured" else took(other)
    )
    figures = f"{took_by_other}, {size(other.size_bytes)}"
    assert s.better_if_max_quality_drop is not None
    unit = other.quality.unit if other.quality else "%"
    at = f"at max_quality_drop {digits(s.better_if_max_quality_drop, unit)}"
    return [f"It would change: {at} `{readable(other.candidate)}` wins ({figures})."]


def _threads(m: Measurement) -> str:
    return "1 thread" if m.num_threads == 1 else f"{m.num_threads} threads"


def evidence(answer: Answer) -> str:
    """Say on what, with what and how often it was measured."""
    m = answer.artifact
    assert m is not None
    cpu = m.device.get("cpu_model", "unknown processor")
    if m.kind == "estimated":
        meter = m.host.get("latency_meter", "the target's compiler")
        return (
            f"Evidence: latency estimated, not measured, by {meter}; outputs and memory by "
            f"{m.runtime} {m.runtime_version} on {cpu}."
        )
    if m.kind == "emulated":
        return (
            f"Evidence: outputs of {m.runtime} {m.runtime_version} on {m.device.get('arch')}, "
            f"{cpu}; an emulator's time and memory are not the target's."
        )
    return (
        f"Evidence: {m.kind} on {cpu}, {m.runtime} {m.runtime_version}, {_threads(m)}, "
        f"{m.scenario}, {m.num_samples} samples in {m.num_restarts} restarts{noise(m)}."
    )
