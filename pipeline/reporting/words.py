"""Say an answer in words: figures with units and intervals, and the sentence per target."""

from typing import get_args

from pipeline.measurement import Measurement
from pipeline.params import Precision
from pipeline.reporting.answer import Answer

# The flags that make a number less sure; others (``batched``) only say how it was taken.
NOISE = ("host_busy", "not_steady", "throttled")


def readable(candidate: str) -> str:
    """Turn ``pruned-int8-static`` into ``pruned, int8-static``."""
    for precision in get_args(Precision):
        if candidate.endswith(f"-{precision}"):
            return f"{candidate.removesuffix(f'-{precision}')}, {precision}"
    return candidate


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
    return "absent" if q is None else f"{q.value:.2f} {q.unit} (+-{q.half_width:.2f}, n={q.n})"


def drop(m: Measurement) -> str:
    """Format the paired quality drop with its interval."""
    d = m.drop
    return "-" if d is None else f"{d.value:+.2f} [{d.lower:+.2f}..{d.upper:+.2f}]"


def ratio(m: Measurement) -> str:
    """Format latency against the reference."""
    r = m.latency_ratio
    return "1 x" if r is None else f"{r.value:.2f} x [{r.lower:.2f}..{r.upper:.2f}]"


def against_reference(m: Measurement) -> str:
    """Say how latency compares with fp32's, and when the interval does not settle it."""
    r = m.latency_ratio
    if r is None:
        return "the fp32 reference itself"
    verdict = "" if r.upper < 1 or r.lower > 1 else ", not shown to differ"
    return f"{ratio(m)} the latency of fp32{verdict}"


def noise(m: Measurement) -> str:
    """Name what makes a measurement less sure; empty when nothing does."""
    found = [flag for flag in m.flags if flag in NOISE]
    return f"; measured under noise: {', '.join(found)}" if found else ""


def headline(answer: Answer) -> str:
    """Say in one sentence what to ship on the target, or why nothing."""
    m = answer.artifact
    if m is None:
        return f"Nothing ships on {answer.target}: {answer.reason}."
    lost = f", {drop(m)} point lost" if m.drop else ""
    return (
        f"Ship `{readable(m.candidate)}` on {answer.target}: p50 {latency(m)}, "
        f"{against_reference(m)}; {size(m.size_bytes)}; test accuracy {quality(m)}{lost}{noise(m)}."
    )


def explain(answer: Answer) -> list[str]:
    """Give the reasons behind the headline, one line each."""
    lines = [headline(answer)]
    s = answer.selection
    if s is not None and answer.artifact is not None:
        lines += [_why(answer), *_next_best(answer), *_would_change(answer), _evidence(answer)]
    if s is not None:
        lines += [f"Rejected: {readable(r.candidate)}: {r.reason}." for r in s.rejected]
    lines += [f"Not built: {readable(n.candidate)}: {n.reason}." for n in answer.not_built]
    return lines


def _why(answer: Answer) -> str:
    s, m = answer.selection, answer.artifact
    assert s is not None
    assert m is not None
    superlative = "fastest" if s.objective == "latency" else "smallest"
    validation = next(c for c in answer.candidates if c.candidate == m.candidate)
    bound = "it is the reference itself"
    if validation.drop is not None:
        bound = (
            f"its quality drop on validation is {validation.drop.value:+.2f} point, "
            f"upper bound {validation.drop.upper:+.2f} (n={validation.drop.n})"
        )
    return (
        f"It is the {superlative} of {len(s.ranking)} candidates within the budget "
        f"({len(answer.candidates)} measured): p50 {latency(validation)}; {bound}."
    )


def _next_best(answer: Answer) -> list[str]:
    s = answer.selection
    assert s is not None
    second = next((c for c in answer.candidates if c.candidate == s.next_best), None)
    if second is None:
        return ["Next best: none, no other candidate meets the budget."]
    doubt = "" if s.distinguishable else "; their intervals overlap, so the order may be chance"
    figures = f"p50 {latency(second)}, {size(second.size_bytes)}"
    return [f"Next best: `{readable(second.candidate)}`, {figures}{doubt}."]


def _would_change(answer: Answer) -> list[str]:
    s = answer.selection
    assert s is not None
    if s.better_if is None:
        return ["It would change: no wider quality budget makes another candidate win."]
    other = next(c for c in answer.candidates if c.candidate == s.better_if)
    figures = f"p50 {duration(other.latency_ms.p50)}, {size(other.size_bytes)}"
    at = f"at max_quality_drop {s.better_if_max_quality_drop:.2f}"
    return [f"It would change: {at} `{readable(other.candidate)}` wins ({figures})."]


def _evidence(answer: Answer) -> str:
    m = answer.artifact
    assert m is not None
    cpu = m.device.get("cpu_model", "unknown processor")
    return (
        f"Evidence: {m.kind} on {cpu}, {m.runtime} {m.runtime_version}, {m.num_threads} thread(s), "
        f"{m.scenario}, {m.num_samples} samples in {m.num_restarts} restarts{noise(m)}."
    )
