"""Every runner keeps to docs/runner-protocol.md, and one that does not is found out."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TargetError
from pipeline.transports import choose, runner_zip
from pipeline.transports.base import Local
from pipeline.transports.conformance import cases, plays
from pipeline.transports.conformance.subject import TINY, Own
from tests.reference_models import target_of

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def failures(transport, runtime, **settings):
    """Play all cases: what was found in those that fail."""
    rows = list(cases.check(transport, runtime, **settings))
    return {row.case: row.found for row in rows if not row.passed}


@pytest.fixture
def program(tmp_path):
    """Write a runner as a program of its own: an interpreter, and Python text."""

    def make(text, python=sys.executable):
        source, path = tmp_path / "source.py", tmp_path / "runner"
        source.write_text(text)
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} {source} "$@"\n')
        path.chmod(0o755)
        return Local("runner", (str(path),), tmp_path, ours=False)

    return make


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_ours_keeps_to_it_in_the_build_environment(runtime):
    assert failures(choose.of(target_of(runtime)), runtime) == {}


@pytest.mark.tflite
def test_ours_keeps_to_it_as_one_file_in_another_environment(tmp_path):
    environments = Path(os.environ.get("SLIPWAY_ENVIRONMENTS", ROOT / ".venvs"))
    python = environments.absolute() / "device-tflite/bin/python"
    if not python.is_file():
        pytest.skip("environment device-tflite is absent; run make setup")
    runner_zip.write(tmp_path / runner_zip.NAME)
    transport = Local("zipapp", (str(python), runner_zip.NAME), tmp_path)
    assert failures(transport, "tflite_runtime") == {}


def test_another_program_keeps_to_it_by_the_page_alone(program):
    text = (HERE / "other_runner.py").read_text()
    assert "pipeline" not in text.replace("imports nothing of slipway", "")
    assert failures(program(text), "onnxruntime") == {}


def test_a_model_of_ones_own_is_held_to_form_and_repetition(program):
    rng = np.random.default_rng(0)
    own = Own(TINY / "dense.onnx", rng.standard_normal((4, 2)).astype(np.float32))
    restless = program(BROKEN + "other.run_scale = time.time_ns() % 1000\nother.start()\n")
    assert list(failures(restless, "onnxruntime", own=own)) == ["outputs twice"]


def test_a_runtime_without_a_tiny_model_needs_ones_own():
    with pytest.raises(TargetError, match=r"no tiny model for openvino, .*--model and --data"):
        failures(choose.of(target_of("onnxruntime")), "openvino")


def test_the_tiny_models_are_what_their_script_writes(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/tiny_models.py", tmp_path], cwd=ROOT,
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)  # fmt: skip
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in TINY.iterdir()}


# The other runner with a quick stand-in for ONNX Runtime, which knows the tiny models.
BROKEN = f"""
import hashlib, os, sys, time
from pathlib import Path
from types import SimpleNamespace as Space
import numpy as np
sys.path.insert(0, {str(HERE)!r})
import other_runner as other

TINY = Path({str(TINY)!r})
value = lambda name, shape, kind="float": Space(name=name, shape=shape, type=f"tensor({{kind}})")
SEVERAL = lambda wide, steps: [value(wide, [1, 2]), value(steps, [1, 4], "double")]
other.version = lambda: "1.0"
other.run_scale = 1

class Session:
    def __init__(self, request):
        path = Path(request["model"])
        if not path.is_file():
            raise other.FailureError(1, "no file")
        known = {{p.read_bytes(): p.stem for p in TINY.glob("*.onnx")}}
        self.name = known.get(path.read_bytes())
        if self.name not in ("dense", "several"):
            raise other.FailureError(3, "refused")
    def get_inputs(self):
        return [value("x", ["n", 2])] if self.name == "dense" else SEVERAL("wide", "steps")
    def get_outputs(self):
        return [value("y", ["n", 3])] if self.name == "dense" else SEVERAL("twice", "same")
    def run(self, _, feed):
        if self.name == "dense":
            weights = np.array([[1, 2, -1], [0.5, -2, 4]]) * other.run_scale
            return [(feed["x"] @ weights + [0.25, 0, -1]).astype(np.float32)]
        return [feed["wide"] * 2, feed["steps"]]

other.open_session = Session
"""

# Changes each reply and code before they are said.
REPLIES = """
def changed(whole):
    def answer(arguments):
        reply, code = whole(arguments)
        {change}
        return reply, code
    return answer
other.answer = changed(other.answer)
"""
SAVES = """
def changed(savez):
    def save(path, outputs):
        several = bool(outputs.dtype.names)
        {change}
        savez(path, outputs=outputs)
    return save
np.savez = changed(np.savez)
"""


def replies(change):
    return REPLIES.format(change=change)


def saves(change):
    return SAVES.format(change=change)


REFUSALS = {"no model", "no model, at run", "unknown operator", "empty model file"}
MISUSES = {
    "another command", "no request", "no JSON", "another protocol", "a key is missing",
    "another what", "unknown runtime", "absent runtime",
}  # fmt: skip
# Runners with mistakes, in Python, and the cases that find each. Those of one runner are found by
# cases of their own, so that one round of all cases shows what each is found by.
RUNNERS = {
    "of many mistakes": {
        replies("reply.setdefault('device', {}).update(boot=os.getpid())"): {"describe twice"},
        # the name of a tool's own
        "tensor = other.tensor\nother.tensor = lambda value: {**tensor(value), 'name': 'Identity'}":
            {"signature"},
        "strict = other.read\ndef read(command, text):\n    if 'colour' in text:\n"
        "        raise other.FailureError(2, 'colour')\n    return strict(command, text)\n"
        "other.read = read": {"unknown keys"},
        replies("code = 3 if reply.get('error') == 'no file' else code"): {"model file absent"},
        # an end without a reply
        replies("if reply.get('error') == 'refused': sys.exit(3)"): REFUSALS,
        "measure = other.measure\ndef few(*args):\n    taken, *rest = measure(*args)\n"
        "    return taken[:4], *rest\nother.measure = few": {"latency"},
        saves("outputs = outputs['twice'] if several else outputs"): {"several inputs"},
        "from contextlib import nullcontext\nother.lock = lambda path: nullcontext()": {"lock"},
        "other.run_scale = time.time_ns() % 1000": {"outputs twice", "values", "preprocessing"},
        "other.wait = lambda request: request.get('wait') and other.say('{\"ready\": true}')":
            {"wait", "end of input"},
        "other.WHATS['scenario'] = lambda request, samples: {'latencies_ns': [5], "
        "'num_queries': 9, 'num_samples': 36, 'duration_ns': 9, 'flags': [], "
        "'facts': {'version': '1'}}":
            {"load of queries"},
        "other.WHATS['layers'] = lambda request, samples: {'layers': [{'name': 'a'}]}": {"layers"},
    },
    "of other mistakes": {
        replies("if 'runner' in reply: reply['runtimes'] = {'onnxruntime': '2'}"): {"version"},
        replies("if reply.get('error') == 'no file': reply = {'error': 'no\\nfile'}"):
            {"model file absent"},
        saves("outputs = outputs if several else outputs.astype(np.float64)"):
            {"outputs", "values", "preprocessing"},
        # of all samples, or of the time
        replies("if 'input_digest' in reply: reply['input_digest'] = 'sha256:' + hashlib.sha256("
                "str(time.time_ns()).encode()).hexdigest()"): {"input digest"},
        "one = other.sample_ns\nother.sample_ns = lambda session, tensors, _: max("
        "one(session, tensors, 1), 1)\nother.SAMPLE_NS = 0": {"latency"},
        "other.wait = lambda request: None": {"wait", "end of input", "killed"},
        replies("if 'samples_ns' in reply: reply['samples_per_turn'] = [1]"): {"turns"},
    },
    "that knows two codes": {
        replies("code = min(code, 1)"): MISUSES | REFUSALS | {"load of queries"},
        "other.preprocess = lambda steps, samples: samples.astype(np.float32)":
            {"unknown step", "preprocessing", "several inputs"},
        # it says that it waits, and does not
        "whole = other.measure\ndef hasty(*args):\n    other.say('{\"turn\": 0}')\n"
        "    return whole(*args)\nother.measure = hasty": {"turns"},
        # the parent is killed, and its child goes on
        "pid = os.fork()\nif pid:\n    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))":
            {"killed"},
    },
    "whose replies lack keys": {
        replies("reply.get('device', {}).pop('accelerator', 0)"):
            {"describe", "describe twice", "version", "absent runtime"},
        replies("reply.pop('inputs', 0)"): {"load", "signature", "unknown keys", "outputs"},
        saves("outputs = outputs[1:]"): {"values", "preprocessing", "several inputs"},
    },
}  # fmt: skip


@pytest.mark.parametrize("runner", RUNNERS)
def test_mistakes_fail_exactly_their_cases(runner, program, monkeypatch):
    monkeypatch.setattr(plays, "QUIET_S", 0.3)
    monkeypatch.setitem(plays.ENDLESS, "timed_ns", 30_000_000_000)  # what is left behind ends
    mistakes = RUNNERS[runner]
    transport = program("\n".join([BROKEN, *mistakes, "other.start()\n"]))
    found = failures(transport, "onnxruntime", limit_s=10)
    assert set(found) == set().union(*mistakes.values()), found
    assert sum(map(len, mistakes.values())) == len(found), "a case is for one mistake"
