"""What every runtime adapter must do, through the worker in its own environment."""

import csv
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import manifest
from pipeline.errors import TargetError
from pipeline.profiling import measure, quality, workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.runtimes import structured
from tests.reference_models import MAX_KERNEL_ERROR, RESNET, images, model_artifact, target_of

__all__ = ["images", "model_artifact"]  # fixtures

ROOT = Path(__file__).parents[2]
# of the environments that `make setup` always makes; tests/systems has the others
RUNTIMES = [
    pytest.param("onnxruntime"),
    pytest.param("litert"),
    pytest.param("tflite_runtime", marks=pytest.mark.tflite),
]
TFLITE = RUNTIMES[1:]
# Keyword set: scale and zero point of its int8 inputs, as its README states them.
KWS_SCALE, KWS_ZERO_POINT = 0.5847029, 83


@pytest.fixture(scope="session")
def runtime_environments(tmp_path_factory):
    """The foreign environments, with this working tree before the wheel that is installed there.

    A wheel is checked by the worker itself; here the adapters as they are now are what is tested.
    """
    path = Path(os.environ.get("SLIPWAY_ENVIRONMENTS", ROOT / ".venvs")).absolute()
    python = path / "device-tflite/bin/python"
    if not python.is_file():
        pytest.skip("environment device-tflite is absent; run make setup")
    folder = tmp_path_factory.mktemp("environments")
    shim = folder / "device-tflite/bin/python"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{python}" "$@"\n')
    shim.chmod(0o755)
    return folder


@pytest.fixture
def environments_of(request):
    """Where a runtime's environment is; None for those that share the build environment."""

    def find(runtime):
        foreign = runtime == "tflite_runtime"
        return request.getfixturevalue("runtime_environments") if foreign else None

    return find


@pytest.fixture
def keywords(data_path, tmp_path):
    """The official keyword-spotting set as floats, and its labels."""
    folder = data_path / "mlperf-tiny/kws01"
    with (folder / "y_labels.csv").open() as rows:
        labels = {name: int(label) for name, _, label in csv.reader(rows)}
    with tarfile.open(folder / "kws01_inputs.tar") as archive:
        raw = [np.frombuffer(archive.extractfile(name).read(), np.int8) for name in labels]
    levels = np.stack(raw).reshape(-1, 49, 10, 1).astype(np.float32)
    path = tmp_path / "keywords.npz"
    np.savez(path, inputs=(levels - KWS_ZERO_POINT) * np.float32(KWS_SCALE))
    return path, np.array(list(labels.values()))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_net_says_the_same_in_every_runtime(runtime, model_artifact, images, environments_of):
    reference = measure.outputs(
        model_artifact(*RESNET["onnxruntime"]), images, target_of("onnxruntime")
    )
    name, steps = RESNET[runtime]
    found = measure.outputs(
        model_artifact(name, steps), images, target_of(runtime), environments_of(runtime)
    )
    assert (found.dtype, found.shape) == (np.float32, (8, 10))
    assert np.abs(found - reference).max() < MAX_KERNEL_ERROR
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)  # a softmax


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_facts_say_what_runs(runtime, num_threads, model_artifact, images, environments_of):
    name, steps = RESNET[runtime]
    job = workers.job_of(
        model_artifact(name, steps), images, target_of(runtime, num_threads=num_threads),
        environments_of(runtime),
    )  # fmt: skip
    plan = {"warmup_ns": 0, "timed_ns": 0, "min_samples": 4}
    found = workers.call(job, "latency", plan=plan)
    facts = found["facts"]
    assert (facts["runtime"], facts["num_threads"]) == (runtime, num_threads)
    assert facts["version"][0].isdigit()
    kernels = {"onnxruntime": "MLAS"}.get(runtime, "XNNPACK")
    assert facts["kernel_library"] == kernels
    assert len(found["samples_ns"]) == 4


NO_MODEL = {
    "a text": lambda _: b"this is not a model" * 10,
    "random bytes": lambda _: np.random.default_rng(0).bytes(5000),
    "cut off": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("damage", NO_MODEL.values(), ids=NO_MODEL)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_no_model_is_refused(runtime, damage, images, model_artifact, environments_of):
    name, steps = RESNET[runtime]
    folder = model_artifact(name, steps)
    (path,) = folder.glob("model.*")
    path.write_bytes(damage(path.read_bytes()))
    (folder / "manifest.json").unlink()
    manifest.write(folder, model="tiny", stage="convert", preprocessing=steps)
    # tflite-runtime 2.14 checks little: it may crash, which costs its own process alone
    crashes = runtime == "tflite_runtime"
    words = "refuses the model|the worker was killed" if crashes else "refuses the model"
    with pytest.raises(TargetError if crashes else ModelRefusedError, match=words) as caught:
        measure.outputs(folder, images, target_of(runtime), environments_of(runtime))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="session")
def two_inputs_tflite():
    """A .tflite of two inputs and two outputs, whose tensors have names of the tool's own."""
    import litert_torch
    import torch

    class Two(torch.nn.Module):
        def forward(self, wide, narrow):
            return {"sums": wide.sum(1, keepdim=True) + narrow, "minus": wide - 2 * narrow}

    example = {"wide": torch.zeros(1, 3), "narrow": torch.zeros(1, 1)}
    return bytes(litert_torch.convert(Two().eval(), sample_kwargs=example).model_content())


@pytest.mark.parametrize("runtime", TFLITE)
def test_two_inputs_go_in_and_two_outputs_come_out_by_the_signatures_names(
    runtime, two_inputs_tflite, tmp_path, environments_of
):
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(two_inputs_tflite)
    manifest.write(
        folder, model="two", stage="convert", preprocessing={"narrow": (), "wide": ()}
    )  # fmt: skip
    wide = np.arange(12, dtype=np.float32).reshape(4, 3)
    narrow = np.array([[1], [-1], [0.5], [100]], np.float32)
    samples = structured.join({"narrow": narrow, "wide": wide})
    np.savez(tmp_path / "inputs.npz", inputs=samples)
    found = measure.outputs(
        folder, tmp_path / "inputs.npz", target_of(runtime), environments_of(runtime)
    )
    assert set(found.dtype.names) == {"sums", "minus"}
    np.testing.assert_allclose(found["sums"], wide.sum(axis=1, keepdims=True) + narrow, rtol=1e-6)
    np.testing.assert_allclose(found["minus"], wide - 2 * narrow, rtol=1e-6)


@pytest.mark.parametrize("runtime", TFLITE)
def test_int8_inputs_and_outputs_give_the_published_accuracy(
    runtime, model_artifact, keywords, environments_of
):
    """MLPerf Tiny keyword spotting: 90.1 to 90.2 % published, 8.6 % with levels fed as floats."""
    inputs, labels = keywords
    artifact = model_artifact("kws_ref_model.tflite")
    found = measure.outputs(artifact, inputs, target_of(runtime), environments_of(runtime))
    accuracy = quality.ACCURACY.quality(found, quality.Truth(labels)).value
    assert accuracy == pytest.approx(90.2, abs=0.15)
