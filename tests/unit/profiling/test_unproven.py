import json

import numpy as np
import pytest

from pipeline import manifest, params
from pipeline.profiling import unproven
from pipeline.profiling.bench import PRESETS, Bench, Candidate
from pipeline.runtimes import cuda

RTX = cuda.Device("NVIDIA GeForce RTX 4090", "8.9")


def target_of(converter="to_tensorrt", compute_capability="8.9", version=None):
    settings = params.TensorRT(compute_capability=compute_capability, version=version)
    return params.Target(
        converter=converter,
        runtime="tensorrt",
        convert=params.Convert(precisions=("fp32",), tensorrt=settings),
        profile=params.Profile(),
        select=params.Select(),
    )


@pytest.fixture
def candidates(tmp_path):
    """Two artifact directories that no runtime here can load."""
    made = []
    for name, size in (("dense-fp32", 300), ("dense-int8-static", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.engine").write_bytes(b"v" * size)
        manifest.write(tmp_path / name, model="tiny", stage="convert")
        made.append(Candidate(name, tmp_path / name))
    return made


@pytest.fixture
def bench(tmp_path):
    np.savez(tmp_path / "inputs.npz", inputs=np.zeros((4, 2), np.float32))
    return Bench(
        target_id="rtx",
        target=target_of(),
        device={"cpu_model": "A CPU"},
        inputs=tmp_path / "inputs.npz",
        labels=np.zeros(4, np.int64),
        preset=PRESETS["quick"],
    )


@pytest.fixture
def without_gpu():
    found = cuda.find()
    if not isinstance(found, str):
        pytest.skip(f"{found.name} is here")
    return found


def test_without_a_gpu_all_are_built_with_the_reason_and_no_figure_but_the_size(
    candidates, bench, without_gpu
):
    notes = []
    measured = unproven.measure(candidates, "dense-fp32", bench, notes.append)
    for candidate, found, size in zip(candidates, measured, (300, 100), strict=True):
        m = found.measurement
        assert (m.kind, m.candidate, m.size_bytes) == ("built", candidate.name, size)
        assert m.reason == without_gpu
        assert m.reason.startswith("no CUDA device: ")
        assert (m.latency_ms.p50, m.quality, m.drop, m.peak_memory_bytes) == (None,) * 4
        assert (found.outputs, found.samples) == (None, {})
    assert notes == ["dense-fp32: built", "dense-int8-static: built"]


def test_the_reason_is_one_line(candidates, bench, without_gpu):
    (m,) = {found.measurement.reason for found in unproven.measure(candidates, "x", bench)}
    assert json.dumps(m).count("\\n") == 0
    assert m == without_gpu


def test_a_bundle_is_built_on_its_device_whatever_is_here():
    target = target_of("to_tensorrt_bundle", "8.7", "10.3")
    assert "slipway device build" in unproven.why_unproven(target, cuda.Device("Orin", "8.7"))


def test_another_gpu_proves_nothing():
    reason = unproven.why_unproven(target_of(), cuda.Device("NVIDIA H200", "9.0"))
    assert reason == "NVIDIA H200 has compute capability 9.0, the engine is for 8.9"


def test_the_right_gpu_leaves_only_the_runtime_to_ask_for():
    reason = unproven.why_unproven(target_of(), RTX)
    assert reason is None or "neither tensorrt-rtx nor tensorrt is installed" in reason
