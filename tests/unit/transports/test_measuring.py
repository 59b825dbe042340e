"""Workers behind a connection: the same outputs as here, and what breaks is one line."""

import json
import subprocess

import msgspec
import numpy as np
import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.profiling import measure, workers
from pipeline.profiling.workers import ModelRefusedError
from tests.reference_models import target_of
from tests.unit.profiling.conftest import make_artifact, make_inputs

__all__ = ["make_artifact", "make_inputs"]  # fixtures

QUICK = {"warmup_ns": 0, "timed_ns": 1_000_000, "min_samples": 4}
HERE = target_of("onnxruntime")


@pytest.fixture
def on_board(client, python_of_a_board):
    client("ssh")
    connection = params.Ssh(host="board", python=str(python_of_a_board))
    return msgspec.structs.replace(HERE, connection=connection)


@pytest.fixture
def by_runner(client, home):
    """A target whose board has a runner of the user's, which is the given shell script."""

    def make(script):
        client("ssh")
        (home / "runner").write_text(f"#!/bin/sh\n{script}\n")
        (home / "runner").chmod(0o755)
        connection = params.Ssh(host="board", runner="./runner")
        return msgspec.structs.replace(HERE, connection=connection)

    return make


@pytest.fixture
def artifact(make_artifact):
    return make_artifact(np.arange(6).reshape(2, 3))


@pytest.fixture
def inputs(make_inputs):
    return make_inputs(np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32))


def test_outputs_of_the_board_are_those_of_here(artifact, inputs, on_board, home):
    found = measure.outputs(artifact, inputs, on_board)
    assert found.tobytes() == measure.outputs(artifact, inputs, HERE).tobytes()
    assert list((home / ".cache/slipway/runs").iterdir()) == []


def test_latency_of_the_board_is_timed_under_its_lock(artifact, inputs, on_board, home):
    found = workers.call(workers.job_of(artifact, inputs, on_board), "latency", plan=QUICK)
    assert found["runs_per_sample"] > 1
    assert (home / ".cache/slipway/lock").is_file()


def test_a_refusal_names_the_file_and_no_path_of_the_board(make_artifact, inputs, on_board):
    artifact = make_artifact(np.eye(2), "odd-fp32", operator=("Nonsense", "acme"))
    with pytest.raises(ModelRefusedError, match=r"^outputs of odd-fp32/model.onnx .*Nonsense") as e:
        measure.outputs(artifact, inputs, on_board)
    assert ".cache" not in str(e.value)


REPLY = {
    "protocol": 1, "load_ns": 5, "first_ns": 5, "samples_ns": [9] * 4, "runs_per_sample": 1,
    "num_warmup": 0, "steady": False, "loop_overhead_ns": 0.0, "facts": {"version": "1"},
    "input_digest": "sha256:" + "0" * 64, "host_before": {}, "host_after": {},
    "others_ratio": None,
}  # fmt: skip
WAIT = "read request; echo '{\"ready\": true}'; read go"


def latency(target, artifact, inputs):
    return workers.call(workers.job_of(artifact, inputs, target), "latency", plan=QUICK)


def test_the_figures_of_another_runner_are_taken(artifact, inputs, by_runner):
    target = by_runner(f"{WAIT}; echo noise; echo '{json.dumps(REPLY)}'")
    assert latency(target, artifact, inputs) == REPLY


FAILURES = {
    "a reply that lacks a key": (f"{WAIT}; echo '{{\"protocol\": 1}}'", "field `load_ns`"),
    "another protocol": (f"{WAIT}; echo '{json.dumps({**REPLY, 'protocol': 2})}'", "protocol 2"),
    "nothing": (WAIT, "the runner's reply to run latency is not as docs/runner-protocol.md says"),
    "a code without a reply": (f"{WAIT}; exit 3", r"./runner does not run there \(3\): no message"),
    "fewer samples than were asked for": (
        f"{WAIT}; echo '{json.dumps({**REPLY, 'samples_ns': [9] * 3})}'",
        "board: the runner took 3 samples where min_samples is 4; docs/runner-protocol.md says how",
    ),
    "killed": (f"{WAIT}; kill -9 $$", "board: the runner was killed by SIGKILL; free memory there"),
    "a failure": (
        f'{WAIT}; echo \'{{"protocol": 1, "error": "full"}}\'; exit 1',
        "latency of dense-fp32/model.onnx on onnxruntime: full$",
    ),
    "the client is killed": ("kill -9 $PPID", "killed by SIGKILL"),
}


@pytest.mark.parametrize(("script", "words"), FAILURES.values(), ids=FAILURES)
def test_what_breaks_is_one_line_and_no_refusal(artifact, inputs, by_runner, script, words):
    with pytest.raises(TargetError, match=words) as caught:
        latency(by_runner(script), artifact, inputs)
    assert not isinstance(caught.value, ModelRefusedError)
    assert "\n" not in str(caught.value)


def test_a_refusal_of_another_runner_is_one(artifact, inputs, by_runner):
    target = by_runner(f'{WAIT}; echo \'{{"protocol": 1, "error": "no LSTM"}}\'; exit 3')
    with pytest.raises(ModelRefusedError, match=r"no LSTM$"):
        latency(target, artifact, inputs)


def test_a_worker_that_is_given_up_ends_there_as_well(artifact, inputs, on_board, home):
    plan = {**QUICK, "timed_ns": 600_000_000_000}
    with pytest.raises(TargetError, match="took longer than 3 s"):
        workers.call(
            workers.job_of(artifact, inputs, on_board), "latency", plan=plan, time_limit_s=3
        )
    lock = ["flock", "--timeout", "30", str(home / ".cache/slipway/lock"), "true"]
    assert subprocess.run(lock, check=False).returncode == 0


OUTPUTS = {"protocol": 1, "num_samples": 100, "peak_memory_bytes": None, "facts": {"version": "1"},
           "tensors": []}  # fmt: skip


def write_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones((100, 3)))


FILES = {
    "no zip": (lambda path: path.write_bytes(b"outputs"), 100, "no array"),
    "an empty file": (lambda path: path.write_bytes(b""), 100, "no array"),
    "an array of another name": (lambda path: np.savez(path, y=np.ones((100, 3))), 100, "no array"),
    "an array without a zip": (write_array, 100, "no array"),
    "objects": (lambda path: np.savez(path, outputs=np.array([{}] * 100)), 100, "no array"),
    "a number": (lambda path: np.savez(path, outputs=1.0), 100, "no array"),
    "too few rows": (lambda path: np.savez(path, outputs=np.ones((99, 3))), 100, "99 rows"),
    "too few, and told so": (lambda path: np.savez(path, outputs=np.ones((99, 3))), 99, "99 rows"),
    "told otherwise": (lambda path: np.savez(path, outputs=np.ones((100, 3))), 7, "100 rows"),
}


def writes(by_runner, path, told):
    """Make a runner whose outputs are that file."""
    reply = json.dumps({**OUTPUTS, "num_samples": told})
    return by_runner(
        "read request; echo '{\"ready\": true}'; read go\n"
        f'there=${{request#*\\"outputs\\": \\"}}; cp {str(path)!r} "${{there%%\\"*}}"\n'
        f"echo '{reply}'"
    )


@pytest.mark.parametrize(("write", "told", "words"), FILES.values(), ids=FILES)
def test_outputs_that_are_none_are_one_line(
    artifact, inputs, by_runner, tmp_path, write, told, words
):
    write(tmp_path / "theirs.npz")
    target = writes(by_runner, tmp_path / "theirs.npz", told)
    with pytest.raises(TargetError, match=f"board: the runner wrote {words} of outputs and told "):
        measure.outputs(artifact, inputs, target)


def test_compressed_outputs_of_another_runner_are_taken(artifact, inputs, by_runner, tmp_path):
    np.savez_compressed(tmp_path / "theirs.npz", outputs=np.ones((100, 3), np.float32))
    target = writes(by_runner, tmp_path / "theirs.npz", 100)
    assert measure.outputs(artifact, inputs, target).sum() == 300
