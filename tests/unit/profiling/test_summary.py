import dataclasses

import numpy as np
import pytest

from pipeline.errors import TargetError
from pipeline.profiling import measure, quality, summary
from pipeline.profiling.bench import PRESETS, Bench, Candidate
from pipeline.profiling.summary import Found

MS = 1_000_000
LABELS = np.array([0, 1, 0, 1])
RIGHT = np.eye(2, dtype=np.float32)[LABELS]


def restart(run_ms=2.0, **changed):
    """What a timing worker replies, 20 samples of one run each unless changed."""
    reply = {
        "samples_ns": [round(run_ms * MS)] * 20, "runs_per_sample": 1, "num_warmup": 30,
        "steady": True,
        "load_ns": 5 * MS, "first_ns": 4 * MS, "loop_overhead_ns": 90.0, "others_ratio": 0.01,
        "facts": {"runtime": "onnxruntime", "version": "1.31.1"}, "input_digest": "sha256:1",
        "python": "3.11.7", "host_before": {"num_throttled": 2}, "host_after": {"num_throttled": 2},
    }  # fmt: skip
    return {**reply, **changed}


@pytest.fixture
def bench(target, make_inputs):
    device = {"arch": "x86_64", "fingerprint": "sha256:f"}
    inputs = make_inputs(np.zeros((4, 2), np.float32))
    return Bench("x86", target, device, inputs, LABELS, PRESETS["quick"])


@pytest.fixture
def make_found(make_artifact):
    def make(name, restarts, outputs=RIGHT):
        candidate = Candidate(name, make_artifact(np.eye(2), name))
        return Found(candidate, outputs, {"peak_memory_bytes": 1024}, restarts=restarts)

    return make


@pytest.fixture
def summarized(make_found, bench):
    """Measurement of a candidate with these restarts, against a reference that takes 4 ms."""

    def summarize(*restarts, outputs=RIGHT):
        reference = make_found("dense-fp32", [restart(4.0)] * 3)
        found = make_found("dense-int8-static", list(restarts), outputs)
        return summary.summarize(found, reference, bench)

    return summarize


def test_figures_are_those_of_the_replies(summarized):
    m = summarized(restart(), restart(load_ns=7 * MS), restart(load_ns=90 * MS)).measurement
    assert (m.kind, m.scenario, m.target, m.candidate) == (
        "measured", "SingleStream", "x86", "dense-int8-static"
    )  # fmt: skip
    assert (m.latency_ms.p50, m.load_ms, m.first_ms) == (2.0, 7.0, 4.0)
    assert (m.num_restarts, m.num_samples, m.num_warmup) == (3, 60, 3 * 31)
    assert m.throughput_per_s == pytest.approx(500)
    assert (m.runtime_version, m.fingerprint, m.peak_memory_bytes) == ("1.31.1", "sha256:f", 1024)
    assert "fingerprint" not in m.device
    assert m.flags == ()


def test_the_ratio_is_against_the_reference_round_by_round(summarized):
    ratio = summarized(*[restart(2.0)] * 3).measurement.latency_ratio
    assert (ratio.value, ratio.lower, ratio.upper) == pytest.approx((0.5, 0.5, 0.5))


def in_turns(*turns_ms):
    samples = [round(ms * MS) for turn in turns_ms for ms in turn]
    return restart(samples_ns=samples, samples_per_turn=[len(turn) for turn in turns_ms])


def test_the_ratio_of_what_was_timed_in_turns_is_turn_by_turn(make_found):
    """The core went at half its speed from the second turn on."""
    ours = in_turns([2.0, 2.0, 9.0], [4.0] * 2, [4.0] * 2, [7.0])
    theirs = in_turns([1.0], [2.0] * 5, [2.0, 3.0, 2.0])
    found, reference = (
        make_found(name, [each] * 2) for name, each in zip("ab", (ours, theirs), strict=True)
    )
    ratio = summary.ratio(found, reference)
    assert (ratio.value, ratio.lower, ratio.upper) == pytest.approx((2.0, 2.0, 2.0))


def test_a_runner_without_turns_is_compared_by_rounds(make_found):
    found = make_found("a", [in_turns([2.0] * 4, [3.0] * 4)] * 2)
    reference = make_found("b", [restart(1.0)] * 2)
    assert summary.ratio(found, reference).value == pytest.approx(2.5)


def test_the_reference_is_compared_with_nothing(make_found, bench):
    reference = make_found("dense-fp32", [restart()] * 3)
    m = summary.summarize(reference, reference, bench).measurement
    assert (m.latency_ratio, m.drop, m.agreement) == (None, None, None)
    assert m.quality.value == 100
    assert m.flags == ()


def test_without_a_reference_there_is_a_flag_and_no_comparison(make_found, bench):
    m = summary.summarize(make_found("a-fp32", [restart()] * 3), None, bench).measurement
    assert (m.latency_ratio, m.drop, m.agreement) == (None, None, None)
    assert m.flags == ("no_reference",)


def test_drop_is_paired_with_the_reference(summarized):
    worse = summarized(*[restart()] * 3, outputs=RIGHT[[0, 1, 2, 2]]).measurement
    assert (worse.drop.value, worse.drop.num_discordant, worse.quality.value) == (25.0, 1, 75.0)
    assert worse.agreement.top1_agreement == 0.75


FLAGS = {
    "one restart that is not steady": ({"steady": False}, ("not_steady",)),
    "others used more than a tenth": ({"others_ratio": 0.11}, ("host_busy",)),
    "others are unknown": ({"others_ratio": None}, ()),
    "the clock was throttled meanwhile": ({"host_after": {"num_throttled": 3}}, ("throttled",)),
    "throttling is unknown": ({"host_before": {}, "host_after": {}}, ()),
    "a Raspberry Pi held its clock down": ({"host_after": {"throttled_bits": 4}}, ("throttled",)),
    "the machine was suspended": ({"clock_jump": True}, ("clock_jump",)),
    "several runs a sample": ({"runs_per_sample": 2}, ("batched",)),
    "two at once": ({"steady": False, "others_ratio": 0.5}, ("host_busy", "not_steady")),
}


@pytest.mark.parametrize(("changed", "flags"), FLAGS.values(), ids=FLAGS)
def test_flags_say_how_far_to_trust(summarized, changed, flags):
    assert summarized(restart(), restart(**changed), restart()).measurement.flags == flags


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"clock_jump": True}, "the clock jumped, or the machine was suspended, while"),
        ({"host_after": {"num_throttled": 3}}, "the machine throttled while dense-int8-static"),
    ],
    ids=["suspended", "throttled"],
)
def test_an_invalid_run_is_an_error_of_the_moment(summarized, changed, said):
    found = summarized(restart(), restart(**changed), restart())
    with pytest.raises(TargetError, match=f"{said}.* nothing was recorded: let the machine rest"):
        measure._require_valid(found.measurement)


def test_another_runner_need_not_be_python(summarized):
    without = restart()
    del without["python"]
    assert summarized(without, without, without).measurement.host["python"] is None


def test_batches_are_counted_a_run_and_have_no_tail(summarized):
    samples = [50 * 2 * MS] * 300
    m = summarized(*[restart(samples_ns=samples, runs_per_sample=50)] * 3).measurement
    assert (m.latency_ms.p50, m.latency_ms.p90, m.runs_per_sample) == (2.0, None, 50)
    assert m.throughput_per_s == pytest.approx(500)


def test_raw_samples_are_kept_as_they_came(summarized):
    found = summarized(restart(1.0), restart(2.0), restart(3.0, runs_per_sample=2))
    assert found.samples["runs_per_sample"].tolist() == [1, 1, 2]
    assert found.samples["samples_ns_2"].tolist() == [3 * MS] * 20
    assert found.samples.keys() == {
        "samples_ns_0", "samples_ns_1", "samples_ns_2", "runs_per_sample"
    }  # fmt: skip


def test_the_host_says_what_every_restart_was_like(summarized):
    told = restart(2.0, clock_suspended_ns=0, clock_drift_ns=-300)
    host = summarized(restart(1.0), told, restart(3.0)).measurement.host
    assert host["restarts"][1]["clock_drift_ns"] == -300
    assert [r["p50_ms"] for r in host["restarts"]] == [1.0, 2.0, 3.0]
    assert host["restarts"][0]["loop_overhead_ns"] == 90.0
    assert host["restarts"][0]["clock_drift_ns"] is None
    assert host["input_digest"] == "sha256:1"
    assert "VmHWM" in host["memory_meter"]


def test_what_is_not_measured_says_why_and_still_names_the_artifact(make_found, bench):
    refused = make_found("dense-fp32", [], outputs=None)
    found = summary.summarize(
        Found(refused.candidate, reason="the runtime lacks Nonsense"), None, bench
    )
    m = found.measurement
    assert (m.kind, m.reason) == ("not_measured", "the runtime lacks Nonsense")
    assert (m.latency_ms.p50, m.quality, found.outputs, found.samples) == (None, None, None, {})
    assert m.artifact.startswith("sha256:")
    assert m.size_bytes == (refused.candidate.artifact / "model.onnx").stat().st_size


def test_outputs_of_another_form_are_no_measurement(summarized):
    m = summarized(*[restart()] * 3, outputs=np.eye(3, dtype=np.float32)[LABELS]).measurement
    assert m.kind == "not_measured"
    assert "outputs have shape [4, 3], the reference's [4, 2]; mend the converter" in m.reason


@pytest.fixture
def unlabelled(bench):
    return dataclasses.replace(bench, labels=None, judge=quality.JUDGES["top1"])


def test_without_labels_the_reference_agrees_with_itself_and_the_others_with_it(
    make_found, unlabelled
):
    reference = make_found("dense-fp32", [restart()] * 3)
    other = make_found("dense-int8-static", [restart()] * 3, RIGHT[[0, 1, 2, 2]])
    own, found = (
        summary.summarize(each, reference, unlabelled).measurement for each in (reference, other)
    )
    assert (own.quality.value, own.drop) == (100, None)
    assert (found.quality.value, found.drop.value) == (75, 25)


def test_without_labels_and_reference_there_is_no_quality(make_found, unlabelled):
    m = summary.summarize(make_found("a-fp32", [restart()] * 3), None, unlabelled).measurement
    assert (m.kind, m.quality, m.flags) == ("measured", None, ("no_reference",))
