"""Our runner as one file."""

import json
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.runtimes import runner
from pipeline.transports import runner_zip


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "elsewhere" / runner_zip.NAME
    path.parent.mkdir()
    runner_zip.write(path)
    return path


def run(python, program, command, request=None):
    """Run it far from this repository; return the reply."""
    done = subprocess.run(
        [str(python), str(program), command], input=json.dumps(request) + "\n", cwd=program.parent,
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_sources_give_the_same_bytes(program, tmp_path):
    time.sleep(2.1)  # a zip's clock goes by two seconds
    runner_zip.write(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == program.read_bytes()


def test_the_file_goes_with_its_use():
    with runner_zip.built() as path:
        assert path.name == runner_zip.NAME
        assert path.is_file()
    assert not path.parent.exists()


def test_it_runs_where_no_slipway_is(program, python_of_a_board):
    absent = subprocess.run([str(python_of_a_board), "-c", "import pipeline"], cwd="/", check=False,
                            capture_output=True)  # fmt: skip
    assert absent.returncode == 1
    found = run(python_of_a_board, program, "describe")
    assert found["runner"] == "slipway"
    assert set(found["runtimes"]) == {"onnxruntime"}
    assert found["source_digest"] == runner.source_digest()
    assert found["device"] == run(sys.executable, program, "describe")["device"]


def test_it_runs_a_model_there(program, python_of_a_board, tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", inputs=np.arange(6, dtype=np.float32).reshape(3, 2))
    request = {
        "protocol": runner.PROTOCOL, "what": "outputs", "runtime": "onnxruntime",
        "model": "../model.onnx", "num_threads": 1, "inputs": "../inputs.npz",
        "preprocessing": [{"step": "scale", "factor": 2}], "outputs": "outputs.npz",
    }  # fmt: skip
    assert run(python_of_a_board, program, "run", request)["num_samples"] == 3
    with np.load(program.parent / "outputs.npz") as arrays:
        np.testing.assert_array_equal(arrays["outputs"], [[0, -2], [-4, -6], [-8, -10]])
