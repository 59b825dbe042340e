import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import check, files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(project, change):
    path = project / "params.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def problems(project):
    return check.examine(project / "params.yaml", ROOT / ".venvs").problems


def judge_by(project, path):
    """Let the project's metric be the function ``score`` of a file; return its task."""
    task = {
        "kind": "classification", "metric": f"{path.stem}:score", "direction": "higher",
        "metric_digest": files.digest_file(path),
    }  # fmt: skip
    edit(project, lambda values: values.update(task=task))
    return task


def test_the_default_project_has_no_problem(project):
    assert problems(project) == []


def test_problems_of_pins_and_required_tools_are_listed_together(project):
    (project / "weights.safetensors").write_bytes(b"other")

    def change(values):
        values["train"] |= {
            "checkpoint": "weights.safetensors",
            "checkpoint_digest": files.digest_bytes(b"pinned"),
        }
        values["targets"]["linux-tflite-runtime"]["required"] = True

    edit(project, change)
    found = check.examine(project / "params.yaml", project / "no-environments").problems
    assert len(found) == 2
    assert "train.checkpoint" in found[0]
    assert (
        "linux-tflite-runtime is required and tflite-runtime is absent; run make setup" in found[1]
    )


def test_a_metric_that_does_not_import_is_found_before_anything_runs(project):
    path = project / "broken_metric.py"
    path.write_text("import nothing_of_this_name\n")
    judge_by(project, path)
    (line,) = problems(project)
    assert "task.metric 'broken_metric:score': import of broken_metric failed: Module" in line


def test_a_metric_that_changed_since_it_was_pinned_is_one_line(project):
    path = project / "changed_metric.py"
    path.write_text("def score(outputs, labels):\n    return 1.0\n")
    task = judge_by(project, path)
    assert problems(project) == []
    path.write_text("def score(outputs, labels):\n    return 100.0\n")
    (line,) = problems(project)
    assert "changed_metric.py" in line
    assert f"task.metric_digest pins {task['metric_digest']}" in line


SENSITIVE = """
import numpy as np


def score(outputs, labels):
    chosen = outputs.argmax(axis=1)
    precisions = [np.mean(labels[chosen == c] == c) for c in range(10)]
    assert np.isfinite(precisions).all(), "a class is never chosen"
    return float(np.mean(precisions))
"""


def test_a_metric_that_only_a_trained_net_satisfies_is_no_problem(project):
    path = project / "sensitive_metric.py"
    path.write_text(SENSITIVE)
    judge_by(project, path)
    assert problems(project) == []


METRICS = {
    "raises": ("raise KeyError('odd')", " on 544 samples failed: KeyError: 'odd'"),
    "gives no number": ("return None", " gave None (NoneType) on 544 samples"),
}


@pytest.mark.parametrize(("body", "said"), METRICS.values(), ids=METRICS)
def test_a_metric_is_tried_before_anything_runs(project, body, said):
    path = project / f"tried_{body.split()[0]}.py"
    path.write_text(f"def score(outputs, labels):\n    {body}\n")
    judge_by(project, path)
    (line,) = problems(project)
    assert f"task.metric '{path.stem}:score'{said}" in line


SSH = {"transport": "ssh", "host": "board"}
WEAK = {
    "here": (
        {},
        ["will be emulated, not measured: outputs, quality and agreement only; give a connection"],
    ),
    "on the board": ({"connection": SSH}, []),
}


@pytest.mark.parametrize(("change", "expected"), WEAK.values(), ids=WEAK)
def test_what_is_not_measured_is_a_remark_with_what_can_be_done(project, change, expected):
    edit(project, lambda values: values["targets"]["raspberry-pi-5-tflite"].update(change))
    found = check.examine(project / "params.yaml", ROOT / ".venvs").remarks
    said = [line for line in found if "not measured" in line]
    assert said == [f"raspberry-pi-5-tflite {words} to measure" for words in expected]


@pytest.mark.parametrize("num_rows", [400, 1000])
def test_too_little_data_for_the_budget_is_a_remark(project, num_rows):
    inputs = np.random.default_rng(0).random((num_rows, 8, 8), np.float32)
    np.savez(project / "mine.npz", inputs=inputs, labels=np.arange(num_rows) % 4)
    pin = files.digest_file(project / "mine.npz")
    steps = [{"step": "add_channel"}, {"step": "channels_first"}]

    def change(values):
        values["data"] |= {
            "source": "npz", "path": "mine.npz", "digest": pin, "preprocessing": steps,
        }  # fmt: skip
        values["data"]["num_calibration"] = values["quantize"]["int8"]["num_samples"] = 16
        for target in values["targets"].values():
            target["convert"]["num_calibration"] = 16

    edit(project, change)
    found = check.examine(project / "params.yaml", ROOT / ".venvs").remarks
    expected = (
        "x86-onnxruntime, x86-litert, linux-tflite-runtime, raspberry-pi-5-tflite: 122 validation "
        "samples cannot show a drop below 3.05 points, select.max_quality_drop allows less; a "
        "candidate that only equals fp32 will not ship, give more data"
    )
    assert [line for line in found if "validation samples" in line] == (
        [expected] if num_rows == 400 else []
    )


VECTORS = {
    "anomalies for an autoencoder": ("anomaly", "auc", "autoencoder", np.arange(200) % 2),
    "values for a net of one's own": ("regression", "mae", None, np.ones((200, 3), np.float32)),
}


@pytest.mark.parametrize(("kind", "metric", "net", "labels"), VECTORS.values(), ids=VECTORS)
def test_a_net_is_built_with_the_outputs_that_its_task_asks_for(project, kind, metric, net, labels):
    np.savez(project / "mine.npz", inputs=np.random.default_rng(0).random((200, 6)), labels=labels)
    (project / "check_net.py").write_text(
        "from torch import nn\n\n\ndef make(input_shape, num_classes):\n"
        "    return nn.Linear(input_shape[0], num_classes)\n"
    )

    def change(values):
        digest = files.digest_file(project / "mine.npz")
        values["data"] = values["data"] | {
            "source": "npz", "path": "mine.npz", "digest": digest, "preprocessing": [],
            "num_calibration": 16,
        }  # fmt: skip
        values["task"] = {"kind": kind, "metric": metric}
        pin = files.digest_file(project / "check_net.py")
        own = {"factory": "check_net:make", "factory_digest": pin}
        values["net"] = {"name": net} if net else own
        values["quantize"]["int8"]["num_samples"] = 16
        for target in values["targets"].values():
            target["convert"]["num_calibration"] = 16

    edit(project, change)
    assert problems(project) == []


def test_a_factory_that_does_not_import_is_found_before_anything_runs(project):
    (project / "broken_net.py").write_text("import nothing_of_this_name\n")
    pin = files.digest_file(project / "broken_net.py")
    edit(
        project,
        lambda v: v.update(net={"factory": "broken_net:make", "factory_digest": pin}),
    )
    (found,) = problems(project)
    assert "net.factory 'broken_net:make'" in found
    assert "nothing_of_this_name" in found


def test_bad_data_is_found_before_anything_runs(project):
    inputs = np.zeros((200, 8, 8), np.float32)
    inputs[3, 0, 0] = np.nan
    np.savez(project / "mine.npz", inputs=inputs, labels=np.arange(200) % 4)
    pin = files.digest_file(project / "mine.npz")
    edit(project, lambda v: v["data"].update(source="npz", path="mine.npz", digest=pin))
    (found,) = problems(project)
    assert "NaN" in found
    assert "mine.npz" in found


def slipway(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_the_command_prints_every_problem_and_exits_2(project):
    edit(project, lambda v: (v["prune"]["half"].update(ratio=1.5), v["train"].update(epochs=0)))
    done = slipway("check", cwd=project)
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        "train.epochs",
        "prune.half.ratio",
    ]


def test_debug_shows_the_trace_that_is_hidden_otherwise(tmp_path):
    done = slipway("explain", "t", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "params.yaml cannot be read: No such file" in done.stderr
    assert "Traceback" in slipway("--debug", "explain", "t", cwd=tmp_path).stderr


@pytest.mark.tflite
def test_an_absent_extra_is_one_line_that_names_it(project):
    """The environment of tflite-runtime is one without torch."""
    python = ROOT / ".venvs/device-tflite/bin/python"
    if not python.exists():
        pytest.skip("the device-tflite environment is not made: make setup")
    done = subprocess.run(
        [python, "-m", "pipeline.cli", "check"], cwd=project, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith("is not installed; pip install 'slipway[build]'\n")
    assert done.stderr.count("\n") == 1


def test_doctor_names_a_version_or_the_command_that_installs_it(project):
    done = slipway("doctor", cwd=project)
    assert done.returncode == 0
    assert "onnxruntime" in done.stdout
    without = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "doctor"], cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SLIPWAY_ENVIRONMENTS": str(project)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "absent" in without.stdout
    assert "make setup" in without.stdout
