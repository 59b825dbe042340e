"""MLPerf Tiny's keyword spotting through the command line, on part of its set, and its page."""

from pathlib import Path

import pytest

from benchmarks.profiling import keyword_spotting as kws

ROOT = Path(__file__).parents[2]
NUM_ROWS = 200
SPREAD = 4.0  # points that these rows may lie from the whole set's accuracy: two half-widths
LOADGEN = ("--loadgen", "SingleStream:min_duration_s=0.5,warmup_s=0.1")


@pytest.fixture(scope="module")
def found(data_path, tmp_path_factory):
    if not kws.model(kws.INT8).is_file():
        pytest.skip("SLIPWAY_DATA: mlperf-tiny is absent")
    data = kws.write_data(data_path, tmp_path_factory.mktemp("kws"), NUM_ROWS)
    return kws.measure(kws.INT8, data, "--reference", str(kws.model(kws.FLOAT)), *LOADGEN)


@pytest.fixture(scope="module")
def rows(found):
    return {row.place: row for row in found.rows}


def test_every_place_is_as_accurate_as_published(found):
    accuracies = kws.accuracies(found)
    assert list(accuracies) == list(kws.PLACES)
    for place, accuracy in accuracies.items():
        assert kws.PUBLISHED[0] - SPREAD < accuracy < kws.PUBLISHED[1] + SPREAD, place


def test_tflite_micro_takes_the_published_arena_and_refuses_the_float_file(found, rows):
    assert kws.arena_kb(found) == kws.ARENA_KB
    assert rows[kws.MICRO].reference.kind == "not_measured"
    assert "Hybrid models are not supported" in rows[kws.MICRO].reference.reason


def test_only_what_ran_natively_has_times(rows):
    for place in (kws.MICRO, kws.EMULATED):
        m = rows[place].measurement
        assert (m.kind, m.latency_ms.p50, m.loads) == ("emulated", None, ())
        assert rows[place].loadgen == ()
    assert rows[kws.LITERT].measurement.latency_ms.p50 > 0


def test_integer_kernels_agree_but_xnnpack_and_others(rows):
    fp32, against_micro = zip(*(rows[p].agreements for p in kws.PLACES[1:]), strict=True)
    assert {(each.model, each.against) for each in fp32} == {("reference", kws.LITERT)}
    assert {(each.model, each.against) for each in against_micro} == {("file", kws.MICRO)}
    litert, here, emulated = (each.found for each in against_micro)
    assert (here.n, here.num_changed) == (NUM_ROWS, 0)
    assert here.bit_exact_ratio > 0.95
    assert here.max_step <= 1
    assert emulated == here  # the same integers on another instruction set
    assert 0.4 < litert.bit_exact_ratio < 0.9
    assert 1 < litert.max_step < 60
    assert litert.changed_ratio < 0.03


def test_loadgen_judges_where_it_is_installed_and_says_where_it_is_not(rows):
    (judged,) = rows[kws.LITERT].loadgen
    assert (judged.verdict, judged.scenario) == ("VALID", "SingleStream")
    (absent,) = rows[kws.HERE].loadgen
    assert "LoadGen cannot be imported" in absent.reason


def test_the_committed_page_shows_what_was_asked_for_and_found():
    page = max((ROOT / "docs/benchmarks").glob("keyword_spotting_*.md")).read_text()
    assert f"| arena in tflite-micro, int8 file | {kws.ARENA_KB} kB | {kws.ARENA_KB} kB |" in page
    assert "| accuracy, int8 file | 90.0 to 90.2 % | 90.1 % (tflite_micro), 90." in page
    for place in kws.PLACES[1:]:
        assert f"\n| {place} | {kws.INT8} in {kws.MICRO} | " in page
