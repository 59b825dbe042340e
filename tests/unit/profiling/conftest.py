import shlex
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import manifest, params
from pipeline.profiling import workers

STEPS = ({"step": "scale", "factor": 0.5},)


@pytest.fixture(scope="session")
def make_artifact(tmp_path_factory):
    """An artifact directory: y = x @ weights in ONNX, raw inputs halved by its preprocessing.

    ``operator`` of another domain makes a model that no runtime knows; ``name`` is the folder's.
    """

    def make(weights, name="dense-fp32", operator=("MatMul", "")):
        weights = np.asarray(weights, np.float32)
        folder = tmp_path_factory.mktemp("artifacts") / name
        folder.mkdir()
        kind, domain = operator
        graph = helper.make_graph(
            [helper.make_node(kind, ["input", "weights"], ["output"], domain=domain)],
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", len(weights)])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights, "weights")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.save(model, folder / "model.onnx")
        manifest.write(folder, model="tiny", stage="convert", preprocessing=STEPS)
        return folder

    return make


@pytest.fixture(scope="session")
def make_inputs(tmp_path_factory):
    def make(inputs):
        path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
        np.savez(path, inputs=inputs)
        return path

    return make


@pytest.fixture(scope="session")
def target():
    return params.Target(
        converter="to_onnxruntime",
        runtime="onnxruntime",
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(),
        select=params.Select(),
    )


@pytest.fixture
def foreign_target():
    """The same runtime, but in an environment of its own, which `fake_environments` makes."""
    return params.Target(
        converter="to_onnxruntime",
        runtime="onnxruntime",
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(environment="device-tflite"),
        select=params.Select(),
    )


@pytest.fixture
def fake_environments(tmp_path):
    """Environments whose interpreter is a shell script, given by its text."""

    def make(script):
        python = tmp_path / "device-tflite/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        return tmp_path

    return make


@pytest.fixture
def python_with():
    """A script line that runs this interpreter on our worker with another folder of sources."""

    def line(sources):
        return f'PYTHONPATH={shlex.quote(str(sources))} exec {shlex.quote(sys.executable)} "$@"'

    return line


@pytest.fixture
def job(make_artifact, make_inputs, target):
    inputs = make_inputs(np.ones((3, 2), np.float32))
    return workers.job_of(make_artifact(np.eye(2)), inputs, target)
