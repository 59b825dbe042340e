"""Stage ``export``: one ONNX file a variant with a manifest that says all of it."""

import json
import shutil

import msgspec
import onnx
import pytest

from pipeline import errors, manifest
from pipeline.chain import export
from pipeline.manifest import Tensor


def replaced(p, **changes):
    return msgspec.structs.replace(p, export=msgspec.structs.replace(p.export, **changes))


@pytest.mark.parametrize("variant", ["dense", "pruned"])
def test_variant_is_complete(exported_workspace, conversion_params, variant):
    found = manifest.verify(exported_workspace.exported / variant)
    assert set(found.files) == {"model.onnx"}
    assert (found.model, found.stage, found.variant) == ("tiny", "export", variant)
    assert (found.format, found.precision, found.opset) == ("onnx", "fp32", 20)
    assert found.labels == ("a", "b", "c", "d")
    assert found.preprocessing == ({"step": "channels_first"},)
    assert found.params == {"export": msgspec.to_builtins(conversion_params.export)}
    assert set(found.tools) == {"onnx", "onnx-ir", "onnxscript", "torch"}
    assert found.signature.inputs == (
        Tensor("input", "float32", ("batch", 1, 8, 8), layout="NCHW"),
    )
    assert found.signature.outputs == (Tensor("output", "float32", ("batch", 4)),)
    net = exported_workspace.quantized / variant
    assert found.inputs == manifest.inputs_of(
        net=net / "net.json", weights=net / "weights.safetensors"
    )
    onnx.checker.check_model(exported_workspace.exported / variant / "model.onnx")


def test_whole_is_complete(exported_workspace):
    found = manifest.verify(exported_workspace.exported)
    assert set(found.files) == {
        f"{variant}/{name}"
        for variant in ("dense", "pruned")
        for name in ("manifest.json", "model.onnx")
    }
    assert found.labels == ("a", "b", "c", "d")
    assert found.inputs == manifest.inputs_of(quantized=exported_workspace.quantized)


def test_metrics(exported_workspace):
    figures = json.loads(exported_workspace.metrics.read_text())
    assert set(figures) == {"dense", "pruned"}
    assert figures["pruned"]["size_bytes"] < figures["dense"]["size_bytes"] / 2
    for variant, figure in figures.items():
        path = exported_workspace.exported / variant / "model.onnx"
        assert figure["size_bytes"] == path.stat().st_size
        assert 0 < figure["max_abs_error"] <= 1e-4
        assert figure["top1_agreement_ratio"] == 1.0


def test_another_folder_gives_the_same_manifest_and_names_none(
    exported_workspace, conversion_params, tmp_path
):
    shutil.copytree(exported_workspace.quantized, tmp_path / "q")
    shutil.copy(exported_workspace.validation, tmp_path / "v.npz")
    export.run(
        tmp_path / "v.npz", tmp_path / "q", tmp_path / "out", tmp_path / "m.json", conversion_params
    )
    for name in manifest.scan(exported_workspace.exported):
        content = (tmp_path / "out" / name).read_bytes()
        assert content == (exported_workspace.exported / name).read_bytes()
        assert str(tmp_path).encode() not in content
    first, second = (
        (path / "manifest.json").read_bytes()
        for path in (exported_workspace.exported, tmp_path / "out")
    )
    assert first == second


def test_parity_is_enforced(exported_workspace, conversion_params, tmp_path):
    expected = r"dense: ONNX outputs differ from PyTorch's by .*, allowed 1e-12"
    with pytest.raises(errors.ParityError, match=expected):
        export.run(
            exported_workspace.validation,
            exported_workspace.quantized,
            tmp_path / "out",
            tmp_path / "m.json",
            replaced(conversion_params, max_abs_error=1e-12),
        )
    assert not (tmp_path / "out" / "manifest.json").exists()  # the directory is incomplete
    assert not (tmp_path / "m.json").exists()


def test_changed_weights_are_refused(exported_workspace, conversion_params, tmp_path):
    shutil.copytree(exported_workspace.quantized, tmp_path / "q")
    with (tmp_path / "q" / "dense" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(errors.DigestMismatchError, match=r"dense/weights.safetensors is sha256:"):
        export.run(
            exported_workspace.validation,
            tmp_path / "q",
            tmp_path / "out",
            tmp_path / "m.json",
            conversion_params,
        )
