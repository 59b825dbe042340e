"""A two-input, two-output net of the user's own through convert, profile, select and certify."""

import itertools
import json
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import files, manifest, measurement, params
from pipeline.chain import certify, profile, select
from pipeline.conversion import to_onnxruntime
from pipeline.conversion.candidates import Variant
from pipeline.data import npz, splits
from pipeline.errors import ParityError, TargetError
from pipeline.measurement import FILE_NAME
from pipeline.profiling import golden, measure
from pipeline.profiling.bench import Preset
from pipeline.targets import device as devices

TARGET = "x86-onnxruntime"
TINY = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(0, 1, (4, 3)).astype(np.float32)
MIX = GENERATOR.normal(0, 1, (6, 3)).astype(np.float32)
STEPS = {"image": ({"step": "scale", "factor": 0.5},), "table": ()}
NUMBERS = itertools.count()  # Python keeps imported modules


def write_net(path):
    """scores = [flatten(image), table @ TABLE] @ MIX, sums = table @ TABLE."""
    path.parent.mkdir(parents=True)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["table", "table.weight"], ["sums"]),
            helper.make_node("Concat", ["flat", "sums"], ["both"], axis=1),
            helper.make_node("MatMul", ["both", "mix.weight"], ["scores"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 3]),
            helper.make_tensor_value_info("table", TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            numpy_helper.from_array(TABLE, "table.weight"),
            numpy_helper.from_array(MIX, "mix.weight"),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def expected(samples):
    """What the net says, in numpy: scores and sums."""
    sums = samples["table"].astype(np.float32) @ TABLE
    flat = samples["image"].reshape(len(samples), -1) * np.float32(0.5)
    return np.concatenate([flat, sums], axis=1) @ MIX, sums


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The outs up to convert: the user's npz in splits, the net in fp32 and static int8."""
    root = tmp_path_factory.mktemp("two")
    size, generator = 240, np.random.default_rng(0)  # its own: the fixture may be made twice
    generator.normal(size=TABLE.size + MIX.size)  # on from the net's weights
    arrays = {
        "inputs.image": generator.normal(0, 2, (size, 1, 3)).astype(np.float32),
        "inputs.table": generator.normal(0, 1, (size, 4)),
    }
    np.savez(root / "raw.npz", labels=np.arange(size) % 3, **arrays)
    samples = npz.read(root / "raw.npz")
    labels = expected(samples.inputs)[0].argmax(axis=1)
    np.savez(root / "raw.npz", labels=labels, **arrays)
    samples = npz.read(root / "raw.npz")
    data = params.Data(
        source="npz", path="raw.npz", seed=0, train_ratio=0.3, validation_ratio=0.3,
        num_calibration=64, preprocessing={"image": (params.Scale(factor=0.5),), "table": ()},
    )  # fmt: skip
    made = splits.make(samples, data)
    for name, split in made.items():
        splits.write(root / f"{name}.npz", split)
    write_net(root / "exported/two/model.onnx")
    described = manifest.write(root / "exported/two", model="two", stage="adopt", tools={})
    variant = Variant("two", root / "exported/two/model.onnx", None, described)
    precisions = ("fp32", "int8-static")
    cfg = params.Convert(precisions=precisions, num_calibration=64)
    calibration = splits.read(root / "calibration.npz").tensors()
    out = root / "converted"
    outcomes = to_onnxruntime.convert(variant, precisions, calibration, cfg, out)
    for outcome in outcomes:
        manifest.write(
            outcome.path.parent, model="two", stage="convert", preprocessing=STEPS,
            signature=outcome.signature,
        )  # fmt: skip
    files.write_atomic(out / "candidates.json", files.encode_json([o.record() for o in outcomes]))
    manifest.write(out, model="two", stage="convert", preprocessing=STEPS)
    machine = devices.describe()
    machine["fingerprint"] = devices.fingerprint(machine)
    (root / "device.json").write_text(json.dumps(machine))
    (root / "tools.json").write_text('{"onnxruntime": "1"}')
    return root


@pytest.fixture(scope="module")
def settings():
    p = params.load()
    recipe = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="int8")
    target = msgspec.structs.replace(
        p.targets[TARGET], select=params.Select(precision="int8-static", max_quality_drop=50)
    )
    return msgspec.structs.replace(
        p, model="two", recipes={"two": recipe}, targets={TARGET: target}
    )


@pytest.fixture(scope="module")
def run(workspace, settings, tmp_path_factory):
    """Run profile, select and certify; with another task if given."""

    def chain(task=None):
        p = msgspec.structs.replace(settings, task=task) if task else settings
        w, out = workspace, tmp_path_factory.mktemp("out")
        profile.run(
            w / "converted", w / "validation.npz", w / "tools.json", w / "device.json",
            out / "profiled", p, TARGET, preset=TINY,
        )  # fmt: skip
        select.run(w / "converted", out / "profiled", out / "selected", p, TARGET)
        certify.run(out / "selected", w / "test.npz", out / "certified", p, TARGET)
        measured = {
            name: measurement.read(out / "profiled" / name / FILE_NAME)
            for name in ("two-fp32", "two-int8-static")
        }
        certified = measurement.read(out / "certified/measurement.json")
        return SimpleNamespace(out=out, measured=measured, certified=certified, target=p.targets)

    return chain


@pytest.fixture(scope="module")
def passed(run):
    return run()


def test_a_two_input_net_passes(passed):
    fp32, int8 = (passed.measured[name] for name in ("two-fp32", "two-int8-static"))
    assert (fp32.kind, int8.kind) == ("measured", "measured")
    assert fp32.quality.value == 100
    assert int8.quality.metric == "accuracy"
    assert int8.quality.value > 80
    assert 15 < int8.agreement.sqnr_db < 60
    assert int8.latency_ratio is not None
    assert passed.certified.candidate == "two-int8-static"
    assert passed.certified.quality.n > 60
    assert passed.certified.drop.upper > 0


def test_outputs_are_kept_by_name(passed, workspace):
    raw = splits.read(workspace / "validation.npz").inputs
    with np.load(passed.out / "profiled/two-fp32/outputs.npz", allow_pickle=False) as arrays:
        found = arrays["outputs"]
    assert found.dtype.names == ("scores", "sums")
    for name, values in zip(found.dtype.names, expected(raw), strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_static_int8_takes_each_inputs_range_from_its_own_samples(workspace):
    calibration = splits.read(workspace / "calibration.npz").tensors()
    model = onnx.load(workspace / "converted/two-int8-static/model.onnx")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    # the first quantized value behind each input: "flat" holds the image's own values
    for name, value in (("image", "flat"), ("table", "table")):
        low, high = min(calibration[name].min(), 0), max(calibration[name].max(), 0)
        np.testing.assert_allclose(constants[f"{value}_scale"], (high - low) / 255, rtol=1e-5)


def test_golden_inputs_prove_every_output(passed, workspace, tmp_path):
    path = passed.out / "profiled/two-fp32/golden.npz"
    artifact, target = workspace / "converted/two-fp32", passed.target[TARGET]
    assert golden.check_golden(artifact, path, target) < 1e-6
    with np.load(path, allow_pickle=False) as arrays:
        held = dict(arrays)
    assert (len(held["inputs"]), held["tolerance"].shape) == (8, (2,))
    held["outputs"] = held["outputs"].copy()
    held["outputs"]["sums"][3, 1] += 0.01  # the second output alone
    np.savez(tmp_path / "golden.npz", **held)
    with pytest.raises(ParityError, match=r"differ by 0.01 on onnxruntime, allowed 0\.000"):
        golden.check_golden(artifact, tmp_path / "golden.npz", target)


def test_a_sample_without_one_of_the_inputs_is_one_clear_line(workspace, settings, tmp_path):
    artifact = tmp_path / "two-fp32"
    write_net(artifact / "model.onnx")
    manifest.write(artifact, model="two", stage="convert", preprocessing={"image": ()})
    raw = splits.read(workspace / "validation.npz").inputs
    np.savez(tmp_path / "inputs.npz", inputs=raw[["image"]].copy())
    with pytest.raises(
        TargetError, match=r"takes inputs \['image', 'table'\], .*\['image'\]; give"
    ):
        measure.outputs(artifact, tmp_path / "inputs.npz", settings.targets[TARGET])


def test_calibration_without_one_of_the_inputs_is_one_clear_line(workspace, tmp_path):
    described = manifest.read(workspace / "exported/two")
    variant = Variant("two", workspace / "exported/two/model.onnx", None, described)
    cfg = params.Convert(precisions=("int8-static",), num_calibration=64)
    samples = splits.read(workspace / "calibration.npz").tensors()[["image"]]
    (outcome,) = to_onnxruntime.convert(variant, cfg.precisions, samples, cfg, tmp_path / "out")
    assert outcome.status == "not_built"
    assert "the model takes inputs ['image', 'table'], the samples have ['image']" in outcome.reason


METRIC = """\
import numpy as np


def far_off(outputs, labels):
    assert outputs.dtype.names == ("scores", "sums")
    chosen = outputs["scores"][np.arange(len(labels)), labels]
    return float(np.mean(outputs["scores"].max(axis=1) - chosen))
"""


def test_a_users_metric_passes(run, workspace, monkeypatch):
    name = f"users_chain_metric_{next(NUMBERS)}"
    (workspace / f"{name}.py").write_text(METRIC)
    monkeypatch.chdir(workspace)
    task = params.Task(
        kind="classification", metric=f"{name}:far_off", direction="lower", unit="logits",
        metric_digest=files.digest_file(workspace / f"{name}.py"),
    )  # fmt: skip
    found = run(task)
    int8 = found.measured["two-int8-static"]
    assert (int8.quality.metric, int8.quality.unit) == (f"{name}:far_off", "logits")
    assert 0 < int8.quality.value < 0.5
    assert 0 <= int8.drop.value <= int8.drop.upper
    assert found.certified.quality.direction == "lower"
    assert manifest.read(found.out / "profiled").params["task"]["metric"] == f"{name}:far_off"


def test_without_labels_quality_is_agreement_with_the_fp32_candidate(run):
    found = run(params.Task(kind="agreement", metric="top1"))
    fp32, int8 = (found.measured[name] for name in ("two-fp32", "two-int8-static"))
    assert fp32.quality.metric == "top-1 agreement with fp32"
    assert fp32.quality.value == 100
    assert int8.quality.value == pytest.approx(100 * int8.agreement.top1_agreement)
    assert int8.drop.value == pytest.approx(100 - int8.quality.value)
    assert found.certified.quality.value == 100 * found.certified.agreement.top1_agreement


def test_a_reference_that_ships_is_not_compared_with_itself(passed, workspace, settings, tmp_path):
    keep_fp32 = msgspec.structs.replace(
        settings.targets[TARGET], select=params.Select(precision="fp32")
    )
    p = msgspec.structs.replace(settings, targets={TARGET: keep_fp32})
    selected = tmp_path / "selected"
    select.run(workspace / "converted", passed.out / "profiled", selected, p, TARGET)
    certify.run(selected, workspace / "test.npz", tmp_path / "certified", p, TARGET)
    certified = measurement.read(tmp_path / "certified/measurement.json")
    assert certified.candidate == "two-fp32"
    assert (certified.quality.value, certified.drop, certified.agreement) == (100, None, None)
