"""What is read from LoadGen's summaries (6.0.17 wrote these), and what it is asked for."""

import numpy as np
import pytest

from pipeline.errors import TargetError
from pipeline.profiling import loadgen, workers
from pipeline.profiling.loadgen import Settings, Verdict

HEAD = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : {}
Mode     : PerformanceOnly
"""
SINGLE = (
    HEAD.format("SingleStream")
    + """\
90.0th percentile latency (ns) : 2613828
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Processed at least 64 queries (713).
 * Would discard 51 highest latency queries.
 * Early stopping 90.0th percentile estimate: 4187963
 * Early stopping 99.0th percentile estimate: 9822667

================================================
Additional Stats
================================================
QPS w/ loadgen overhead         : 711.50
QPS w/o loadgen overhead        : 714.27

Min latency (ns)                : 1002801
50.00 percentile latency (ns)   : 1006325
90.00 percentile latency (ns)   : 2613828
99.90 percentile latency (ns)   : 9822667
"""
)
MULTI = (
    HEAD.format("MultiStream")
    + """\
99.0th percentile latency (ns) : 19978046
Result is : INVALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Only processed 100 queries.
 * Need to process at least 662 queries for early stopping.

Per-query latency:
50.00 percentile latency (ns)   : 11769009
"""
)
SERVER = (
    HEAD.format("Server")
    + """\
Completed samples per second    : 494.28
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.

Scheduled samples per second : 494.84
50.00 percentile latency (ns)   : 3705677
"""
)
OFFLINE = (
    HEAD.format("Offline")
    + """\
Samples per second: 785.112
Result is : VALID
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
"""
)
SUMMARIES = {
    "SingleStream": (
        SINGLE, "VALID", (), {"50": 1.006325, "90": 2.613828, "99.9": 9.822667},
        {"90": 4.187963, "99": 9.822667}, None,
    ),
    "MultiStream": (
        MULTI, "INVALID", ("Early stopping satisfied",), {"50": 11.769009}, {}, None,
    ),
    "Server": (
        SERVER, "INVALID", ("Performance constraints satisfied", "Early stopping satisfied"),
        {"50": 3.705677}, {}, 494.28,
    ),
    "Offline": (OFFLINE, "VALID", (), {}, {}, 785.112),
}  # fmt: skip


@pytest.mark.parametrize("expected", SUMMARIES.values(), ids=SUMMARIES)
def test_a_summary_is_read_as_it_stands(expected):
    found = loadgen.parse(expected[0])
    assert tuple(found.values()) == expected[1:]


@pytest.mark.parametrize("summary", ["", HEAD.format("Server")])
def test_a_summary_without_a_verdict_is_one_line(summary):
    with pytest.raises(TargetError, match="LoadGen gives no verdict, its summary ends with '"):
        loadgen.parse(summary)


def test_what_mlperf_asks_for_is_the_default():
    found = Settings().document(num_threads=2)
    assert (found["min_duration_ms"], found["min_query_count"]) == (600_000, 64)
    assert (found["num_threads"], found["seed"], found["warmup_ns"]) == (2, 0, 5_000_000_000)
    assert Settings("MultiStream").document(1)["min_query_count"] == 662
    assert Settings("Offline", min_query_count=9).document(1)["min_query_count"] == 9


def test_a_verdict_holds_what_was_asked_for_and_what_was_found():
    settings = Settings(min_duration_s=1.0, min_query_count=100)
    reply = {
        "reason": None, "summary": SINGLE, "num_queries": 713, "num_samples": 713,
        "loadgen_version": "6.0.17 @ d6147c7eb7",
        "facts": {"runtime": "onnxruntime", "version": "1.31.1"},
    }  # fmt: skip
    found = loadgen.verdict_of(settings, settings.document(1), reply)
    assert (found.verdict, found.p50_ms, found.num_queries) == ("VALID", 1.006325, 713)
    assert (found.min_duration_s, found.min_query_count) == (1.0, 100)
    assert (found.runtime_version, found.loadgen_version) == ("1.31.1", "6.0.17 @ d6147c7eb7")
    assert found.summary == SINGLE


def test_what_cannot_be_run_so_has_a_reason_and_no_verdict():
    settings = Settings("Offline", batch_size=8)
    found = loadgen.verdict_of(settings, settings.document(1), {"reason": "takes no batch of 8"})
    assert found == Verdict(
        scenario="Offline", reason="takes no batch of 8", min_duration_s=600.0,
        min_query_count=24_576, batch_size=8,
    )  # fmt: skip
    assert found.p50_ms is None


def test_where_loadgen_is_absent_one_line_says_how_to_have_it(
    make_artifact, make_inputs, target, tmp_path, monkeypatch
):
    (tmp_path / "mlperf_loadgen.py").write_text("raise ImportError('it is not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    inputs = make_inputs(np.ones((1, 2), np.float32))
    job = workers.job_of(make_artifact(np.eye(2)), inputs, target)
    words = r"LoadGen cannot be imported: it is not here; pip install 'slipway\[mlperf\]'"
    with pytest.raises(TargetError, match=words):
        loadgen.judge(job, Settings())
