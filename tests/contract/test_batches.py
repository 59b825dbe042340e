"""What every adapter must do when it is asked for several samples a request, in its environment."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

ROOT = Path(__file__).parents[2]
BATCH = 4
RUNTIMES = [
    pytest.param("onnxruntime"),
    pytest.param("litert"),
    pytest.param("tflite_runtime", marks=pytest.mark.tflite),
]
TFLITE = RUNTIMES[1:]
# Load for a batch, run it and then its samples one by one, in a process of the runtime's own.
CODE = """
import importlib, sys
import numpy as np
from pipeline.runtimes.errors import RunnerError
runtime, model, inputs, outputs = sys.argv[1:]
adapter = importlib.import_module("pipeline.runtimes." + runtime)
samples = np.load(inputs)
try:
    batch = adapter.load(model, 1, len(samples))
    (together,) = batch.run([samples])
except RunnerError as error:
    sys.exit("refused: %s" % error)
single = adapter.load(model, 1)
alone = [single.run([samples[i : i + 1]])[0] for i in range(len(samples))]
np.savez(outputs, together=together, alone=np.concatenate(alone))
"""


@pytest.fixture
def run_batch(tmp_path):
    """Run a model file on a batch: ``(together, alone)``, or the line of refusal."""

    def run(runtime, model, samples):
        python = sys.executable
        if runtime == "tflite_runtime":
            environments = Path(os.environ.get("SLIPWAY_ENVIRONMENTS", ROOT / ".venvs"))
            python = environments.absolute() / "device-tflite/bin/python"
            if not python.is_file():
                pytest.skip("environment device-tflite is absent; run make setup")
        np.save(tmp_path / "inputs.npy", samples)
        outputs = tmp_path / "outputs.npz"
        done = subprocess.run(
            [python, "-c", CODE, runtime, str(model), str(tmp_path / "inputs.npy"), str(outputs)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.splitlines()
            assert lines[-1].startswith("refused: "), done.stderr
            return lines[-1]
        with np.load(outputs) as found:
            return found["together"], found["alone"]

    return run


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A small net as ONNX with a free batch axis, and one that fixes its batch in a reshape."""
    import litert_torch
    import torch

    from pipeline.conversion.to_onnx import to_onnx

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x):
            return torch.softmax(self.layer(x), 1)

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.reshape(1, 2, 3).sum(2)

    folder = tmp_path_factory.mktemp("converted")
    torch.manual_seed(0)
    example = (torch.zeros(1, 6),)
    net = Net().eval()
    to_onnx(net, example[0], folder / "net.onnx", 20)
    litert_torch.convert(net, example).export(str(folder / "net.tflite"))
    litert_torch.convert(Fixed().eval(), example).export(str(folder / "fixed.tflite"))
    model = onnx.load(folder / "net.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / "fixed.onnx")
    return folder


def suffix(runtime):
    return ".onnx" if runtime == "onnxruntime" else ".tflite"


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(size=(BATCH, 6)).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_says_what_its_samples_say_alone(runtime, converted, run_batch, samples):
    together, alone = run_batch(runtime, converted / f"net{suffix(runtime)}", samples)
    assert together.shape == (BATCH, 3)
    assert np.ptp(alone, axis=0).min() > 0.01  # the samples do differ
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_fixes_its_batch_is_refused_in_one_line(runtime, converted, run_batch, samples):
    found = run_batch(runtime, converted / f"fixed{suffix(runtime)}", samples)
    assert isinstance(found, str)
    assert f"batch of {BATCH}" in found


@pytest.mark.parametrize("runtime", TFLITE)
def test_integer_nets_take_batches_too(runtime, data_path, run_batch):
    """MLPerf Tiny keyword spotting, int8: levels must agree to the last."""
    levels = np.random.default_rng(0).integers(-128, 128, (BATCH, 49, 10, 1), np.int8)
    model = data_path / "mlperf-tiny/models/kws_ref_model.tflite"
    together, alone = run_batch(runtime, model, levels)
    assert together.dtype == np.int8
    np.testing.assert_array_equal(together, alone)
