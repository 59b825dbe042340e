"""MLPerf Tiny's reference models, and targets that run them: shared by contract and systems."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import compatibility, manifest, params

RESNET = {
    "onnxruntime": ("onnx/pretrainedResnet.onnx", ({"step": "channels_first"},)),
    "litert": ("pretrainedResnet.tflite", ()),
    "tflite_runtime": ("pretrainedResnet.tflite", ()),
}
# Same weights, other kernels: sums in another order, through nine layers and a softmax.
MAX_KERNEL_ERROR = 1e-4


def target_of(runtime, environment=None, num_threads=1) -> params.Target:
    """Return a target of fp32, in the runtime's first environment unless another is given."""
    environment = environment or compatibility.ENVIRONMENTS[runtime][0]
    return params.Target(
        converter="to_onnxruntime" if runtime == "onnxruntime" else "to_litert",
        runtime=runtime,
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(environment=environment, num_threads=num_threads),
        select=params.Select(),
    )


@pytest.fixture
def model_artifact(data_path, tmp_path):
    """A reference model as an artifact directory."""

    def make(name, steps=()):
        folder = Path(tempfile.mkdtemp(dir=tmp_path, prefix=Path(name).stem))
        source = data_path / "mlperf-tiny/models" / name
        shutil.copyfile(source, folder / f"model{source.suffix}")
        manifest.write(folder, model="tiny", stage="convert", preprocessing=steps)
        return folder

    return make


@pytest.fixture
def images(tmp_path):
    """Eight raw images, as the ResNet takes them."""
    path = tmp_path / "images.npz"
    generator = np.random.default_rng(0)
    np.savez(path, inputs=generator.uniform(0, 255, (8, 32, 32, 3)).astype(np.float32))
    return path
