"""What a pull request is told: a verdict a target, and what it rests on."""

import pytest

from pipeline import files, measurement
from pipeline.measurement import Drop, Latency, Measurement, Quality
from pipeline.reporting import difference
from pipeline.reporting.difference import Shipped

TOLERANCE = 0.05
ABSENT = Latency()


def times(p50, spread=0.01):
    return Latency(p50, p50 * 1.3, p50 * 1.6, p50 * (1 - spread), p50 * (1 + spread))


def measured(**fields):
    usual = {
        "artifact": "sha256:0", "candidate": "dense-int8-static", "target": "box",
        "kind": "measured", "time": "2026-11-21T07:00:00Z", "runtime": "litert",
        "size_bytes": 100_000, "latency_ms": times(1.0), "fingerprint": "machine a",
        "quality": Quality("accuracy", "higher", "%", 97.0, 700, 1.0),
        "drop": Drop(0.5, -0.25, 1.25, 700, 4),
    }  # fmt: skip
    return Measurement(**{**usual, **fields})


def accuracy(value, half_width=1.0):
    return Quality("accuracy", "higher", "%", value, 700, half_width)


def error(value, unit="mm"):
    return Quality("mean absolute error", "lower", unit, value, 700, 0.01)


BEFORE = measured()
# name: fields of before, fields of after, verdict, what it rests on
VERDICTS = {
    "faster beyond the intervals": ({}, {"latency_ms": times(0.8)}, "better", "p50 0.80 x"),
    "slower beyond the intervals": ({}, {"latency_ms": times(1.2)}, "worse", "p50 1.20 x"),
    "slower within the tolerance": (
        {"latency_ms": times(1.0, 0)},
        {"latency_ms": times(1.04, 0)},
        "unchanged",
        "within the tolerance",
    ),
    "intervals that overlap": (
        {"latency_ms": times(1.0, 0.2)},
        {"latency_ms": times(1.1, 0.2)},
        "inconclusive",
        "p50 intervals overlap",
    ),
    "larger": ({}, {"size_bytes": 106_000}, "worse", "size 1.06 x"),
    "smaller": ({}, {"size_bytes": 50_000}, "better", "size 0.50 x"),
    "larger within the tolerance": ({}, {"size_bytes": 105_000}, "unchanged", "within the tol"),
    "accuracy lost": ({}, {"quality": accuracy(94.0)}, "worse", "accuracy -3.00 points"),
    "accuracy won": ({}, {"quality": accuracy(99.5)}, "better", "accuracy +2.50 points"),
    "accuracy within the intervals": ({}, {"quality": accuracy(95.5)}, "unchanged", "within"),
    "an error that grew": (
        {"quality": error(1.0)},
        {"quality": error(1.5)},
        "worse",
        "mean absolute error -0.50 mm",
    ),
    "an error that shrank": (
        {"quality": error(1.0)},
        {"quality": error(0.5)},
        "better",
        "mean absolute error +0.50 mm",
    ),
    "an error without a unit": (
        {"quality": error(1.0, "")},
        {"quality": error(0.5, "")},
        "better",
        "mean absolute error +0.50",
    ),
    "another metric": ({}, {"quality": error(1.0)}, "inconclusive", "by one metric on both"),
    "quality that is not known": ({}, {"quality": None}, "inconclusive", "was not measured"),
    "another machine": (
        {},
        {"fingerprint": "machine b", "latency_ms": times(9.0)},
        "inconclusive",
        "latency was measured on another machine",
    ),
    "another kind of evidence": (
        {},
        {"kind": "estimated", "latency_ms": times(9.0)},
        "inconclusive",
        "it was measured, is estimated: never compared",
    ),
    "no latency on either side": (
        {"latency_ms": ABSENT},
        {"latency_ms": ABSENT, "time": "later"},
        "unchanged",
        "within the tolerance",
    ),
    "larger on another machine": (
        {},
        {"fingerprint": "machine b", "size_bytes": 200_000},
        "worse",
        "size 2.00 x",
    ),
    "slower for fewer bytes": (
        {},
        {"latency_ms": times(1.2), "size_bytes": 50_000},
        "worse",
        "p50 1.20 x",
    ),
    "faster, with a quality that may be less": (
        {},
        {"latency_ms": times(0.8), "quality": None},
        "inconclusive",
        "quality was not measured",
    ),
    "worse in two ways": (
        {},
        {"latency_ms": times(1.2), "size_bytes": 200_000},
        "worse",
        "size 2.00 x; p50 1.20 x",
    ),
}


def compare(before, after):
    """Compare one target that ships on both sides."""
    (found,) = difference.compare({"box": Shipped(before)}, {"box": Shipped(after)}, TOLERANCE)
    return found


@pytest.mark.parametrize(
    ("before", "after", "verdict", "why"), VERDICTS.values(), ids=VERDICTS.keys()
)
def test_a_verdict_and_what_it_rests_on(before, after, verdict, why):
    found = compare(measured(**before), measured(**after))
    assert found.verdict == verdict
    assert why in found.why
    assert not found.why.endswith(" ")


def test_the_same_measurement_is_unchanged():
    found = compare(BEFORE, measured())
    assert (found.verdict, found.why) == ("unchanged", "the same artifact and measurement")


@pytest.mark.parametrize("p50", [0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.3])
def test_worse_one_way_is_never_worse_the_other_way(p50, spread):
    other = measured(latency_ms=times(p50, spread), time="later")
    verdicts = {compare(BEFORE, other).verdict, compare(other, BEFORE).verdict}
    assert verdicts in ({"better", "worse"}, {"inconclusive"}, {"unchanged"}), verdicts


SHIPS, NOTHING = Shipped(BEFORE), Shipped(None, "no candidate meets the budget: a: too slow")
ONE_SIDED = {
    "a target that is new": (None, SHIPS, "new", "nothing shipped before"),
    "a target that could not ship before": (NOTHING, SHIPS, "new", "nothing shipped before"),
    "a target that ships no more": (SHIPS, NOTHING, "gone", "no candidate meets the budget: a: to"),
    "a target that is switched off": (SHIPS, None, "gone", "the target is switched off"),
    "a target that never shipped": (NOTHING, NOTHING, "unchanged", "no candidate meets"),
}


@pytest.mark.parametrize(
    ("before", "after", "verdict", "why"), ONE_SIDED.values(), ids=ONE_SIDED.keys()
)
def test_what_ships_on_one_side_only(before, after, verdict, why):
    (found,) = difference.compare({"box": before}, {"box": after}, TOLERANCE)
    assert (found.target, found.verdict) == ("box", verdict)
    assert found.why.startswith(why)


def test_every_target_of_either_side_has_one_row_and_those_of_today_come_first():
    found = difference.compare({"old": SHIPS, "both": SHIPS}, {"both": SHIPS, "a": SHIPS}, 0.05)
    assert [(d.target, d.verdict) for d in found] == [
        ("both", "unchanged"), ("a", "new"), ("old", "gone"),
    ]  # fmt: skip


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_first_line_names_every_target_that_got_worse():
    slower = Shipped(measured(latency_ms=times(1.2)))
    found = difference.compare(
        {"a": SHIPS, "b": SHIPS, "c": SHIPS}, {"a": slower, "b": SHIPS, "c": NOTHING}, TOLERANCE
    )
    text = difference.markdown(found, "origin/main")
    first, *_ = text.splitlines()
    assert first == (
        "**a is worse**: p50 1.20 x; **c is gone**: no candidate meets the budget: a: too slow"
    )
    assert len(rows(text)) == 2 + 3
    assert text.endswith("\n")


def test_when_none_got_worse_the_first_line_says_so():
    found = difference.compare({"a": SHIPS}, {"a": SHIPS}, TOLERANCE)
    assert difference.markdown(found, "v1").splitlines()[0] == "No target is worse than v1."


def test_a_row_has_both_sides_with_their_intervals():
    found = compare(BEFORE, measured(latency_ms=times(0.8), size_bytes=50_000))
    header, ruler, row = rows(difference.markdown([found], "v1"))
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == header.count("|") - 1 == ruler.count("---")
    assert cells == [
        "box", "better: size 0.50 x; p50 0.80 x", "dense, int8-static",
        "1 ms [990 us..1.01 ms]", "800 us [792 us..808 us]", "100.0 kB", "50.0 kB",
        "97.00 % (+-1.00, n=700)", "97.00 % (+-1.00, n=700)",
    ]  # fmt: skip


def test_what_does_not_ship_has_empty_cells():
    (found,) = difference.compare({"box": SHIPS}, {"box": NOTHING}, TOLERANCE)
    row = rows(difference.markdown([found], "v1"))[-1]
    assert "| nothing | 1 ms [990 us..1.01 ms] | - | 100.0 kB | - |" in row


def test_a_pipe_in_a_reason_ends_no_cell():
    (found,) = difference.compare({"box": SHIPS}, {"box": Shipped(None, "a | b")}, TOLERANCE)
    row = rows(difference.markdown([found], "v1"))[-1]
    assert r"gone: a \| b" in row
    assert row.replace(r"\|", "").count("|") == len(difference.HEADER) + 1


def test_release_directories_are_read(tmp_path):
    assert difference.read(tmp_path / "none") is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a/release.json").write_bytes(files.encode_json({"shipped": True}))
    measurement.write(tmp_path / "a/measurement.json", BEFORE)
    assert difference.read(tmp_path / "a") == SHIPS
    (tmp_path / "b").mkdir()
    described = {"shipped": False, "reason": "too slow"}
    (tmp_path / "b/release.json").write_bytes(files.encode_json(described))
    assert difference.read(tmp_path / "b") == Shipped(None, "too slow")


def test_an_artifact_of_other_bytes_with_the_same_figures_is_unchanged():
    found = compare(BEFORE, measured(artifact="sha256:1", time="later"))
    assert (found.verdict, found.why) == ("unchanged", "within the tolerance")
