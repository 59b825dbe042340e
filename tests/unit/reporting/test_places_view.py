"""What a terminal shows of places: every figure there is, none that is not."""

from pipeline.measurement import Agreement, Energy, Latency, Layer, Load, Measurement, Quality
from pipeline.profiling.across_places import Agreed
from pipeline.profiling.agreement import Across
from pipeline.profiling.any_file import Row
from pipeline.profiling.loadgen import Verdict
from pipeline.reporting import places_view

NAMES = ("net.tflite", "net_fp32.tflite")
ACCURACY = Quality("accuracy", "higher", "%", 90.1, 1000, 1.85)
SAME = Across(n=1000, bit_exact_ratio=1.0, max_abs_error=0.0, max_step=0, num_changed=0)
OTHER = Across(n=1000, bit_exact_ratio=0.636, max_abs_error=0.25, max_step=1, num_changed=7)
FLOATS = Across(n=10, bit_exact_ratio=0.0, max_abs_error=0.1234, max_step=None, num_changed=None)


def measured(**fields):
    known = {"artifact": "sha256:0", "candidate": "file", "target": "here", "kind": "measured"}
    told = {"time": "now", "runtime": "onnxruntime", "size_bytes": 9}
    return Measurement(**(known | told | fields))


def shown(rows):
    return {table.caption.partition(":")[0]: table for table in places_view.tables(rows, NAMES)}


def cells(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_a_percentile_without_enough_samples_is_an_empty_cell():
    few = measured(latency_ms=Latency(p50=1.5), quality=ACCURACY, peak_memory_bytes=24_300)
    many = measured(latency_ms=Latency(p50=2.0, p90=2.5))
    first, second = cells(
        shown([Row(place="a", measurement=few), Row(place="b", measurement=many)])[""]
    )
    assert first == {
        "where": "a", "evidence": "measured", "p50": "1.5 ms", "p90": "", "peak memory": "24.3 kB",
        "quality": "90.10 % (+-1.85, n=1000)",
    }  # fmt: skip
    assert (second["p90"], second["peak memory"]) == ("2.5 ms", "")


def test_a_place_that_failed_says_why_in_its_row():
    assert cells(shown([Row(place="gone", reason="it is off")])[""]) == [
        {"where": "gone", "evidence": "none", "against reference": "it is off"}
    ]


def test_against_fp32_stand_first_and_then_the_file_elsewhere():
    fp32 = Agreed(model="reference", against="litert", found=FLOATS)
    rows = [
        Row(place="litert", measurement=measured(), agreements=(fp32,)),
        Row(
            place="micro",
            measurement=measured(kind="emulated", agreement=Agreement(0.1, None, 0.981)),
            reference=measured(candidate="reference"),
            agreements=(fp32, Agreed(model="file", against="litert", found=OTHER)),
        ),
        Row(place="odd", agreements=(Agreed(model="file", against="litert", reason="no, 3"),)),
        Row(place="same", agreements=(Agreed(model="file", against="litert", found=SAME),)),
    ]
    found = shown(rows)
    assert cells(found[""])[1]["against reference"] == "same class 98.1 %"
    assert [tuple(each.values()) for each in cells(found["agreement"])] == [
        ("litert", "net_fp32.tflite in litert", "0.0 %", "0.123", "", ""),
        ("micro", "net_fp32.tflite in litert", "0.0 %", "0.123", "", ""),
        ("micro", "net.tflite in litert", "63.6 %", "1 step (0.25)", "7 of 1000 (0.7 %)", ""),
        ("odd", "net.tflite in litert", "", "", "", "no, 3"),
        ("same", "net.tflite in litert", "100.0 %", "0 steps (0)", "0 of 1000 (0.0 %)", ""),
    ]


def test_loads_of_both_files_with_what_they_lack():
    refused = Load(scenario="Offline", batch_size=8, num_queries=0, throughput_per_s=0, reason="no")
    done = Load(
        scenario="Server", queries_per_s=100, num_queries=9, throughput_per_s=1234.5,
        latency_ms=Latency(p50=1.0), flags=("host_busy",),
    )  # fmt: skip
    row = Row(place="a", measurement=measured(loads=(refused,)), reference=measured(loads=(done,)))
    first, second = cells(shown([row])["loads"])
    assert (first["model"], first["samples / s"], first["p50"]) == ("net.tflite", "", "")
    assert first["remarks"] == "no"
    assert (second["model"], second["queries / s asked"]) == ("net_fp32.tflite", "100")
    assert (second["samples / s"], second["p50"], second["remarks"]) == (
        "1,234",
        "1 ms",
        "host_busy",
    )
    assert "p90" not in second


def test_the_ten_operators_that_take_longest():
    layers = tuple(Layer(name=f"n{i}", operator="Conv", time_ms=float(i)) for i in range(12))
    m = measured(latency_ms=Latency(p50=33.0), layers=layers)
    table = shown([Row(place="a", measurement=m)])["operators in a"]
    assert table.caption.endswith(
        ": 10 of 12; all together 2.00 x p50, in a session that notes their times"
    )
    assert [each["name"] for each in cells(table)] == [f"n{i}" for i in range(11, 1, -1)]


def test_energy_is_named_with_its_kind_and_meter():
    energy = Energy(value_mj=1.25, meter="rapl: package-0", kind="package", window_s=10, num_runs=9)
    (row,) = cells(shown([Row(place="a", measurement=measured(energy=energy))])[""])
    assert row["energy"] == "1.25 mJ, package, by rapl: package-0"


def test_loadgens_verdict_or_why_there_is_none():
    asked = {"scenario": "SingleStream", "min_duration_s": 2.0, "min_query_count": 64}
    valid = Verdict(
        **asked, verdict="VALID", percentiles_ms={"50": 1.5}, estimates_ms={"90": 2.0, "99": 3.0},
        num_queries=99,
    )  # fmt: skip
    none = Verdict(**asked, reason="LoadGen is not there")
    late = Verdict(**asked, verdict="INVALID", unsatisfied=("Early stopping satisfied",))
    first, second, third = cells(
        shown([Row(place="a", loadgen=(valid, none, late))])["MLPerf LoadGen"]
    )
    assert (first["verdict"], first["asked"], first["p50"]) == (
        "VALID",
        "2 s, 64 queries",
        "1.5 ms",
    )
    assert first["early stopping"] == "p90 2 ms, p99 3 ms"
    assert (second["verdict"], second["remarks"]) == ("none", "LoadGen is not there")
    assert (third["verdict"], third["remarks"]) == ("INVALID", "Early stopping satisfied")


def test_remarks_say_why_something_is_absent():
    rows = [
        Row(place="gone", reason="off"),
        Row(place="lite", measurement=measured(runtime="litert")),
        Row(
            place="micro",
            measurement=measured(kind="emulated", runtime="tflite_micro"),
            reference=measured(kind="not_measured", reason="refuses CONV_2D"),
        ),
    ]
    assert list(places_view.remarks(rows, has_loads=True, has_layers=True)) == [
        "lite: no layers: LiteRT's Python interpreter gives no times of single operators",
        "micro: no reference: refuses CONV_2D",
        "micro: no loads: emulated time is not latency",
        "micro: no layers: emulated time is not latency",
    ]
    assert len(list(places_view.remarks(rows, has_loads=False, has_layers=False))) == 1
