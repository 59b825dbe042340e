"""`slipway runner check` and `write`; what the cases find is in tests/contract."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import cli
from pipeline.errors import InputsError, ParamsError, TargetError
from pipeline.transports.conformance import cases
from pipeline.transports.conformance.subject import TINY

REPLY = {
    "protocol": 1, "runner": "mine", "runtimes": {},
    "device": {"arch": "x", "cpu_model": "y", "isa_flags": [], "num_cores": 1,
               "accelerator": "none"},
}  # fmt: skip


def invoke(*args):
    return CliRunner().invoke(cli.app, ["runner", *map(str, args)])


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A runner that knows one command, and three cases."""
    kept = [case for case in cases.CASES if case.name in {"describe", "load", "signature"}]
    monkeypatch.setattr(cases, "CASES", tuple(kept))
    path = tmp_path / "runner"
    path.write_text(f"#!/bin/sh\necho '{json.dumps(REPLY)}'\n")
    path.chmod(0o755)
    return path


def test_a_runner_that_does_otherwise_is_shown_and_exit_4(program):
    done = invoke("check", "--program", program, "--runtime", "litert")
    assert done.exit_code == 4
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["describe", "ok"] in [row[:2] for row in rows]
    assert "missing required field `load_ns`" in done.stdout
    assert "litert: 3 cases, 2 fail" in done.stdout


def test_programs_get_json(program):
    done = invoke("check", "--program", program, "--runtime", "litert", "--json")
    assert done.exit_code == 4
    rows = {row["case"]: row for row in json.loads(done.stdout)}
    assert [row["passed"] for row in rows.values()] == [True, False, False]
    assert rows["describe"]["found"] == "as expected"


def test_a_model_of_ones_own_needs_no_known_numbers(program, tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.ones((2, 2), np.float32))
    own = ["--model", TINY / "dense.tflite", "--data", tmp_path / "data.npz"]
    done = invoke("check", "--program", program, "--runtime", "tensorrt", *own)
    assert "2 cases, 1 fail" in done.stdout


def test_the_runner_of_a_target_is_found_by_the_project(program):
    assert program.is_file()  # whose fixture left three cases
    done = invoke("check", "--target", "x86-onnxruntime")
    assert done.exit_code == 0
    assert "environment build, onnxruntime: 3 cases, all pass" in done.stdout


@pytest.mark.parametrize(
    ("args", "kind", "words"),
    [
        ([], ParamsError, "give either --target of params.yaml, or --program"),
        (["--target", "a", "--program", "b"], ParamsError, "give either --target"),
        (["--program", "b"], ParamsError, "give --runtime, one of onnxruntime, litert"),
        (["--program", "b", "--runtime", "jax"], ParamsError, "runtime 'jax' is not known; known"),
        (["--target", "nowhere"], ParamsError, "target 'nowhere' is not known; known: x86"),
        (["--program", "b", "--runtime", "litert"], InputsError, "b is no file; --program takes"),
        (["--program", __file__, "--runtime", "openvino"], TargetError, "--model and --data of"),
        (
            ["--program", __file__, "--runtime", "litert", "--model", "m"],
            InputsError,
            "give --model and --data together",
        ),
        (
            ["--program", __file__, "--runtime", "litert", "--model", "m", "--data", "d"],
            InputsError,
            "m is no file",
        ),
        (
            ["--program", __file__, "--runtime", "litert", "--model", __file__, "--data", __file__],
            InputsError,
            "not a zip file; give an uncompressed npz",
        ),
    ],
)
def test_options_that_name_nothing_are_refused(args, kind, words):
    done = invoke("check", *args)
    assert isinstance(done.exception, kind)
    assert words in str(done.exception)


def test_write_gives_a_file_that_runs(tmp_path):
    path = tmp_path / "new/ours.pyz"
    assert invoke("write", path).exit_code == 0
    done = subprocess.run(
        [sys.executable, path, "describe"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["runner"] == "slipway"


def test_write_takes_no_folder(tmp_path):
    done = invoke("write", tmp_path)
    assert isinstance(done.exception, InputsError)
    assert str(done.exception).endswith("slipway-runner.pyz")
