import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from pipeline import manifest, params
from pipeline.errors import DigestMismatchError, ManifestError, TargetError
from pipeline.profiling import workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.runtimes import runner

ROOT = Path(__file__).parents[3]
QUICK = {"warmup_ns": 0, "timed_ns": 1_000_000, "min_samples": 4}
READY = '{"ready": true}'
TIMED = {"samples_ns": [9] * 4, "runs_per_sample": 1}


@pytest.fixture
def foreign_job(make_artifact, make_inputs, foreign_target, fake_environments):
    """A job in an environment whose interpreter is the given script."""

    def make(script):
        inputs = make_inputs(np.ones((3, 2), np.float32))
        artifact = make_artifact(np.eye(2))
        return workers.job_of(artifact, inputs, foreign_target, fake_environments(script))

    return make


def test_time_gives_raw_samples_and_what_they_rest_on(job):
    found = workers.call(job, "latency", plan=QUICK)
    assert len(found["samples_ns"]) >= 4
    assert all(type(sample) is int and sample > 0 for sample in found["samples_ns"])
    assert found["runs_per_sample"] > 1  # a 2x2 product is far below 100 us
    assert found["load_ns"] > 0
    assert found["first_ns"] > 0
    assert found["facts"]["provider"] == "CPUExecutionProvider"
    assert found["facts"]["num_threads"] == 1
    assert found["source_digest"] == runner.source_digest()


def test_the_input_digest_is_that_of_the_preprocessed_sample(job, make_inputs):
    same = workers.call(job, "latency", plan=QUICK)["input_digest"]
    other = make_inputs(np.full((3, 2), 2, np.float32))
    changed = workers.Job(job.model, job.preprocessing, other, job.target)
    assert workers.call(job, "latency", plan=QUICK)["input_digest"] == same
    assert workers.call(changed, "latency", plan=QUICK)["input_digest"] != same


def test_memory_of_a_larger_model_is_larger(make_artifact, make_inputs, target, tmp_path):
    def peak(size):
        inputs = make_inputs(np.ones((1, size), np.float32))
        job = workers.job_of(make_artifact(np.ones((size, size))), inputs, target)
        found = workers.outputs(job, tmp_path / "o.npz")
        return found["peak_memory_bytes"]

    small, large = peak(2), peak(2048)
    if small is None:
        pytest.skip("this kernel does not reset VmHWM")
    assert large - small > 2048 * 2048 * 4 * 0.9  # its weights, float32


def test_workers_start_together_and_run_when_they_are_asked(job):
    with (
        workers.started(job, "latency", plan=QUICK) as asked,
        workers.started(job, "latency", plan=QUICK) as never_asked,
    ):
        for worker in (asked, never_asked):
            worker.wait()
        assert asked.result()["steady"] is not None
        assert never_asked.process.poll() is None
    assert never_asked.process.returncode == -signal.SIGKILL


TURNS = {"warmup_ns": 0, "timed_ns": 30_000_000, "min_samples": 4}


def test_two_are_timed_by_turns_on_one_core(job, monkeypatch):
    order, turn = [], workers.Worker.turn

    def noting(worker, number):
        order.append(worker)
        return turn(worker, number)

    monkeypatch.setattr(workers.Worker, "turn", noting)
    found = workers.in_turns([job, job], 5_000_000, 1, plan=TURNS)
    for reply in found:
        assert sum(reply["samples_per_turn"]) == len(reply["samples_ns"]) >= 4
        assert len(reply["samples_per_turn"]) > 1
        assert len(reply["host_before"]["affinity"]) == 1
    assert found[0]["host_before"]["affinity"] == found[1]["host_before"]["affinity"]
    first, second = order[:2]
    assert order[:6] == [first, second, second, first, first, second]


def test_a_runner_that_knows_no_turns_is_timed_as_a_whole(foreign_job):
    """It answers when its first turn comes, before the next one begins."""
    job = foreign_job(f"read request; echo '{READY}'; read go; {foreign(**TIMED)}")
    found = workers.in_turns([job, job], 5_000_000, 0, plan=QUICK)
    assert [reply["samples_ns"] for reply in found] == [TIMED["samples_ns"]] * 2


def test_a_runner_that_ended_before_it_was_ready_says_why(foreign_job):
    job = foreign_job(f"read request; {foreign(error='no libgomp')}; exit 4")
    with pytest.raises(TargetError, match=r"no libgomp$"):
        workers.in_turns([job, job], 5_000_000, 0, plan=QUICK)


def test_a_runner_that_always_wants_another_turn_is_killed(foreign_job):
    job = foreign_job(
        f"read request; echo '{READY}'; n=0; "
        'while read go; do echo "{\\"turn\\": $n}"; n=$((n + 1)); sleep 0.01; done'
    )
    with pytest.raises(TargetError, match="took longer than 1 s and was killed"):
        workers.in_turns([job, job], 5_000_000, 0, plan=QUICK, time_limit_s=0.5)


@pytest.mark.parametrize("num_threads", [2])
def test_a_runner_that_waits_for_its_turn_uses_no_processor(job, num_threads):
    """Its runtime's threads would spin on the cores of the one that is timed."""
    profile = replace_struct(job.target.profile, num_threads=num_threads)
    several = replace(job, target=replace_struct(job.target, profile=profile))
    turns = {"turn_ns": 5_000_000, "core": 0}
    with workers.started(several, "latency", plan=TURNS, turns=turns) as worker:
        worker.wait()
        assert worker.turn(0)
        assert worker.turn(1)
        before = ticks(worker.process.pid)
        time.sleep(0.2)
        assert ticks(worker.process.pid) - before <= 1


def ticks(pid):
    """Read the processor time that a process used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def foreign(**reply):
    """The shell's line that replies so, as our own runner would."""
    whole = {"protocol": runner.PROTOCOL, "source_digest": runner.source_digest(), **reply}
    return f"echo '{json.dumps(whole)}'"


BROKEN = {
    "it is killed in a turn": ("kill -9 $$", "the worker was killed by SIGKILL"),
    "it fails in a turn": (f"{foreign(error='no heat sink')}; exit 1", "fp32.*: no heat sink$"),
    "its turns hold other samples": (
        foreign(**TIMED, samples_per_turn=[3]),
        "the runner took 4 samples and tells of turns with 3; docs/runner-protocol.md says how",
    ),
}


@pytest.mark.parametrize(("script", "words"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_in_turns_is_one_line(foreign_job, script, words):
    job = foreign_job(
        f"read request; echo '{READY}'; read go; echo '{{\"turn\": 0}}'; read go; {script}"
    )
    with pytest.raises(TargetError, match=words) as caught:
        workers.in_turns([job, job], 5_000_000, 0, plan=QUICK)
    assert "\n" not in str(caught.value)


def test_outputs_run_every_sample_through_preprocessing(
    make_artifact, make_inputs, target, tmp_path
):
    raw = np.arange(260, dtype=np.float32).reshape(130, 2)  # more than two chunks
    job = workers.job_of(make_artifact([[1, 2], [3, 4]]), make_inputs(raw), target)
    workers.outputs(job, tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["outputs"], raw / 2 @ [[1, 2], [3, 4]], rtol=1e-6)


def request_of(job, what, **settings):
    return {
        "protocol": runner.PROTOCOL, "what": what, "runtime": "onnxruntime",
        "model": str(job.model), "num_threads": 1, "inputs": str(job.inputs),
        "preprocessing": job.preprocessing, **settings,
    }  # fmt: skip


def test_a_worker_loads_numpy_one_runtime_and_nothing_heavy(job, tmp_path):
    request = request_of(job, "outputs", outputs=str(tmp_path / "o.npz"))
    code = (
        "import io, sys; from pipeline.runtimes import runner\n"
        "assert runner.main(['run'], sys.stdin, io.StringIO()) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('pipeline')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(request) + "\n",
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    modules, ours = (set(line.split()) for line in done.stdout.splitlines())
    assert {"numpy", "onnxruntime"} <= modules
    heavy = {"torch", "dvc", "msgspec", "onnx", "rich", "yaml", "scipy", "ai_edge_litert", "pandas"}
    assert not heavy & modules
    room = {
        "arrivals", "clock", "device_lock", "errors", "host", "layers", "machine", "mapped",
        "onnxruntime", "runner", "scenarios", "tasks", "turns",
        "session", "structured",
    }  # fmt: skip
    parts = {f"pipeline.runtimes.{name}" for name in room}
    assert ours == {"pipeline", "pipeline.preprocessing", "pipeline.runtimes", *parts}


def test_an_operator_that_the_runtime_lacks_is_refused_with_its_name(
    make_artifact, make_inputs, target
):
    artifact = make_artifact(np.eye(2), "odd-fp32", operator=("Nonsense", "acme"))
    job = workers.job_of(artifact, make_inputs(np.ones((1, 2), np.float32)), target)
    with pytest.raises(
        ModelRefusedError, match=r"latency of odd-fp32/model.onnx .*Nonsense"
    ) as caught:
        workers.call(job, "latency", plan=QUICK)
    assert str(artifact) not in str(caught.value)  # reasons are kept in outs: no machine paths


def test_inputs_that_do_not_fit_are_no_refusal(make_artifact, make_inputs, target):
    job = workers.job_of(make_artifact(np.eye(2)), make_inputs(np.ones((1, 3), np.float32)), target)
    with pytest.raises(TargetError, match=r"takes shape .*correct data.preprocessing") as caught:
        workers.call(job, "latency", plan=QUICK)
    assert not isinstance(caught.value, ModelRefusedError)


def test_no_inputs_are_refused(make_artifact, make_inputs, target):
    job = workers.job_of(make_artifact(np.eye(2)), make_inputs(np.ones((0, 2), np.float32)), target)
    with pytest.raises(TargetError, match=r"inputs.npz holds no inputs"):
        workers.call(job, "outputs")


def test_a_killed_worker_is_an_error_of_the_moment(foreign_job):
    with pytest.raises(TargetError, match=r"killed by SIGKILL; free memory .*run dvc repro again"):
        workers.call(foreign_job("kill -9 $$"), "outputs")


def test_a_worker_that_hangs_is_killed(foreign_job):
    start = time.monotonic()
    with pytest.raises(TargetError, match=r"longer than 0.3 s and was killed; .*dvc repro again"):
        workers.call(foreign_job("exec sleep 60"), "outputs", time_limit_s=0.3)
    assert time.monotonic() - start < 10


LIMITS = {
    "outputs go by their number": (3, "outputs", {}, 303),
    "of many": (10_000, "outputs", {}, 10_300),
    "latency goes by its plan": (
        3,
        "latency",
        {"plan": {"warmup_ns": 5 * 10**9, "timed_ns": 10 * 10**9, "min_samples": 133}},
        300 + 45 + 133,
    ),
    "a load goes by its own limit": (
        3,
        "scenario",
        {"load": {"warmup_ns": 10**9, "timed_ns": 10**9}},
        300 + 3 + 2 * 60,
    ),
    "a long load too": (
        3,
        "scenario",
        {"load": {"warmup_ns": 0, "timed_ns": 600 * 10**9}},
        300 + 2 * 1800,
    ),
    "layers": (3, "layers", {"num_runs": 10}, 300),
}


@pytest.mark.parametrize(("num", "what", "asked", "limit_s"), LIMITS.values(), ids=LIMITS)
def test_more_work_has_more_time(make_inputs, foreign_job, num, what, asked, limit_s):
    job = replace(foreign_job("sleep 60"), inputs=make_inputs(np.ones((num, 1), np.float32)))
    with workers.started(job, what, **asked) as worker:
        assert worker.time_limit_s == limit_s


def test_a_start_has_no_more_time_however_much_work_there_is(foreign_job, monkeypatch):
    monkeypatch.setattr(workers, "TIME_LIMIT_S", 0.3)
    job = foreign_job("exec sleep 60")
    with (
        pytest.raises(TargetError, match=r"longer than 0.3 s .*; close other programs, or ask for"),
        workers.started(job, "outputs") as worker,
    ):
        worker.wait()


def test_inputs_that_cannot_be_read_are_one_line(foreign_job, tmp_path):
    (tmp_path / "inputs.npz").write_bytes(b"no zip")
    job = replace(foreign_job("sleep 60"), inputs=tmp_path / "inputs.npz")
    with pytest.raises(TargetError, match=r"^inputs.npz cannot be read: .*; make it again"):
        workers.call(job, "outputs")


def test_an_environment_without_our_wheel_names_the_remedy(foreign_job):
    with pytest.raises(
        TargetError, match=r"no worker in environment device-tflite: .*; run make setup"
    ):
        workers.call(foreign_job("echo No module named pipeline >&2; exit 1"), "outputs")


def test_an_environment_that_was_never_made_names_the_remedy(job, foreign_target, tmp_path):
    foreign = workers.Job(job.model, job.preprocessing, job.inputs, foreign_target, tmp_path)
    with pytest.raises(TargetError, match=r"no interpreter .*run make setup"):
        workers.call(foreign, "outputs")


@pytest.fixture
def sources(tmp_path):
    """A copy of the package, as a wheel would hold it."""
    folder = tmp_path / "wheel"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=ignored)
    return folder


def test_an_equal_wheel_measures(foreign_job, python_with, sources):
    found = workers.call(foreign_job(python_with(sources)), "latency", plan=QUICK)
    assert found["steady"] is not None


@pytest.mark.parametrize("name", ["runtimes/clock.py", "preprocessing.py"])
def test_a_stale_wheel_is_refused(foreign_job, python_with, sources, name):
    path = sources / "pipeline" / name
    path.write_text(path.read_text() + "\n# as it was before\n")
    with pytest.raises(TargetError, match=r"device-tflite holds another version .*run make setup"):
        workers.call(foreign_job(python_with(sources)), "latency", plan=QUICK)


def test_a_stale_wheel_is_named_rather_than_its_failure(foreign_job, python_with, sources):
    path = sources / "pipeline/runtimes/session.py"
    path.write_text(path.read_text() + "\ndef encode(*_):\n    raise RunnerError('old defect')\n")
    with pytest.raises(TargetError, match="another version of slipway"):
        workers.call(foreign_job(python_with(sources)), "outputs")


def test_a_worker_dies_with_its_parent(job, tmp_path):
    if sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG, Linux only")
    plan = {"warmup_ns": 0, "timed_ns": 60_000_000_000, "min_samples": 4}
    (tmp_path / "q.json").write_text(json.dumps(request_of(job, "latency", plan=plan)) + "\n")
    code = (
        "import subprocess, sys, time\n"
        "worker = [sys.executable, '-m', 'pipeline.runtimes.runner', 'run']\n"
        "child = subprocess.Popen(worker, stdin=open(sys.argv[1]))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "q.json")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        child = Path("/proc") / parent.stdout.readline().strip()
        time.sleep(1)  # the worker is past its first line, which asks for the signal
        assert b"pipeline.runtimes.runner" in (child / "cmdline").read_bytes()
        parent.kill()
    deadline = time.monotonic() + 5
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def test_changed_bytes_are_not_measured(make_artifact, make_inputs, target):
    artifact = make_artifact(np.eye(2))
    (artifact / "model.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatchError, match=r"differs from its manifest: model.onnx"):
        workers.job_of(artifact, make_inputs(np.ones((1, 2))), target)


def test_an_artifact_without_a_model_is_refused(tmp_path, make_inputs, target):
    (tmp_path / "notes.txt").write_text("no model")
    manifest.write(tmp_path, model="tiny", stage="convert")
    with pytest.raises(ManifestError, match=r"must hold one file model.\*, holds \['notes.txt'\]"):
        workers.job_of(tmp_path, make_inputs(np.ones((1, 2))), target)


def test_worker_and_params_know_the_same_runtimes():
    assert set(runner.RUNTIMES) == set(params.Runtime.__args__)
