"""What the gate makes of figures; the whole of it runs in tests/e2e/test_gate.py."""

import msgspec
import pytest

from pipeline import gate
from pipeline.gate import Row
from pipeline.measurement import Drop, Interval, Latency, Measurement, Placement, Quality
from pipeline.profiling.compare import Comparison

FLAT = Interval(1.0, 0.99, 1.01)


def measured(**changes):
    fields = {
        "artifact": "sha256:a", "candidate": "c", "target": "t", "kind": "measured",
        "time": "2026-01-01T00:00:00+00:00", "runtime": "litert", "size_bytes": 1000,
        "latency_ms": Latency(p50=1.0),
        "quality": Quality("accuracy", "higher", "%", 95.0, 500, 1.0),
    }  # fmt: skip
    return Measurement(**fields | changes)


def compared(latency, quality, drop):
    return Comparison(
        before=measured(), after=measured(drop=drop), tolerance_ratio=0.05, ratio=FLAT,
        latency=latency, quality=quality,
    )  # fmt: skip


EQUAL = Drop(0.0, -0.7, 0.7, 500, 4)
BETTER, LESS, UNSURE = Drop(-2, -3, -1, 500, 9), Drop(1.5, 0.5, 1.9, 500, 9), Drop(1, -1, 2.5, 9, 9)
CASES = {
    "nothing changed": (("unchanged", "inconclusive", EQUAL), "unchanged", "p50 1.00 x"),
    "slower": (("worse", "inconclusive", EQUAL), "worse", "p50 1.00 x [0.99..1.01]"),
    "faster": (("better", "inconclusive", EQUAL), "better", "p50"),
    "slower and better": (("worse", "better", BETTER), "worse", "p50"),
    "less accurate for sure": (("better", "worse", LESS), "worse", "accuracy -1.50 point"),
    "perhaps beyond the budget": (
        ("better", "inconclusive", UNSURE),
        "worse",
        "accuracy -1.00 point, maybe 2.50 lost of 2.00 allowed",
    ),
    "nobody knows": (("inconclusive", "inconclusive", EQUAL), "inconclusive", "p50"),
    "no labels": (("unchanged", None, None), "unchanged", "p50"),
}


@pytest.mark.parametrize(("found", "verdict", "why"), CASES.values(), ids=CASES)
def test_the_worst_of_latency_and_quality_is_the_verdict(found, verdict, why):
    said, reason = gate.judge(compared(*found), max_quality_drop=2.0)
    assert said == verdict
    assert why in reason


EXACT = {
    "larger": ({"size_bytes": 1100}, ["size 1.10 x"]),
    "a little larger": ({"size_bytes": 1040}, []),
    "smaller": ({"size_bytes": 500}, []),
    "an operator fell back": (
        {"placement": Placement(4, 1, ("SOFTMAX",))},
        ["1 operators on the CPU, 0 before (SOFTMAX)"],
    ),
    "a larger arena": ({"peak_memory_bytes": 1200}, ["1.20 x of the memory"]),
    "more cycles": ({"num_cycles": 120}, ["1.20 x of the cycles"]),
}


@pytest.mark.parametrize(("change", "said"), EXACT.values(), ids=EXACT)
def test_figures_without_noise_are_judged_first(change, said):
    old = measured(kind="estimated", placement=Placement(5, 0), num_cycles=100,
                   peak_memory_bytes=1000)  # fmt: skip
    new = msgspec.structs.replace(old, **change)
    assert list(gate._exact(old, new, 0.05)) == said


def test_agreement_with_fp32_is_judged_by_the_records():
    found = compared("unchanged", None, None)
    verdict, why = gate.judge(found, 2.0, [("worse", "top-1 agreement with fp32 -5.00 points")])
    assert (verdict, why) == ("worse", "top-1 agreement with fp32 -5.00 points")


def test_the_first_line_names_what_keeps_the_gate_shut():
    found = [
        Row(target="a", verdict="worse", why="p50 2.00 x", against="1.0.0"),
        Row(target="b", verdict="failed", why="no | such"),
        Row(target="c", verdict="unchanged", why="the same bytes", against="1.0.0"),
    ]
    first, _, _, _, *table = gate.markdown(found, "digits").splitlines()
    assert first == "**a is worse**: p50 2.00 x; **b could not be judged**: no | such"
    assert table[0] == "| a | worse (against 1.0.0) | p50 2.00 x |"
    assert table[1] == "| b | failed | no \\| such |"
    assert gate.markdown(found[2:], "digits").startswith("No target of digits is worse")
