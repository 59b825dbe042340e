import msgspec
import pytest

from pipeline import params
from pipeline.measurement import (
    Drop,
    Energy,
    Interval,
    Latency,
    Measurement,
    Placement,
    Quality,
)
from pipeline.planning.selection import select

BUDGET = params.Select(max_quality_drop=2.0)


def candidate(name, p50, upper=None, size=1000, kind="measured", **fields):
    drop = None if upper is None else Drop(upper - 1, upper - 2, upper, 500, 5)
    spread = 0.001 if p50 is not None else 0
    return Measurement(
        artifact="sha256:0", candidate=name, target="t", kind=kind, time="", runtime="r",
        size_bytes=size, num_samples=100, drop=drop,
        quality=Quality("accuracy", "higher", "%", 98.0, 500, 1.0),
        latency_ms=Latency(p50=p50, p50_lower=p50 and p50 - spread, p50_upper=p50 and p50 + spread),
        **fields,
    )  # fmt: skip


REFERENCE = candidate("dense-fp32", 1.0)


def chosen(*others, budget=BUDGET):
    return select([REFERENCE, *others], "dense-fp32", budget, "t")


def test_the_fastest_within_the_budget_wins():
    s = chosen(candidate("a-int8", 0.5, upper=1.9), candidate("b-int8", 0.7, upper=0.1))
    assert (s.chosen, s.next_best, s.ranking) == (
        "a-int8",
        "b-int8",
        ("a-int8", "b-int8", "dense-fp32"),
    )
    assert s.distinguishable


def test_a_drop_is_judged_by_its_upper_bound_not_by_its_value():
    s = chosen(candidate("a-int8", 0.5, upper=2.1))
    assert s.chosen == "dense-fp32"
    (rejection,) = s.rejected
    assert rejection.breaches[0].measured == 2.1
    assert "2.1 point, allowed 2, over by 0.1" in rejection.reason
    assert "the drop itself is 1.10; n=500 cannot show more" in rejection.reason


def test_it_says_what_a_wider_budget_would_change():
    s = chosen(candidate("a-int8", 0.5, upper=3.5), candidate("b-int8", 0.4, upper=6))
    assert (s.better_if, s.better_if_max_quality_drop) == ("a-int8", 3.5)
    assert chosen(candidate("slow", 2.0, upper=3.5)).better_if is None


LIMITS = {
    "latency": (params.Select(max_latency_ms=0.1), "latency p50 1 ms, allowed 0.1, over by 0.9"),
    "size": (params.Select(max_size_bytes=10), "size 1000 bytes, allowed 10, over by 990"),
}


@pytest.mark.parametrize(("budget", "words"), LIMITS.values(), ids=LIMITS)
def test_when_none_meets_the_budget_each_says_which_limit_it_broke(budget, words):
    s = chosen(budget=budget)
    assert s.chosen is None
    assert [r.candidate for r in s.rejected] == ["dense-fp32"]
    assert words in s.rejected[0].reason


def test_a_candidate_with_operators_off_the_accelerator_does_not_ship_and_names_them():
    on_cpu = candidate("a-int8", 0.1, upper=0.1, placement=Placement(3, 1, ("SOFTMAX",)))
    s = chosen(on_cpu)
    assert s.chosen == "dense-fp32"
    assert s.rejected[0].reason == (
        "75% of operators on the accelerator, min_accelerated_ratio is 100%; on the CPU: SOFTMAX"
    )
    assert chosen(on_cpu, budget=params.Select(min_accelerated_ratio=0.75)).chosen == "a-int8"
    assert chosen(candidate("a-int8", 0.1, upper=0.1, placement=Placement(4, 0))).chosen == "a-int8"


def test_memory_is_a_limit():
    greedy = candidate("a-int8", 0.1, upper=0.1, peak_memory_bytes=5000)
    small = candidate("b-int8", 0.2, upper=0.1, peak_memory_bytes=3000)
    s = chosen(greedy, small, budget=params.Select(max_memory_bytes=3000))
    assert s.chosen == "b-int8"
    reasons = {r.candidate: r.reason for r in s.rejected}
    assert reasons["a-int8"] == "memory 5000 bytes, allowed 3000, over by 2e+03"
    assert "memory is not known" in reasons["dense-fp32"]


def test_objective_size_ranks_by_bytes_then_latency():
    small = candidate("small", 3.0, upper=0.5, size=10)
    same = candidate("same", 2.0, upper=0.5, size=10)
    s = chosen(small, same, budget=params.Select(objective="size"))
    assert s.ranking == ("same", "small", "dense-fp32")
    assert s.distinguishable is False


def test_kinds_of_evidence_are_never_ranked_together():
    emulated = candidate("emulated", 0.1, upper=0.5, kind="emulated")
    s = chosen(emulated, budget=params.Select(accept="emulated"))
    assert s.ranking == ("dense-fp32",)
    assert "emulated, and others are measured: never ranked together" in s.rejected[0].reason


def test_weaker_evidence_than_accepted_cannot_ship():
    s = chosen(candidate("emulated", 0.1, upper=0.5, kind="emulated"))
    assert "evidence is emulated, accept is measured" in s.rejected[0].reason


def test_what_was_not_measured_keeps_its_reason():
    absent = candidate("a", None, kind="not_measured", reason="litert absent")
    assert "not measured: litert absent" in chosen(absent).rejected[0].reason


def test_too_few_samples_for_a_p50_cannot_win_on_latency():
    assert "too few for a p50" in chosen(candidate("a", None, upper=0.1)).rejected[0].reason


def test_without_a_measured_reference_nothing_else_can_ship():
    gone = candidate("dense-fp32", None, kind="not_measured", reason="refused")
    s = select([gone, candidate("a-int8", 0.1)], "dense-fp32", BUDGET, "t")
    assert s.chosen is None
    assert "no quality drop, since dense-fp32 could not be measured" in s.rejected[1].reason


def test_a_throttled_run_is_invalid_not_slow():
    assert (
        "throttled"
        in chosen(candidate("a", 0.1, upper=0.1, flags=("throttled",))).rejected[0].reason
    )


def test_overlapping_intervals_are_called_indistinguishable():
    assert chosen(candidate("a", 0.9995, upper=0.1)).distinguishable is False


RATIOS = {
    "apart from each other": ((0.50, 0.49, 0.51), (0.52, 0.515, 0.53), True),
    "not apart": ((0.50, 0.49, 0.51), (0.51, 0.505, 0.53), False),
    "apart from the reference": ((0.9, 0.8, 0.99), None, True),
    "not apart from the reference": ((0.98, 0.8, 1.1), None, False),
}


@pytest.mark.parametrize(("first", "second", "expected"), RATIOS.values(), ids=RATIOS)
def test_ratios_to_the_reference_tell_more_than_latencies(first, second, expected):
    """The p50 are the same to their intervals: a machine that changed its speed widened both."""
    wide = Latency(p50=0.9, p50_lower=0.2, p50_upper=2.0)
    ranked = [candidate("a", 0.9, upper=0.1, latency_ratio=Interval(*first))]
    if second is not None:
        ranked.append(candidate("b", 0.91, upper=0.1, latency_ratio=Interval(*second)))
    ranked[0] = msgspec.structs.replace(ranked[0], latency_ms=wide)
    assert chosen(*ranked).distinguishable is expected


def built(name, size):
    return Measurement(
        artifact="sha256:0", candidate=name, target="t", kind="built", time="", runtime="r",
        size_bytes=size, reason="no CUDA device",
    )  # fmt: skip


BUILT = [built("dense-fp32", 800), built("dense-fp16", 700), built("dense-int8-static", 1300)]


def test_what_was_only_built_does_not_ship_by_default():
    s = select(BUILT, "dense-fp32", BUDGET, "t")
    assert (s.chosen, s.ranking) == (None, ())
    assert {r.reason for r in s.rejected} == {"evidence is built, accept is measured"}


def test_with_accept_built_the_smallest_ships_and_nothing_says_that_the_order_holds():
    s = select(BUILT, "dense-fp32", params.Select(accept="built"), "t")
    assert s.ranking == ("dense-fp16", "dense-fp32", "dense-int8-static")
    assert s.distinguishable is False


def test_a_precision_that_is_asked_for_ships_alone():
    budget = params.Select(accept="built", precision="int8-static")
    s = select(BUILT, "dense-fp32", budget, "t")
    assert s.ranking == ("dense-int8-static",)
    assert "not int8-static, which select.precision asks for" in s.rejected[0].reason


@pytest.mark.parametrize("kind", ["emulated", "estimated", "built"])
def test_no_weaker_evidence_is_ranked_with_what_was_measured(kind):
    weaker = candidate("a-int8", 0.1, upper=0.1, size=1, kind=kind)
    s = chosen(weaker, budget=params.Select(accept="built"))
    assert s.ranking == ("dense-fp32",)
    assert s.better_if is None


LIMITS_UNKNOWN = {
    "latency": (params.Select(accept="built", max_latency_ms=5), "latency is not known, max_lat"),
    "memory": (params.Select(accept="built", max_memory_bytes=5), "memory is not known, max_mem"),
}


@pytest.mark.parametrize(("budget", "words"), LIMITS_UNKNOWN.values(), ids=LIMITS_UNKNOWN)
def test_a_limit_on_what_is_not_known_is_never_met(budget, words):
    s = select(BUILT, "dense-fp32", budget, "t")
    assert s.chosen is None
    assert words in s.rejected[0].reason


def test_what_was_built_does_not_ship_without_its_reference():
    s = select(BUILT[1:], "dense-fp32", params.Select(accept="built"), "t")
    assert s.chosen is None
    assert "dense-fp32 could not be measured" in s.rejected[0].reason


@pytest.mark.parametrize(("unit", "shown"), [("mm", "0.004 mm"), ("", "0.004")])
def test_a_budget_is_in_the_metrics_own_unit(unit, shown):
    measured = msgspec.structs.replace(
        candidate("a-int8", 0.5),
        drop=Drop(0.00123, -0.001, 0.004, 500, 500),
        quality=Quality("mean absolute error", "lower", unit, 0.5, 500, 0.01),
    )
    (rejection,) = chosen(measured, budget=params.Select(max_quality_drop=0.002)).rejected
    assert rejection.reason == (
        f"quality drop (upper bound) {shown}, allowed 0.002, over by 0.002 "
        "(the drop itself is 0.00123; n=500 cannot show more)"
    )


def metered(name, value_mj, p50=1.0, kind="package", evidence="measured", doubts=(), **fields):
    energy = Energy(
        value_mj=value_mj, meter="rapl", kind=kind, window_s=10, num_runs=100, flags=doubts
    )
    return candidate(name, p50, kind=evidence, energy=energy, **fields)


BY_ENERGY = params.Select(objective="energy")


def frugal(*others, budget=BY_ENERGY):
    return select([metered("dense-fp32", 30.0), *others], "dense-fp32", budget, "t")


def test_objective_energy_ranks_by_energy_then_latency():
    slow, quick = (metered(n, 10.0, p50, upper=0.5) for n, p50 in (("slow", 9.0), ("quick", 8.0)))
    s = frugal(slow, quick, metered("fast", 40.0, 0.1, upper=0.5))
    assert s.ranking == ("quick", "slow", "dense-fp32", "fast")
    assert s.distinguishable is False  # energy has no interval


def test_modelled_energy_is_never_ranked_with_a_meters():
    modelled = metered("a-int8", 0.1, upper=0.5, kind="modelled")
    s = frugal(modelled)
    assert s.ranking == ("dense-fp32",)
    (rejection,) = s.rejected
    assert rejection.reason == "its energy is modelled, and others' metered: never ranked together"
    by_latency = frugal(modelled, budget=params.Select())
    assert set(by_latency.ranking) == {"a-int8", "dense-fp32"}


def test_modelled_energy_is_ranked_among_itself():
    reference = metered("dense-fp32", 30.0, kind="modelled")
    lean = metered("a-int8", 20.0, upper=0.5, kind="modelled")
    s = select([reference, lean], "dense-fp32", BY_ENERGY, "t")
    assert (s.ranking, s.rejected) == (("a-int8", "dense-fp32"), ())


def test_stronger_evidence_comes_before_a_meter():
    """What an estimate's energy is does not count where something was measured."""
    reference = metered("dense-fp32", 30.0, kind="modelled")
    estimated = metered("a-int8", 1.0, upper=0.5, evidence="estimated")
    budget = params.Select(objective="energy", accept="estimated")
    s = select([reference, estimated], "dense-fp32", budget, "t")
    assert s.ranking == ("dense-fp32",)
    assert "estimated, and others are measured: never ranked together" in s.rejected[0].reason


NO_ENERGY = {
    "none": (candidate("a-int8", 0.1, upper=0.1), "its energy is not known, and the objective is"),
    "no more than idling": (
        metered("a-int8", -0.25, upper=0.1),
        r"its energy is not above idle (-0.25 mJ by rapl); lengthen profile.energy.window_s, or ",
    ),
    "of a throttled machine": (
        metered("a-int8", 1.0, upper=0.1, doubts=("idle_drift", "throttled")),
        "the machine throttled while its energy was read, so that is invalid",
    ),
    "of a suspended machine": (
        metered("a-int8", 1.0, upper=0.1, doubts=("clock_jump",)),
        "the machine was suspended, while its energy was read, so that is invalid",
    ),
}


@pytest.mark.parametrize(("other", "words"), NO_ENERGY.values(), ids=NO_ENERGY)
def test_a_candidate_without_energy_cannot_win_on_it(other, words):
    s = frugal(other)
    assert s.ranking == ("dense-fp32",)
    assert words in s.rejected[0].reason
    assert "a-int8" in frugal(other, budget=params.Select()).ranking


def test_what_a_wider_budget_would_change_is_of_one_kind_of_energy():
    lean = metered("a-int8", 10.0, upper=3.5)
    assert frugal(lean).better_if == "a-int8"
    modelled = metered("a-int8", 10.0, upper=3.5, kind="modelled")
    assert frugal(modelled).better_if is None
