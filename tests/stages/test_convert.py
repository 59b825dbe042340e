"""Stage ``convert@T``: candidates with manifests, and a record of each that there is not."""

import json
import shutil

import msgspec
import pytest

from pipeline import errors, manifest
from pipeline.chain import convert

TARGETS = {"x86-onnxruntime": "model.onnx", "x86-litert": "model.tflite"}


def run(paths, p, out, target, tools=None):
    (out.parent / f"{out.name}-tools.json").write_text(json.dumps(tools or {}))
    convert.run(
        paths.exported,
        paths.quantized,
        paths.calibration,
        out.parent / f"{out.name}-tools.json",
        out,
        p,
        target,
    )
    return out


@pytest.fixture(scope="module")
def converted(exported_workspace, conversion_params, tmp_path_factory):
    root = tmp_path_factory.mktemp("converted")
    return {
        target: run(exported_workspace, conversion_params, root / target, target)
        for target in TARGETS
    }


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


def records(out):
    return json.loads((out / "candidates.json").read_text())


def test_every_candidate_is_recorded(converted, conversion_params, target):
    found = records(converted[target])
    precisions = conversion_params.targets[target].convert.precisions
    assert sorted(record["candidate"] for record in found) == sorted(
        f"{variant}-{precision}" for variant in ("dense", "pruned") for precision in precisions
    )
    for record in found:
        skipped = record["variant"] == "pruned" and record["precision"].startswith("int8")
        assert record["status"] == ("not_built" if skipped else "built")
        assert record["reason"] == ("recipe pruned skips quantize" if skipped else None)
        assert (converted[target] / record["candidate"]).is_dir() == (not skipped)


def test_every_built_candidate_is_complete(converted, exported_workspace, target):
    for record in records(converted[target]):
        if record["status"] == "not_built":
            continue
        found = manifest.verify(converted[target] / record["candidate"])
        assert set(found.files) == {TARGETS[target]}
        assert (found.model, found.stage, found.target) == ("tiny", "convert", target)
        assert (found.variant, found.precision) == (record["variant"], record["precision"])
        assert found.format == TARGETS[target].partition(".")[2]
        assert found.opset == (20 if found.format == "onnx" else None)
        assert found.labels == ("a", "b", "c", "d")
        assert found.preprocessing == ({"step": "channels_first"},)
        assert found.tools
        assert found.signature.inputs[0].shape[1:] == (1, 8, 8)
        calibrated = found.precision == "int8-static"
        assert ("calibration" in {entry.path for entry in found.inputs}) == calibrated
        used = {"activation_dtype": None, "num_calibration": 16} if calibrated else {}
        assert {k: v for k, v in found.params.items() if k != "graph"} == used
    whole = manifest.verify(converted[target])
    assert whole.inputs == manifest.inputs_of(
        calibration=exported_workspace.calibration,
        exported=exported_workspace.exported,
        quantized=exported_workspace.quantized,
    )


def test_sources_are_what_was_read(converted, exported_workspace):
    found = manifest.read(converted["x86-onnxruntime"] / "dense-fp32")
    assert found.inputs == manifest.inputs_of(exported=exported_workspace.exported / "dense")
    found = manifest.read(converted["x86-litert"] / "pruned-fp32")
    net = exported_workspace.quantized / "pruned"
    assert found.inputs == manifest.inputs_of(
        net=net / "net.json", weights=net / "weights.safetensors"
    )


def test_pruned_net_is_smaller_in_every_format(converted, target):
    dense, pruned = (
        (converted[target] / f"{variant}-fp32" / TARGETS[target]).stat().st_size
        for variant in ("dense", "pruned")
    )
    assert pruned < dense / 2


def test_another_folder_gives_the_same_manifest_and_names_none(
    converted, exported_workspace, conversion_params, tmp_path
):
    out = run(exported_workspace, conversion_params, tmp_path / "out", "x86-onnxruntime")
    first = converted["x86-onnxruntime"]
    assert (out / "manifest.json").read_bytes() == (first / "manifest.json").read_bytes()
    for name in manifest.scan(out):
        assert str(tmp_path).encode() not in (out / name).read_bytes()


def test_absent_tool_is_a_record(exported_workspace, conversion_params, tmp_path):
    tools = {"litert-torch": "absent", "onnxruntime": "absent", "torch": "2"}
    out = run(exported_workspace, conversion_params, tmp_path / "out", "x86-litert", tools)
    found = records(out)
    assert len(found) == 8
    assert {record["reason"] for record in found} == {
        "litert-torch is absent on this machine; pip install 'slipway[build]'"
    }
    assert set(manifest.verify(out).files) == {"candidates.json"}


def test_too_few_calibration_samples(exported_workspace, conversion_params, tmp_path):
    target = conversion_params.targets["x86-onnxruntime"]
    more = msgspec.structs.replace(
        target, convert=msgspec.structs.replace(target.convert, num_calibration=17)
    )
    p = msgspec.structs.replace(conversion_params, targets={"x86-onnxruntime": more})
    with pytest.raises(errors.ConversionError, match=r"asks for 17 samples, .* has 16; lower it"):
        run(exported_workspace, p, tmp_path / "out", "x86-onnxruntime")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_changed_export_is_refused(exported_workspace, conversion_params, tmp_path):
    shutil.copytree(exported_workspace.exported, tmp_path / "exported")
    (tmp_path / "exported" / "dense" / "model.onnx").write_bytes(b"other")
    paths = type(exported_workspace)(**vars(exported_workspace))
    paths.exported = tmp_path / "exported"
    with pytest.raises(errors.DigestMismatchError, match=r"dense/model.onnx is sha256:"):
        run(paths, conversion_params, tmp_path / "out", "x86-onnxruntime")
