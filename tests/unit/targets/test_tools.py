import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.targets import tools


def test_every_converter_and_runtime_has_its_tools():
    assert tools.CONVERTER_TOOLS.keys() == set(params.Converter.__args__)
    assert tools.RUNTIME_TOOLS.keys() == set(params.Runtime.__args__)


def test_versions_are_those_installed_in_the_build_environment(make_target, tmp_path):
    found = tools.versions(make_target("onnxruntime"), tmp_path)
    assert found == {name: metadata.version(name) for name in ("onnx", "onnxruntime")}


def test_a_foreign_environment_is_read_by_its_folder(make_target, fake_environment):
    found = tools.versions(make_target("tflite_runtime"), fake_environment)
    assert found["tflite-runtime"] == "2.14.0"


def test_a_tool_of_a_missing_environment_is_absent(make_target, tmp_path):
    found = tools.versions(make_target("tflite_runtime"), tmp_path)
    assert found["tflite-runtime"] == "absent"
    assert found["ai-edge-litert"] != "absent"


def test_a_tool_of_the_build_environment_is_not_borrowed_by_a_foreign_one(fake_environment):
    assert tools.version("numpy", "device-tflite", fake_environment) is None
    assert tools.version("numpy", "build", fake_environment) == metadata.version("numpy")


def test_the_build_interpreter_is_this_one():
    assert tools.environment_python("build") == Path(sys.executable)


def test_a_foreign_interpreter_is_named_but_its_link_not_followed(tmp_path):
    python = tmp_path / "device-tflite/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert tools.environment_python("device-tflite", tmp_path) == python


def test_an_onnx_file_is_lowered_by_tensorflow_instead_of_litert_torch(make_target, tmp_path):
    wanted = tools.converter_tools("to_litert", from_onnx=True)
    assert wanted["tensorflow"] == wanted["onnx2tf"] == "convert-tensorflow"
    assert wanted["ai-edge-quantizer"] == "build"
    assert not {"torch", "litert-torch"} & wanted.keys()
    found = tools.versions(make_target("litert"), tmp_path, from_onnx=True)
    assert found["onnx2tf"] == "absent"
    same = tools.converter_tools("to_onnxruntime", from_onnx=True)
    assert same == tools.converter_tools("to_onnxruntime")


def test_a_missing_interpreter_names_the_remedy(tmp_path):
    with pytest.raises(TargetError, match=r"device-tflite has no interpreter .*; run make setup"):
        tools.environment_python("device-tflite", tmp_path)


def test_the_variable_says_where_environments_are(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIPWAY_ENVIRONMENTS", str(tmp_path))
    assert tools.environments_path() == tmp_path
    monkeypatch.delenv("SLIPWAY_ENVIRONMENTS")
    assert tools.environments_path() == Path(sys.prefix).parent / ".venvs"


def test_doctor_lists_every_tool_with_who_uses_it_and_how_to_get_it(tmp_path):
    p = params.load(Path(__file__).parents[3] / "params.yaml")
    rows = {row.tool: row for row in tools.doctor(p, tmp_path)}
    assert rows.keys() == {
        *tools.RUNTIME_TOOLS.values(),
        *(tool for names in tools.CONVERTER_TOOLS.values() for tool in names),
        *tools.ONNX_LOWERING_TOOLS,
    }
    missing = rows["tflite-runtime"]
    assert (missing.version, missing.environment) == (None, "device-tflite")
    assert "make setup" in missing.remedy
    assert missing.used_by == tuple(
        n for n, t in p.targets.items() if t.runtime == "tflite_runtime"
    )
    assert rows["onnx"].version
    assert tools.remedy("nncf", tools.BUILD) == "pip install 'slipway[openvino]'"
    assert tools.remedy("tflite-runtime", "emulated-aarch64").startswith("make setup")
    assert rows["onnx"].remedy is None
