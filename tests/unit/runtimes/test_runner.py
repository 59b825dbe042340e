"""The runner's words: what is a request, which code an end has."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import preprocessing
from pipeline.runtimes import device_lock, runner
from tests.unit.runtimes.conftest import PLAN

ROOT = Path(__file__).parents[3]
LOAD = {"scenario": "Offline", "warmup_ns": 0, "timed_ns": 1_000_000, "min_queries": 1}


@pytest.fixture
def load(tiny_model):
    return {"protocol": 1, "runtime": "onnxruntime", "model": tiny_model, "num_threads": 1}


@pytest.fixture
def request_of(load, tmp_path):
    """A whole request, with changes; a value None leaves the key out."""
    np.savez(tmp_path / "inputs.npz", inputs=np.ones((3, 2), np.float32))
    whole = {**load, "inputs": str(tmp_path / "inputs.npz"), "preprocessing": []}
    particular = {
        "latency": {"plan": PLAN},
        "outputs": {"outputs": str(tmp_path / "outputs.npz")},
        "scenario": {"load": LOAD},
    }

    def make(what, **changes):
        found = {**whole, **particular[what], "what": what, **changes}
        return {key: value for key, value in found.items() if value is not None}

    return make


def ask(command, request=None, then=""):
    """Run the runner in this process: (exit code, the last reply, all that it printed)."""
    line = request if isinstance(request, str) else json.dumps(request)
    replies = io.StringIO()
    code = runner.main([command], io.StringIO(f"{line}\n{then}"), replies)
    said = replies.getvalue()
    return code, json.loads(said.splitlines()[-1]), said


def refusal(command, request):
    """Return what it says to a request that it does not take; no more than one line."""
    code, reply, _ = ask(command, request)
    assert "\n" not in reply["error"]
    assert reply["protocol"] == 1
    return code, reply["error"]


MISUSES = {
    "no JSON": ("load", "{", "no line of JSON"),
    "nothing": ("load", "", "no line of JSON"),
    "no mapping": ("load", [1], "not of protocol 1"),
    "another protocol": ("load", {"protocol": 2}, "not of protocol 1; update"),
    "no protocol": ("load", {"model": "m"}, "not of protocol 1"),
    "no what": ("run", {"protocol": 1}, "what is one of latency, outputs.*; got None"),
    "another what": ("run", {"protocol": 1, "what": "train"}, "got 'train'"),
    "describe as what": ("run", {"protocol": 1, "what": "describe"}, "got 'describe'"),
    "a list as what": ("run", {"protocol": 1, "what": ["latency"]}, r"got \['latency'\]"),
}


@pytest.mark.parametrize(("command", "request_", "words"), MISUSES.values(), ids=MISUSES)
def test_what_is_no_request_is_misuse(command, request_, words):
    code, said = refusal(command, request_)
    assert code == 2
    assert re.search(words, said)


@pytest.mark.parametrize("arguments", [[], ["help"], ["load", "run"], ["--help"]])
def test_commands_are_three(arguments):
    replies = io.StringIO()
    assert runner.main(arguments, io.StringIO("{}\n"), replies) == 2
    assert "commands are describe, load, run" in json.loads(replies.getvalue())["error"]


@pytest.mark.parametrize("key", ["runtime", "model", "num_threads"])
def test_what_load_lacks_is_named(load, key):
    del load[key]
    assert refusal("load", load) == (2, f"the request lacks {key}")


@pytest.mark.parametrize(
    "asked", [5, {}, {"turn_ns": 1}, {"turn_ns": 1, "core": 0.5}, {"turn_ns": -1, "core": 0}]
)
def test_turns_are_whole_numbers_or_misuse(request_of, asked):
    code, said = refusal("run", request_of("latency", turns=asked))
    assert (code, said) == (2, f"turns takes turn_ns, core, whole numbers; got {asked!r}")


@pytest.mark.parametrize("what", ["latency", "outputs"])
@pytest.mark.parametrize(
    "key", ["runtime", "model", "num_threads", "inputs", "preprocessing", "particular"]
)
def test_what_run_lacks_is_named(request_of, what, key):
    key = {"latency": "plan", "outputs": "outputs"}[what] if key == "particular" else key
    assert refusal("run", request_of(what, **{key: None})) == (2, f"the request lacks {key}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"runtime": "tensorflow"},
            "runtime 'tensorflow' is not known; known: onnxruntime, litert",
        ),
        ({"runtime": 1}, "the request has runtime 1"),
        ({"num_threads": "1"}, "the request has num_threads '1'"),
        ({"num_threads": True}, "the request has num_threads True"),
        ({"num_threads": 0}, "num_threads is at least 1, got 0"),
        ({"model": ["m"]}, "the request has model"),
        ({"preprocessing": "scale"}, "the request has preprocessing 'scale'"),
        ({"plan": {}}, "plan takes warmup_ns, timed_ns, min_samples, whole numbers; got {}"),
        ({"plan": {**PLAN, "more": 1}}, "plan takes"),
        ({"plan": {**PLAN, "timed_ns": 0.5}}, "plan takes"),
    ],
)
def test_a_value_that_cannot_be_is_misuse(request_of, changes, words):
    code, said = refusal("run", request_of("latency", **changes))
    assert code == 2
    assert words in said


def test_a_runtime_that_is_not_here_has_its_own_code(load):
    load["runtime"] = "tflite_runtime"  # needs numpy < 2
    code, said = refusal("load", load)
    assert code == 4
    assert said.startswith("runtime tflite_runtime cannot be imported: No module named")


@pytest.mark.parametrize("content", [b"", b"no model at all", "cut off"])
@pytest.mark.parametrize("command", ["load", "run"])
def test_a_malformed_model_is_refused(request_of, tmp_path, content, command):
    whole = Path(request_of("outputs")["model"]).read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: len(whole) // 2] if content == "cut off" else content)
    code, said = refusal(command, request_of("outputs", model=str(path)))
    assert code == 3
    assert "refuses the model" in said


FAILURES = {
    "no model": ({"model": "absent.onnx"}, "absent.onnx is no file here"),
    "a folder as model": ({"model": "."}, "is no file here"),
    "no inputs": ({"inputs": "absent.npz"}, "No such file"),
    "inputs of another format": ({"inputs": __file__}, "not a zip file"),
    "an unknown step": ({"preprocessing": [{"step": "crop"}]}, "(crop) is not known"),
    "another shape": ({"preprocessing": [{"step": "add_channel"}]}, "takes shape"),
    "steps of other inputs": ({"preprocessing": {"a": []}}, "'a'"),
    "nowhere to write": ({"outputs": "/nowhere/outputs.npz"}, "No such file"),
}


@pytest.mark.parametrize(("changes", "words"), FAILURES.values(), ids=FAILURES)
def test_what_another_try_may_mend_is_a_failure(request_of, changes, words):
    code, said = refusal("run", request_of("outputs", **changes))
    assert code == 1
    assert words in said


def test_a_load_of_no_model_is_a_failure_and_no_reason(request_of):
    assert refusal("run", request_of("scenario", model="absent.onnx")) == (
        1,
        "absent.onnx is no file here",
    )


def test_a_load_that_is_none_is_misuse(request_of):
    code, said = refusal("run", request_of("scenario", load={**LOAD, "scenario": "Burst"}))
    assert (code, said[:30]) == (2, "scenario 'Burst' is not known;")


@pytest.mark.parametrize(
    "error", [MemoryError("4 GiB"), KeyError("4 GiB"), RuntimeError("4\nGiB"), TypeError("4 GiB")]
)
def test_whatever_fails_is_told_with_its_kind(request_of, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(preprocessing, "apply_all", fail)
    code, said = refusal("run", request_of("outputs"))
    assert (code, said.replace("'", "")) == (1, f"{type(error).__name__}: 4 GiB")
    assert "Traceback" in capsys.readouterr().err, "for whoever mends the runner"


@pytest.mark.parametrize(
    "arrays", [{}, {"samples": np.ones(1)}, {"inputs": np.ones((0, 2))}], ids=["none", "other", "0"]
)
def test_a_file_without_inputs_is_a_failure(request_of, tmp_path, arrays):
    np.savez(tmp_path / "empty.npz", **arrays)
    found = refusal("run", request_of("outputs", inputs=str(tmp_path / "empty.npz")))
    assert found == (1, "empty.npz holds no inputs")


def test_a_spoiled_file_of_inputs_is_a_failure(request_of, tmp_path):
    path = tmp_path / "inputs.npz"
    content = bytearray(path.read_bytes())
    content[150] ^= 1
    path.write_bytes(content)
    assert refusal("run", request_of("outputs", inputs=str(path)))[0] == 1


def test_a_device_that_somebody_else_measures_on_is_busy(request_of, tmp_path, monkeypatch):
    lock = str(tmp_path / "lock")
    monkeypatch.setattr(device_lock.held.__wrapped__, "__defaults__", (0.1,))
    with device_lock.held(lock):
        code, said = refusal("run", request_of("latency", lock=lock))
        assert (code, said[:18]) == (5, "the device is busy")
        assert ask("run", request_of("outputs", lock=lock))[0] == 0, "nothing is timed"
    assert ask("run", request_of("latency", lock=lock))[0] == 0


def test_keys_that_it_does_not_know_are_no_matter(request_of):
    assert ask("run", request_of("outputs", colour="blue"))[0] == 0


def test_load_tells_the_signature(load):
    code, reply, _ = ask("load", load)
    assert code == 0
    (only,) = reply["inputs"]
    assert only == {
        "name": "input", "dtype": "float32", "shape": ["batch", 2], "scale": None,
        "zero_point": None,
    }  # fmt: skip
    assert [tensor["name"] for tensor in reply["outputs"]] == ["output"]
    assert reply["load_ns"] > 0
    assert reply["facts"]["runtime"] == "onnxruntime"


class TestWait:
    def test_it_says_that_it_is_ready_and_waits_for_a_line(self, request_of):
        code, _, said = ask("run", request_of("outputs", wait=True), then="go\n")
        ready, reply = (json.loads(line) for line in said.splitlines() if line)
        assert (code, ready, reply["num_samples"]) == (0, {"ready": True}, 3)

    def test_the_end_of_input_means_exit(self, request_of, tmp_path):
        code, reply, _ = ask("run", request_of("outputs", wait=True))
        assert (code, reply["error"]) == (1, "whoever asked is gone")
        assert not (tmp_path / "outputs.npz").exists()

    def test_a_runtime_that_is_absent_is_told_before(self, request_of):
        code, _, said = ask("run", request_of("outputs", wait=True, runtime="tflite_runtime"))
        assert code == 4
        assert "ready" not in said


def test_it_ends_when_nobody_can_read_its_reply(request_of):
    """As when a line to a device breaks: nothing there would measure on beside the next one."""
    plan = {**PLAN, "timed_ns": 600_000_000_000}
    command = [sys.executable, "-m", "pipeline.runtimes.runner", "run"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        process.stdin.write(json.dumps(request_of("latency", plan=plan, wait=True)) + "\ngo\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"ready": True}
        process.stdout.close()
        assert process.wait(timeout=60) == runner.FAILED
