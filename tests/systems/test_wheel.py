"""What a device gets: the wheel and three small libraries, and no repository."""

import io
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from PIL import Image

from pipeline import files, manifest, measurement
from pipeline.measurement import Drop, Interval, Latency, Measurement, Quality
from pipeline.registry import lock, publish
from pipeline.registry.store import DirectoryStore

ROOT = Path(__file__).parents[2]
EXTRAS = "device-onnxruntime,audio,image"
HEARS = (
    {
        "step": "mfcc",
        "sample_rate_hz": 8000,
        "num_coefficients": 10,
        "num_mel_bins": 40,
        "frame_length_ms": 40.0,
        "frame_shift_ms": 20.0,
    },
    {"step": "scale", "factor": 0.001},
    {"step": "add_channel"},
    {"step": "channels_first"},
)
SEES = (
    {"step": "resize", "height": 32, "width": 32},
    {"step": "scale", "factor": 1 / 255 / 1024},
    {"step": "channels_first"},
)


def run(folder, *command, check=True):
    """Run outside the repository, with nothing of this environment but the system's own."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env={**kept, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment of its own that holds the wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "pipeline", source / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    run(
        folder, sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder / "dist", source,
    )  # fmt: skip
    (wheel,) = (folder / "dist").glob("slipway-*.whl")
    run(folder, sys.executable, "-m", "venv", folder / "environment")
    python = folder / "environment/bin/python"
    pins = ROOT / "constraints/build.txt"
    run(folder, python, "-m", "pip", "install", "-c", pins, f"{wheel}[{EXTRAS}]")
    return python


def net(path, shape, axis):
    """Sum the input [1, ...] over all axes but one."""
    others = [number for number in range(1, 4) if number != axis]
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["scores"], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, shape[axis - 1]])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], others)],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def release(folder, target, shape, axis, raw, labels, steps):
    """Write a release directory, as stage register does."""
    artifact = folder / "artifact"
    artifact.mkdir(parents=True)
    net(artifact / "model.onnx", shape, axis)
    manifest.write(
        artifact, model="senses", stage="convert", target=target, format="onnx", precision="fp32",
        labels=labels, preprocessing=steps,
    )  # fmt: skip
    measured = Measurement(
        artifact=files.digest_file(artifact / "manifest.json"),
        candidate="dense-fp32",
        target=target,
        kind="measured",
        time="2026-11-21T07:00:00Z",
        runtime="onnxruntime",
        size_bytes=1,
        latency_ms=Latency(p50=0.5),
        latency_ratio=Interval(1, 1, 1),
        quality=Quality("accuracy", "higher", "%", 97.0, 360, 1.5),
        drop=Drop(0.5, -0.25, 1.25, 360, 4),
    )
    for name in ("measurement.json", "reference.json"):
        measurement.write(folder / name, measured)
    np.savez(folder / "golden.npz", inputs=raw[np.newaxis], outputs=np.zeros((1, 2)))
    described = {"shipped": True, "candidate": "dense-fp32", "variant": "dense"}
    (folder / "release.json").write_bytes(files.encode_json(described | {"precision": "fp32"}))
    manifest.write(folder, model="senses", stage="register", target=target)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry with one release: target ``ear`` hears a second, target ``eye`` sees images."""
    project = tmp_path_factory.mktemp("project")
    (project / "params.yaml").write_text("model: senses\n", encoding="utf-8")
    room = project / "models/release"
    releases = {
        "ear": release(
            room / "ear", "ear", (1, 49, 10), 3, np.zeros(8000, np.int16),
            tuple(f"word {number}" for number in range(10)), HEARS,
        ),
        "eye": release(
            room / "eye", "eye", (3, 32, 32), 1, np.zeros((32, 32, 3), np.uint8),
            ("red", "green", "blue"), SEES,
        ),
    }  # fmt: skip
    stages = {
        f"register@{target}": {
            "cmd": "exec python -m stages.register",
            "params": {"params.yaml": {"model": "senses"}},
            "outs": [
                {"path": f"models/release/{target}", "hash": "md5", "md5": lock.md5(directory)}
            ],
        }
        for target, directory in releases.items()
    }
    text = yaml.safe_dump({"schema": "2.0", "stages": stages})
    (project / "dvc.lock").write_text(text, encoding="utf-8")
    publish.publish(project, DirectoryStore(project / "registry"), None, releases)
    return project / "registry"


def test_the_wheel_alone_in_an_empty_environment_runs_a_raw_wav_and_an_image_with_a_pulled_artifact(
    environment, registry, tmp_path
):
    slipway = environment.parent / "slipway"
    code = "import pipeline, sys; print(pipeline.__file__)"
    where = run(tmp_path, environment, "-c", code).stdout
    assert str(environment.parents[1]) in where  # not the repository's
    for heavy in ("torch", "onnx", "dvc", "sklearn"):
        assert run(tmp_path, environment, "-c", f"import {heavy}", check=False).returncode == 1

    for target in ("ear", "eye"):
        run(
            tmp_path, slipway, "pull", "senses", "--target", target, "--to", f"./{target}",
            "--registry", registry,
        )  # fmt: skip
    with wave.open(str(tmp_path / "said.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(4000) / 4) * 9000).astype(np.int16).tobytes())
    Image.new("RGB", (64, 48), (10, 200, 90)).save(tmp_path / "seen.jpg")

    heard = run(tmp_path, slipway, "run", "ear", "said.wav").stdout
    assert heard.startswith("0\tword ")
    assert heard.count("word") == 3
    seen = run(tmp_path, slipway, "run", "eye", "seen.jpg").stdout
    assert [word.split()[0] for word in seen.removeprefix("0\t").split("  ")] == [
        "green",
        "blue",
        "red",
    ]


BROKEN = {
    "a truncated wav": ("said.wav", "ear", lambda: sound()[:600], "its header says"),
    "a wav of random bytes": ("said.wav", "ear", lambda: noise(999), "is no readable wav"),
    "a wav of another rate": ("said.wav", "ear", lambda: sound(16000), "sample rate of 16000 Hz"),
    "a truncated jpeg": ("seen.jpg", "eye", lambda: picture()[:400], "is no readable image"),
    "a jpeg of random bytes": ("seen.jpg", "eye", lambda: noise(999), "is no readable image"),
}


def noise(size):
    return np.random.default_rng(0).bytes(size)


def sound(rate=8000):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(4000))
    return content.getvalue()


def picture():
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


@pytest.mark.parametrize(("name", "target", "content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_and_exit_2(
    environment, registry, tmp_path, name, target, content, words
):
    slipway = environment.parent / "slipway"
    run(tmp_path, slipway, "pull", "senses", "--target", target, "--to", "./model",
        "--registry", registry)  # fmt: skip
    (tmp_path / name).write_bytes(content())
    done = run(tmp_path, slipway, "run", "model", name, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert words in line
    assert name in line
