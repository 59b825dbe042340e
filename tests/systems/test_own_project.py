"""From a user's ONNX file to artifacts: `slipway init`, then the chain in a project of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from pipeline import measurement

ROOT = Path(__file__).parents[2]
ONNX = "mlperf-tiny/models/onnx"
# every target that this machine can build or measure; jetson-orin is a bundle for the device
TARGETS = {
    "x86-onnxruntime": "measured",
    "x86-litert": "measured",
    "linux-tflite-runtime": "measured",
    "x86-openvino": "measured",
    "cortex-m55-ethos-u55": "estimated",
    "rtx-4090": "built",
    "jetson-orin": "built",
}
FILES = {"pretrainedResnet.onnx": (12.5, 77.7), "vww_96_float.onnx": (7.49, 211.0)}


def environment(**changes):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SLIPWAY_ENVIRONMENTS": str(ROOT / ".venvs")} | changes


def run(folder, *command, check=True, **changes):
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(**changes), capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def start(folder, name, *options):
    done = run(folder, "slipway", "init", name, *options)
    project = folder / name
    run(project, "git", "config", "user.email", "tests@example.invalid")
    run(project, "git", "config", "user.name", "tests")
    return project, done.stdout


def edit(project, change):
    path = project / "params.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture(scope="module", params=FILES)
def built(request, data_path, tmp_path_factory):
    """One shared file, through `slipway init` and the whole chain, on every target."""
    folder = tmp_path_factory.mktemp("projects")
    options = ("--onnx", data_path / ONNX / request.param, "--targets", ",".join(TARGETS))
    project, said = start(folder, "doorbell", *options)
    edit(
        project, lambda p: [t["select"].update(max_quality_drop=100) for t in p["targets"].values()]
    )
    run(project, "make", "run", SLIPWAY_REGISTRY=str(folder / "registry"))
    return project, said, request.param


def test_init_says_what_the_file_is(built):
    _, said, name = built
    macs, parameters = FILES[name]
    found = re.search(rf"{name}: opset \d+, input .* ([\d.]+) M MACs, ([\d.]+) k parameters", said)
    assert float(found[1]) == pytest.approx(macs, rel=0.02)
    assert float(found[2]) == pytest.approx(parameters, rel=0.03)


def test_every_target_ships_with_the_evidence_that_it_can_give(built):
    project, _, _ = built
    for target, kind in TARGETS.items():
        shipped = measurement.read(project / f"models/release/{target}/measurement.json")
        assert shipped.kind == kind, target
        if kind != "built":
            assert shipped.quality.metric.startswith("top-1 agreement")


def test_every_target_computes_what_the_file_computes(built):
    """Parity of the fp32 candidate with the user's own file, in that target's runtime."""
    project, _, _ = built
    export = json.loads((project / "models/metrics/export.json").read_text())
    assert export["dense"]["max_abs_error"] <= 1e-3
    outputs = {
        target: np.load(project / f"models/profiled/{target}/dense-fp32/outputs.npz")["outputs"]
        for target, kind in TARGETS.items()
        if kind != "built"
    }
    reference = outputs.pop("x86-onnxruntime").reshape(len(outputs["x86-litert"]), -1)
    for target, found in outputs.items():
        assert np.abs(found.reshape(reference.shape) - reference).max() < 1e-3, target


def test_int8_was_built_for_every_target_or_says_what_its_noise_is(built):
    """Random inputs calibrate badly, and what cannot be judged by running is gated on its noise."""
    project, _, _ = built
    for target, kind in TARGETS.items():
        listed = json.loads((project / f"models/converted/{target}/candidates.json").read_text())
        status = {c["candidate"]: c["reason"] or "built" for c in listed}
        said = status["dense-int8-static"]
        assert said == "built" or (kind == "built" and "dB of signal" in said), target


def test_the_artifacts_are_pulled_and_two_projects_share_a_registry(built, tmp_path):
    project, _, _ = built
    registry = project.parent / "registry"
    other, _ = start(project.parent, "porch", "--onnx", project / "model.onnx",
                     "--targets", "x86-onnxruntime")  # fmt: skip
    run(other, "make", "run", SLIPWAY_REGISTRY=str(registry))
    listed = run(other, "slipway", "registry", "list", "--registry", registry).stdout
    assert {line.split()[0] for line in listed.splitlines()} == {"doorbell", "porch"}
    run(tmp_path, "slipway", "pull", "doorbell", "--target", "x86-openvino", "--to", "model",
        "--registry", registry)  # fmt: skip
    ran = run(tmp_path, "slipway", "run", "model", project / "random-inputs.npz").stdout
    assert len(ran.splitlines()) == 640
    unproven = run(tmp_path, "slipway", "pull", "doorbell", "--target", "rtx-4090", "--to", "e",
                   "--registry", registry, check=False)  # fmt: skip
    assert unproven.returncode == 2
    assert "unproven" in unproven.stderr
    assert not (tmp_path / "e").exists()


def odd_file(path):
    """A net with an operator that ONNX Runtime has and the other formats do not."""
    weight = onnx.numpy_helper.from_array(
        np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), "weight"
    )
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
        onnx.helper.make_node("MatMul", ["flat", "weight"], ["mixed"], name="head"),
        onnx.helper.make_node("Det", ["square"], ["det"], name="determinant"),
        onnx.helper.make_node("Reshape", ["flat", "shape"], ["square"], name="to_square"),
        onnx.helper.make_node("Reshape", ["det", "column"], ["det_column"], name="to_column"),
        onnx.helper.make_node("Add", ["mixed", "det_column"], ["output"], name="sum"),
    ]
    nodes = [nodes[i] for i in (0, 1, 3, 2, 4, 5)]
    nodes[2].input[0] = "four"
    nodes.insert(2, onnx.helper.make_node("Slice", ["flat", "zero", "end", "axis"], ["four"]))
    constants = {"shape": [-1, 2, 2], "column": [-1, 1], "zero": [0], "end": [4], "axis": [1]}
    initializers = [weight] + [
        onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in constants.items()
    ]
    graph = onnx.helper.make_graph(
        nodes, "odd",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 2, 4])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", 4])],
        initializers,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def test_an_unsupported_operator_is_named_per_target_while_the_others_ship(tmp_path):
    odd_file(tmp_path / "odd.onnx")
    project, _ = start(
        tmp_path, "odd", "--onnx", tmp_path / "odd.onnx",
        "--targets", "x86-onnxruntime,x86-litert,x86-openvino,cortex-m55-ethos-u55",
    )  # fmt: skip
    done = run(project, "make", "run", check=False)
    shipped = json.loads((project / "models/release/x86-onnxruntime/release.json").read_text())
    assert shipped["shipped"], done.stdout + done.stderr
    for target in ("x86-litert", "cortex-m55-ethos-u55"):
        listed = json.loads((project / f"models/converted/{target}/candidates.json").read_text())
        for candidate in listed:
            assert candidate["status"] == "not_built"
            assert "Det" in candidate["reason"]
            assert "determinant" in candidate["reason"]
        release = json.loads((project / f"models/release/{target}/release.json").read_text())
        assert not release["shipped"]


def test_a_folder_that_exists_and_a_file_that_is_none_leave_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("mine")
    refused = run(tmp_path, "slipway", "init", "there", check=False)
    assert (refused.returncode, "exists already" in refused.stderr) == (2, True)
    (tmp_path / "noise.onnx").write_bytes(os.urandom(1000))
    refused = run(tmp_path, "slipway", "init", "new", "--onnx", "noise.onnx", check=False)
    assert refused.returncode == 2
    assert "noise.onnx" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".slipway") == [
        "noise.onnx", "there",
    ]  # fmt: skip
