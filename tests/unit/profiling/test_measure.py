import dataclasses

import msgspec
import numpy as np
import pytest

from pipeline import files, manifest
from pipeline.errors import TargetError
from pipeline.profiling import measure, workers
from pipeline.profiling.bench import PRESETS, Bench, Candidate, Preset
from pipeline.profiling.summary import Found
from pipeline.profiling.workers import ModelRefusedError

TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
GENERATOR = np.random.default_rng(0)
RAW = GENERATOR.uniform(-1, 1, (30, 2)).astype(np.float32)
WEIGHTS = np.array([[1, -1, 0], [-1, 1, 0.1]], np.float32)
LABELS = (RAW @ WEIGHTS).argmax(axis=1)


@pytest.fixture(scope="module")
def bench(target, make_inputs):
    return Bench("x86", target, {"fingerprint": "sha256:f"}, make_inputs(RAW), LABELS, TINY)


@pytest.fixture(scope="module")
def measured(bench, make_artifact):
    """Four candidates, two of which cannot be measured; with the notes of every step."""
    candidates = [
        Candidate("dense-fp32", make_artifact(WEIGHTS)),
        Candidate("odd-fp32", make_artifact(WEIGHTS, "odd-fp32", ("Nonsense", "acme"))),
        Candidate("broken-fp32", make_artifact(WEIGHTS * np.nan, "broken-fp32")),
        Candidate("other-fp32", make_artifact(WEIGHTS[:, ::-1], "other-fp32")),
    ]
    notes = []
    found = measure.measure(candidates, "dense-fp32", bench, notes.append)
    return candidates, {each.measurement.candidate: each for each in found}, notes


def test_every_candidate_has_a_record_in_order(measured):
    candidates, found, _ = measured
    assert list(found) == [candidate.name for candidate in candidates]
    for candidate in candidates:
        path = candidate.artifact / manifest.FILE_NAME
        assert found[candidate.name].measurement.artifact == files.digest_file(path)


def test_outputs_and_quality_are_the_artifacts_own(measured):
    reference, other = measured[1]["dense-fp32"], measured[1]["other-fp32"]
    np.testing.assert_allclose(reference.outputs, RAW / 2 @ WEIGHTS, atol=1e-6)
    assert reference.measurement.quality.value == 100
    wrong = (other.outputs.argmax(axis=1) != LABELS).sum()
    assert other.measurement.drop.value == pytest.approx(100 * wrong / 30)
    assert other.measurement.drop.num_discordant == wrong


def test_latency_has_an_interval_and_a_ratio_with_one(measured):
    m = measured[1]["other-fp32"].measurement
    assert m.latency_ms.p50_lower <= m.latency_ms.p50 <= m.latency_ms.p50_upper
    assert m.latency_ratio.lower <= m.latency_ratio.value <= m.latency_ratio.upper
    assert 0 < m.latency_ms.p50 < 5
    assert "batched" in m.flags
    assert m.num_restarts == TINY.num_restarts


def test_a_refused_model_says_so_and_the_others_go_on(measured):
    m = measured[1]["odd-fp32"].measurement
    assert m.kind == "not_measured"
    assert "Nonsense" in m.reason
    assert measured[1]["other-fp32"].measurement.kind == "measured"


def test_outputs_that_are_not_finite_are_no_measurement(measured):
    m = measured[1]["broken-fp32"].measurement
    assert (m.kind, m.reason) == ("not_measured", "its outputs hold NaN or inf")


def test_each_round_is_a_step(measured):
    rounds = [note for note in measured[2] if "latency" in note]
    assert rounds == ["latency, round 1", "latency, round 2"]


@pytest.fixture
def noted_turns(monkeypatch):
    """What `workers.in_turns` is called with: names of artifacts, turn_ns, core."""
    noted = []

    def in_turns(jobs, turn_ns, core, **request):
        noted.append(([job.model.parent.name for job in jobs], turn_ns, core))
        return [workers.call(job, "latency", **request) for job in jobs]

    monkeypatch.setattr(workers, "in_turns", in_turns)
    return noted


def timed(bench, make_artifact, names):
    found = [Found(Candidate(name, make_artifact(WEIGHTS, name))) for name in names]
    measure.time_in_rounds(found, bench, bench.inputs, range(2), lambda _note: None)
    return found


def test_rounds_go_forwards_and_backwards_and_on_other_cores(noted_turns, bench, make_artifact):
    found = timed(bench, make_artifact, "abc")
    assert noted_turns == [
        (["a", "b", "c"], measure.TURN_NS, 0), (["c", "b", "a"], measure.TURN_NS, 1)
    ]  # fmt: skip
    assert [len(each.restarts) for each in found] == [2, 2, 2]


def test_no_more_are_beside_each_other_than_memory_is_for(
    noted_turns, bench, make_artifact, monkeypatch
):
    monkeypatch.setattr(measure, "MAX_BESIDE", 2)
    found = timed(bench, make_artifact, "abcde")
    groups = [names for names, _, _ in noted_turns]
    assert groups == [["a", "b"], ["c", "d"], ["e", "d"], ["c", "b"]]  # one alone takes no turns
    assert [len(each.restarts) for each in found] == [2] * 5


def test_several_threads_take_longer_turns(noted_turns, bench, make_artifact):
    profile = msgspec.structs.replace(bench.target.profile, num_threads=2)
    several = msgspec.structs.replace(bench.target, profile=profile)
    timed(dataclasses.replace(bench, target=several), make_artifact, "ab")
    assert {turn_ns for _, turn_ns, _ in noted_turns} == {2 * measure.TURN_NS}


def test_steps_are_counted_beforehand(bench, make_artifact):
    notes = []
    one = [Candidate("dense-fp32", make_artifact(WEIGHTS))]
    measure.measure(one, "dense-fp32", bench, notes.append)
    assert len(notes) == measure.num_steps(1, bench)


def test_a_failing_worker_leaves_no_measurement(
    make_artifact, foreign_target, fake_environments, bench
):
    foreign = Bench(
        "x86", foreign_target, {}, bench.inputs, LABELS, TINY, fake_environments("kill -9 $$")
    )
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        measure.measure([Candidate("dense-fp32", make_artifact(WEIGHTS))], "dense-fp32", foreign)


def test_outputs_of_a_refused_model_are_an_error(make_artifact, bench, target):
    odd = make_artifact(WEIGHTS, "odd-fp32", ("Nonsense", "acme"))
    with pytest.raises(ModelRefusedError, match="Nonsense"):
        measure.outputs(odd, bench.inputs, target)


def test_quick_takes_at_most_three_seconds_a_candidate_and_can_give_a_p50():
    quick = PRESETS["quick"]
    assert quick.num_restarts == 3
    assert quick.num_restarts * (quick.warmup_s + quick.timed_s) <= 3
    assert quick.num_restarts * quick.min_samples >= 11
