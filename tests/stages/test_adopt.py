"""Stage ``adopt``: the user's ONNX file in the place of an export, and ``convert`` behind it."""

import json

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import errors, files, manifest, params
from pipeline.chain import adopt, convert
from pipeline.data import splits
from pipeline.manifest import Tensor

STEPS = ({"step": "channels_first"},)
LABELS = ("cat", "dog")


def write_onnx(path, num_classes=2):
    weights = np.random.default_rng(0).standard_normal((num_classes, 3, 8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="look"),
        helper.make_node("Flatten", ["c"], ["scores"], name="flat"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", ("N", 3, 8, 8)), ("scores", ("N", num_classes)))
    ]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weights, "w")]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path
    )


@pytest.fixture
def project(tmp_path):
    """A project that starts from an ONNX file: its splits, its params."""
    rng = np.random.default_rng(0)
    for name, num_samples in (("validation", 600), ("calibration", 16)):
        inputs = rng.standard_normal((num_samples, 8, 8, 3)).astype(np.float32)
        labels = np.arange(num_samples, dtype=np.int64) % 2
        splits.write(tmp_path / f"{name}.npz", splits.Split(inputs, labels, LABELS, STEPS))
    write_onnx(tmp_path / "own.onnx")
    (tmp_path / "tools.json").write_text("{}")
    return tmp_path


@pytest.fixture
def own(project):
    """The project's params: two recipes that differ in what is quantized."""
    p = params.load()
    plain = {"prune": "skip", "factorize": "skip", "distill": "skip"}
    digest = files.digest_file(project / "own.onnx")
    target = p.targets["x86-onnxruntime"]
    target = msgspec.structs.replace(
        target, convert=msgspec.structs.replace(target.convert, num_calibration=16)
    )
    return msgspec.structs.replace(
        p,
        model="own",
        net=params.Net(onnx="own.onnx", onnx_digest=digest),
        train=None,
        recipes={
            "plain": params.Recipe(**plain, quantize="int8"),
            "float": params.Recipe(**plain, quantize="skip"),
        },
        targets={"x86-onnxruntime": target},
    )


def run(project, p, out="exported"):
    adopt.run(
        project / "validation.npz",
        project / "own.onnx",
        project / out,
        project / "metrics" / f"{out}.json",
        p,
    )
    return project / out


def test_every_recipe_is_a_variant_with_a_manifest(project, own):
    out = run(project, own)
    whole = manifest.verify(out)
    assert (whole.model, whole.stage, whole.labels) == ("own", "adopt", LABELS)
    assert whole.preprocessing == STEPS
    assert whole.inputs == manifest.inputs_of(onnx=project / "own.onnx")
    for variant in ("plain", "float"):
        found = manifest.verify(out / variant)
        assert set(found.files) == {"model.onnx"}
        assert (found.variant, found.format, found.precision) == (variant, "onnx", "fp32")
        assert found.opset == 13  # the user's has 11
        assert set(found.tools) == {"onnx", "onnxruntime"}
        assert found.signature.inputs == (
            Tensor("image", "float32", ("batch", 3, 8, 8), layout="NCHW"),
        )
        assert found.params == {"export": msgspec.to_builtins(own.export)}


def test_metrics_have_the_keys_of_export(project, own):
    out = run(project, own)
    figures = json.loads((project / "metrics" / "exported.json").read_text())
    assert figures["plain"] == {
        "max_abs_error": 0.0,
        "top1_agreement_ratio": 1.0,
        "size_bytes": (out / "plain" / "model.onnx").stat().st_size,
    }


def test_another_folder_gives_the_same_bytes_and_names_none(project, own):
    first, second = run(project, own), run(project, own, "again")
    for name in manifest.scan(first):
        content = (second / name).read_bytes()
        assert content == (first / name).read_bytes()
        assert str(project).encode() not in content
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_convert_goes_on_from_there_without_nets(project, own):
    target = "x86-onnxruntime"
    exported, out = run(project, own), project / "converted"
    calibration = project / "calibration.npz"
    convert.run(exported, None, calibration, project / "tools.json", out, own, target)
    records = json.loads((out / "candidates.json").read_text())
    assert {r["candidate"]: r["status"] for r in records} == {
        "plain-fp32": "built",
        "plain-int8-dynamic": "built",
        "plain-int8-static": "built",
        "float-fp32": "built",
        "float-int8-dynamic": "not_built",
        "float-int8-static": "not_built",
    }
    whole = manifest.verify(out)
    assert whole.inputs == manifest.inputs_of(calibration=calibration, exported=exported)
    found = manifest.verify(out / "plain-int8-static")
    assert (found.opset, found.preprocessing, found.labels) == (13, STEPS, LABELS)


def test_a_changed_file_is_refused(project, own):
    write_onnx(project / "own.onnx", num_classes=3)
    with pytest.raises(errors.InputsError, match=r"net.onnx: .* net.onnx_digest pins sha256:"):
        run(project, own)


def test_another_number_of_classes_is_refused(project, own):
    write_onnx(project / "own.onnx", num_classes=3)
    digest = files.digest_file(project / "own.onnx")
    p = msgspec.structs.replace(own, net=params.Net(onnx="own.onnx", onnx_digest=digest))
    expected = r"output 'scores' has shape \['batch', 3\], and there are 2 classes \(cat, dog\)"
    with pytest.raises(errors.ConversionError, match=expected):
        run(project, p)
    agreement = params.Task(kind="agreement", metric="top1")
    run(project, msgspec.structs.replace(p, task=agreement))  # which knows no classes


def test_absent_tensorflow_is_a_record(project, own):
    litert = params.load().targets["x86-litert"]
    p = msgspec.structs.replace(own, targets={"x86-litert": litert})
    exported, out = run(project, p), project / "converted"
    (project / "tools.json").write_text(json.dumps({"tensorflow": "absent", "torch": "absent"}))
    calibration = project / "calibration.npz"
    convert.run(exported, None, calibration, project / "tools.json", out, p, "x86-litert")
    records = json.loads((out / "candidates.json").read_text())
    assert {r["reason"] for r in records} == {
        "tensorflow is absent on this machine; make setup",
    }
