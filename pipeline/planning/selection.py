"""Select, for one target, the candidate that meets its budget and is measured best.

Values in, values out. A limit on quality is judged by the upper bound of the paired 95 % interval;
candidates are ranked only among those with the same kind of evidence. By energy, those that a meter
measured are never ranked with those whose energy is modelled.

What was ``built`` and never ran has neither quality nor latency. It ships only with ``accept:
built``, which waives the quality budget, in order of size; any other limit refuses what is unknown.
"""

import msgspec

from pipeline import params
from pipeline.measurement import INVALID, KINDS, Interval, Measurement, digits

FILE_NAME = "selection.json"


class Breach(msgspec.Struct, frozen=True):
    """A limit that a candidate broke."""

    limit: str
    measured: float
    allowed: float
    unit: str


class Rejection(msgspec.Struct, frozen=True):
    """Why a candidate cannot ship: the limits that it broke, or another reason."""

    candidate: str
    reason: str
    breaches: tuple[Breach, ...] = ()


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The choice for one target; ``chosen`` is None when no candidate can ship.

    ``ranking`` holds the candidates that meet the budget, best first; ``better_if`` the first one
    that only a wider quality budget would put before the chosen one, with the budget it needs.
    """

    schema_version: int = 1
    target: str
    objective: str
    reference: str
    chosen: str | None
    ranking: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    next_best: str | None
    distinguishable: bool | None
    better_if: str | None
    better_if_max_quality_drop: float | None


def select(
    measurements: list[Measurement], reference: str, budget: params.Select, target: str
) -> Selection:
    """Rank the candidates that meet the budget and name what each of the others broke."""
    known = any(m.candidate == reference and m.kind != "not_measured" for m in measurements)
    rejected = [r for m in measurements if (r := _reject(m, reference, known, budget)) is not None]
    refused = {rejection.candidate for rejection in rejected}
    fitting = [m for m in measurements if m.candidate not in refused]
    strongest = min((strength(m, budget.objective) for m in fitting), default=None)
    ranked = [m for m in fitting if strength(m, budget.objective) == strongest]
    rejected += [_weaker(m, ranked[0]) for m in fitting if m not in ranked]
    ranked.sort(key=lambda m: _cost(m, budget))
    best, second = (*ranked, None, None)[:2]
    better = _better_with_more_budget(measurements, rejected, best, budget)
    return Selection(
        target=target,
        objective=budget.objective,
        reference=reference,
        chosen=best.candidate if best else None,
        ranking=tuple(m.candidate for m in ranked),
        rejected=tuple(rejected),
        next_best=second.candidate if second else None,
        distinguishable=_distinguishable(best, second, budget) if best and second else None,
        better_if=better.candidate if better else None,
        better_if_max_quality_drop=better.drop.upper if better and better.drop else None,
    )


def strength(m: Measurement, objective: str) -> tuple[int, bool]:
    """Order evidence, strongest first; only what is equal in it is ever ranked together.

    By energy, what a meter read comes before what was modelled.
    """
    is_modelled = m.energy is not None and m.energy.kind == "modelled"
    return KINDS.index(m.kind), objective == "energy" and is_modelled


def _weaker(m: Measurement, strongest: Measurement) -> Rejection:
    what = f"{m.kind}, and others are {strongest.kind}"
    if m.kind == strongest.kind:
        what = "its energy is modelled, and others' metered"
    return Rejection(m.candidate, f"{what}: never ranked together")


def _cost(m: Measurement, budget: params.Select) -> tuple[float, float, str]:
    """Order by the objective, then by another cost, then by name, so ties have one answer."""
    latency = float("inf") if m.latency_ms.p50 is None else m.latency_ms.p50
    size = float(m.size_bytes)
    energy = float("inf") if m.energy is None else m.energy.value_mj
    costs = {"latency": (latency, size), "size": (size, latency), "energy": (energy, latency)}
    return *costs[budget.objective], m.candidate


def _reject(m: Measurement, reference: str, known: bool, budget: params.Select) -> Rejection | None:
    """Say why a candidate cannot ship; None when it can. ``known``: there is a reference."""
    unfit = _unfit(m, reference, known, budget)
    if unfit is not None:
        return Rejection(m.candidate, unfit)
    breaches = _breaches(m, budget)
    if not breaches:
        return None
    reason = "; ".join(
        f"{f'{b.limit} {b.measured:.4g} {b.unit}'.rstrip()}, allowed {b.allowed:.4g}, over by "
        f"{b.measured - b.allowed:.3g}"
        for b in breaches
    )
    if m.drop and m.drop.value <= budget.max_quality_drop < m.drop.upper:
        value = digits(m.drop.value, m.quality.unit if m.quality else "%")
        reason += f" (the drop itself is {value}; n={m.drop.n} cannot show more)"
    return Rejection(m.candidate, reason, tuple(breaches))


def _unfit(m: Measurement, reference: str, known: bool, budget: params.Select) -> str | None:
    """Say why a measurement decides nothing, whatever its numbers are."""
    if m.kind == "not_measured":
        return f"not measured: {m.reason}"
    if KINDS.index(m.kind) > KINDS.index(budget.accept):
        return f"evidence is {m.kind}, accept is {budget.accept}"
    for flag in INVALID.keys() & set(m.flags):
        return f"{INVALID[flag]} meanwhile, so the run is invalid"
    return (
        _misplaced(m, budget)
        or _unjudged(m, reference, known, budget)
        or _unwanted(m, budget)
        or _unknown(m, budget)
    )


def _unjudged(m: Measurement, reference: str, known: bool, budget: params.Select) -> str | None:
    """Say which figure is missing that every candidate must have."""
    if m.candidate != reference and m.drop is None and not (m.kind == "built" and known):
        return f"no quality drop, since {reference} could not be measured"
    if budget.objective == "latency" and m.kind != "built" and m.latency_ms.p50 is None:
        return f"{m.num_samples} samples are too few for a p50"
    return _without_energy(m) if budget.objective == "energy" else None


def _without_energy(m: Measurement) -> str | None:
    if m.energy is None:
        return "its energy is not known, and the objective is energy"
    for flag, what in INVALID.items():
        if flag in m.energy.flags:
            return f"{what} while its energy was read, so that is invalid"
    if m.energy.value_mj > 0:
        return None
    return (
        f"its energy is not above idle ({m.energy.value_mj:.3g} mJ by {m.energy.meter}); lengthen "
        "profile.energy.window_s, or take another meter"
    )


def _unwanted(m: Measurement, budget: params.Select) -> str | None:
    if budget.precision is None or m.candidate.endswith(f"-{budget.precision}"):
        return None
    return f"its precision is not {budget.precision}, which select.precision asks for"


def _unknown(m: Measurement, budget: params.Select) -> str | None:
    """Say which limit cannot be judged, because the measurement has no such figure."""
    if budget.max_latency_ms is not None and m.latency_ms.p50 is None:
        return f"its latency is not known, max_latency_ms is {budget.max_latency_ms:g}"
    if budget.max_memory_bytes is not None and m.peak_memory_bytes is None:
        return f"its memory is not known, max_memory_bytes is {budget.max_memory_bytes}"
    return None


def _misplaced(m: Measurement, budget: params.Select) -> str | None:
    placement = m.placement
    if placement is None or placement.accelerated_ratio >= budget.min_accelerated_ratio:
        return None
    return (
        f"{placement.accelerated_ratio:.0%} of operators on the accelerator, "
        f"min_accelerated_ratio is {budget.min_accelerated_ratio:.0%}; on the CPU: "
        f"{', '.join(placement.fallback_operators)}"
    )


def _breaches(m: Measurement, budget: params.Select) -> list[Breach]:
    found = []
    if m.drop and m.drop.upper > budget.max_quality_drop:
        unit = m.quality.unit_of_drop if m.quality else ""
        found.append(
            Breach("quality drop (upper bound)", m.drop.upper, budget.max_quality_drop, unit)
        )
    limit = budget.max_latency_ms
    if limit is not None and m.latency_ms.p50 is not None and m.latency_ms.p50 > limit:
        found.append(Breach("latency p50", m.latency_ms.p50, limit, "ms"))
    limit_bytes = budget.max_memory_bytes
    if limit_bytes is not None and (m.peak_memory_bytes or 0) > limit_bytes:
        found.append(Breach("memory", m.peak_memory_bytes or 0, limit_bytes, "bytes"))
    if budget.max_size_bytes is not None and m.size_bytes > budget.max_size_bytes:
        found.append(Breach("size", m.size_bytes, budget.max_size_bytes, "bytes"))
    return found


def _distinguishable(best: Measurement, second: Measurement, budget: params.Select) -> bool:
    """Say whether the measured order could be chance: sizes are exact, latencies have intervals.

    Where they were timed beside one reference, those of the ratios to it count: what the machine
    did meanwhile is in both p50, and in neither ratio. Energy has none, so nothing says that its
    order holds.
    """
    if budget.objective == "size":
        return best.size_bytes < second.size_bytes
    if budget.objective == "energy":
        return False
    ratios = best.latency_ratio, second.latency_ratio
    if any(ratios):
        first, other = (ratio or Interval(1.0, 1.0, 1.0) for ratio in ratios)  # the reference's own
        return first.upper < other.lower
    upper, lower = best.latency_ms.p50_upper, second.latency_ms.p50_lower
    return upper is not None and lower is not None and upper < lower


def _better_with_more_budget(
    measurements: list[Measurement],
    rejected: list[Rejection],
    best: Measurement | None,
    budget: params.Select,
) -> Measurement | None:
    """Find what would win if only the allowed quality drop were wider."""
    only_quality = {
        r.candidate
        for r in rejected
        if len(r.breaches) == 1 and r.breaches[0].limit.startswith("quality drop")
    }
    waiting = [m for m in measurements if m.candidate in only_quality]
    if best is not None:
        waiting = [
            m
            for m in waiting
            if strength(m, budget.objective) == strength(best, budget.objective)
            and _cost(m, budget)[0] < _cost(best, budget)[0]
        ]
    # The smallest widening that changes the answer, not the largest gain.
    return min(waiting, key=lambda m: m.drop.upper if m.drop else 0.0, default=None)
