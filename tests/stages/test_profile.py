import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import files, manifest, measurement, params
from pipeline.chain import profile as stage
from pipeline.data import splits
from pipeline.errors import TargetError
from pipeline.profiling.bench import Preset
from pipeline.targets import device as devices

ROOT = Path(__file__).parents[2]
TARGET = "x86-onnxruntime"
TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
STEPS = ({"step": "scale", "factor": 0.5},)
WEIGHTS = np.array([[1, -1, 0], [-1, 1, 0.1]], np.float32)


def write_linear(folder, weights):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["output"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    manifest.write(folder, model="tiny", stage="convert", preprocessing=STEPS)


@pytest.fixture(scope="module")
def profile_workspace(tmp_path_factory):
    """The outs up to stage convert in miniature: two candidates built, one not."""
    root = tmp_path_factory.mktemp("profile")
    raw = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    labels = (raw @ WEIGHTS).argmax(axis=1)
    splits.write(root / "validation.npz", splits.Split(raw, labels, ("a", "b", "c"), STEPS))
    listed = [
        {"candidate": f"{v}-{p}", "variant": v, "precision": p, "status": s, "reason": r}
        for v, p, s, r in (
            ("dense", "fp32", "built", None),
            ("pruned", "fp32", "built", None),
            ("dense", "int8-static", "not_built", "recipe dense skips quantize"),
        )
    ]
    write_linear(root / "converted/dense-fp32", WEIGHTS)
    write_linear(root / "converted/pruned-fp32", WEIGHTS[:, ::-1].copy())
    files.write_atomic(root / "converted/candidates.json", files.encode_json(listed))
    manifest.write(
        root / "converted",
        model="tiny",
        stage="convert",
        labels=("a", "b", "c"),
        preprocessing=STEPS,
    )
    machine = devices.describe()
    machine["fingerprint"] = devices.fingerprint(machine)
    (root / "device.json").write_text(json.dumps(machine))
    (root / "tools.json").write_text(json.dumps({"onnx": "1", "onnxruntime": "1"}))
    return root


@pytest.fixture
def run_profile(profile_workspace, tmp_path):
    """Run the stage on the workspace into a new folder, with other inputs where given."""

    def run(target=TARGET, **changed):
        w = profile_workspace
        chosen = {"tools": w / "tools.json", "device": w / "device.json", **changed}
        stage.run(
            w / "converted", w / "validation.npz", chosen["tools"], chosen["device"],
            tmp_path / "out", params.load(ROOT / "params.yaml"), target,
            preset=TINY, environments=tmp_path,
        )  # fmt: skip
        return tmp_path / "out"

    return run


@pytest.fixture(scope="module")
def profiled(profile_workspace, tmp_path_factory):
    """What one run writes."""
    w, out = profile_workspace, tmp_path_factory.mktemp("profiled") / "out"
    p = params.load(ROOT / "params.yaml")
    stage.run(
        w / "converted", w / "validation.npz", w / "tools.json", w / "device.json", out, p, TARGET,
        preset=TINY,
    )  # fmt: skip
    read = {
        name: measurement.read(out / name / "measurement.json")
        for name in ("dense-fp32", "pruned-fp32")
    }
    return SimpleNamespace(out=out, measurements=read, workspace=w)


def test_every_built_candidate_has_its_four_files(profiled):
    each = {"measurement.json", "samples.npz", "outputs.npz", "golden.npz"}
    for name in ("dense-fp32", "pruned-fp32"):
        assert {path.name for path in (profiled.out / name).iterdir()} == each
    assert not (profiled.out / "dense-int8-static").exists()


def test_measurements_name_artifact_target_and_machine(profiled):
    for name, m in profiled.measurements.items():
        converted = profiled.workspace / "converted" / name / "manifest.json"
        assert m.artifact == files.digest_file(converted)
        assert (m.kind, m.target) == ("measured", TARGET)
        assert m.fingerprint == devices.fingerprint(devices.describe())
        assert m.quality.n == 30


def test_drop_and_ratio_are_against_the_plain_recipe_in_fp32(profiled):
    dense, pruned = profiled.measurements["dense-fp32"], profiled.measurements["pruned-fp32"]
    assert (dense.drop, dense.latency_ratio) == (None, None)
    assert pruned.drop.value == dense.quality.value - pruned.quality.value
    assert pruned.latency_ratio is not None


def test_raw_samples_outputs_and_golden_belong_to_the_measurement(profiled):
    folder, m = profiled.out / "pruned-fp32", profiled.measurements["pruned-fp32"]
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        assert len(arrays["samples_ns_0"]) + len(arrays["samples_ns_1"]) == m.num_samples
    with (
        np.load(folder / "outputs.npz", allow_pickle=False) as outputs,
        np.load(folder / "golden.npz", allow_pickle=False) as golden,
    ):
        assert outputs["outputs"].shape == (30, 3)
        np.testing.assert_array_equal(golden["outputs"], outputs["outputs"][:8])


def test_candidates_are_handed_on_and_the_manifest_lists_all(profiled):
    handed_on = (profiled.out / "candidates.json").read_bytes()
    assert handed_on == (profiled.workspace / "converted/candidates.json").read_bytes()
    described = manifest.verify(profiled.out)
    assert {each.path for each in described.inputs} == {"converted", "validation"}
    assert (described.labels, described.target) == (("a", "b", "c"), TARGET)


def test_an_absent_runtime_is_recorded_for_every_candidate(run_profile, tmp_path):
    (tmp_path / "tools.json").write_text('{"onnxruntime": "absent"}')
    out = run_profile(tools=tmp_path / "tools.json")
    for name in ("dense-fp32", "pruned-fp32"):
        m = measurement.read(out / name / "measurement.json")
        assert m.kind == "not_measured"
        assert m.reason.startswith("onnxruntime is absent in environment build; pip install")
        assert [path.name for path in (out / name).iterdir()] == ["measurement.json"]


def test_a_failing_worker_records_nothing(run_profile, tmp_path):
    python = tmp_path / "device-tflite/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    (tmp_path / "tools.json").write_text('{"tflite-runtime": "2.14.0"}')
    with pytest.raises(TargetError, match="killed by SIGKILL"):
        run_profile("linux-tflite-runtime", tools=tmp_path / "tools.json")
    assert not (tmp_path / "out").exists()


def test_another_machines_description_is_refused(run_profile, tmp_path):
    (tmp_path / "device.json").write_text('{"cpu_model": "Cortex-A76", "fingerprint": "sha256:0"}')
    with pytest.raises(TargetError, match=r"another machine \(Cortex-A76\); run dvc repro"):
        run_profile(device=tmp_path / "device.json")


def test_the_stage_itself_imports_no_training_and_no_runtime():
    code = "import sys, pipeline.chain.profile; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not {"torch", "dvc", "onnx", "onnxruntime"} & set(done.stdout.split())
