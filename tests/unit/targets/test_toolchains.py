"""What set-up installs: only what the targets that are on need."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline import compatibility, params
from pipeline.project import settings
from pipeline.targets import toolchains

ROOT = Path(__file__).parents[3]
PRESETS = {
    name: msgspec.convert(preset, params.Target) for name, preset in settings.presets().items()
}


@pytest.fixture
def own():
    return params.load(ROOT / "params.yaml")


def needed(p, targets, **changes):
    on = {name: PRESETS[name] for name in targets}
    return toolchains.needed(msgspec.structs.replace(p, targets=on, **changes))


NEEDED = {
    "onnxruntime needs no more": (["x86-onnxruntime"], set(), set()),
    "litert needs no more": (["x86-litert"], set(), set()),
    "tflite-runtime has an environment": (["linux-tflite-runtime"], set(), {"device-tflite"}),
    "openvino": (["x86-openvino"], {"openvino"}, set()),
    "ethos-u": (["cortex-m55-ethos-u55"], {"ethos-u"}, set()),
    "an engine ahead of time": (["rtx-4090"], {"tensorrt"}, set()),
    "a bundle is built on the device": (["jetson-orin"], set(), set()),
    "several": (
        ["x86-openvino", "linux-tflite-runtime", "rtx-4090"],
        {"openvino", "tensorrt"},
        {"device-tflite"},
    ),
}


@pytest.mark.parametrize(("targets", "extras", "environments"), NEEDED.values(), ids=NEEDED)
def test_a_target_that_is_on_brings_its_toolchain_alone(own, targets, extras, environments):
    assert needed(own, targets) == (extras, environments)


def test_another_instruction_set_is_an_environment_too(own):
    target = PRESETS["linux-tflite-runtime"]
    profile = msgspec.structs.replace(target.profile, environment="emulated-aarch64")
    targets = {"board": msgspec.structs.replace(target, profile=profile)}
    p = msgspec.structs.replace(own, targets=targets)
    assert toolchains.needed(p) == (set(), {"emulated-aarch64"})
    assert "emulated-aarch64" in toolchains.everything()[1]


def test_quantization_aware_training_brings_its_library(own):
    training = {
        name: getattr(own.distill["recover"], name)
        for name in params.Qat.__struct_fields__
    }  # fmt: skip
    trained = {"int8": params.Quantize(bits=8, num_samples=64, qat=params.Qat(**training))}
    assert needed(own, ["x86-litert"], quantize=trained) == ({"qat"}, set())


@pytest.mark.parametrize(
    ("target", "environments"),
    [
        ("x86-litert", {"convert-tensorflow"}),
        ("cortex-m55-ethos-u55", {"convert-tensorflow"}),
        ("linux-tflite-runtime", {"convert-tensorflow", "device-tflite"}),
        ("x86-onnxruntime", set()),
        ("x86-openvino", set()),
    ],
)
def test_tensorflow_is_for_onnx_files_that_become_tflite(own, target, environments):
    net = params.Net(onnx="model.onnx")
    assert needed(own, [target], net=net)[1] == environments
    assert "convert-tensorflow" not in needed(own, [target])[1]


def test_everything_is_at_least_what_all_targets_need(own):
    extras, environments = toolchains.everything()
    for net in (own.net, params.Net(onnx="model.onnx")):
        some = needed(own, PRESETS, net=net)
        assert some[0] <= extras
        assert some[1] <= environments
    assert {"qat", *(e for m in compatibility.CONVERTER_EXTRAS.values() for e in m)} <= extras
    assert "build" not in environments


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.targets.toolchains", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_lines_that_set_up_reads():
    lines = run("params.yaml").stdout.splitlines()
    assert lines == ["environment device-tflite", "environment emulated-aarch64"]
    lines = run("--all").stdout.splitlines()
    assert {"extra openvino", "extra tensorrt", "environment convert-tensorflow"} <= set(lines)
    assert lines == sorted(lines, key=lambda line: (line.startswith("environment"), line))


def test_a_file_that_is_wrong_is_left_to_check(tmp_path):
    (tmp_path / "params.yaml").write_text("model: [\n")
    done = run(tmp_path / "params.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
