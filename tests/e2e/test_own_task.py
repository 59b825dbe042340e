"""Tasks of the user's own through the whole chain: anomalies by AUC, classes by the user's metric.

One target and two precisions each: what the tasks share is in test_chain.py.
"""

import json

import numpy as np
import pytest
import yaml

from pipeline import files, measurement

pytestmark = pytest.mark.slow
TARGET = "x86-onnxruntime"
METRIC = '''\
"""The mean over the classes of the share that is missed: no class hides behind a larger one."""

import numpy as np


def missed(outputs, labels):
    wrong = outputs.argmax(axis=1) != labels
    return 100 * float(np.mean([wrong[labels == label].mean() for label in np.unique(labels)]))
'''


def use_one_target(values):
    values["targets"] = {TARGET: values["targets"][TARGET]}
    values["targets"][TARGET]["convert"]["precisions"] = ["fp32", "int8-static"]
    # the tests are of the figures, not of what these tiny nets lose
    values["targets"][TARGET]["select"]["max_quality_drop"] = 100.0


def write_vectors(path):
    """Samples lie near a plane of 32 dimensions; anomalies, every fourth, are further from it."""
    draw = np.random.default_rng(0)
    labels = (np.arange(1600) % 4 == 0).astype(np.int64)
    inputs = draw.normal(0, 1, (1600, 2)) @ draw.normal(0, 1, (2, 32))
    inputs += draw.normal(0, 0.5, inputs.shape) * (1 + 0.6 * labels[:, None])
    np.savez(path, inputs=inputs.astype(np.float32), labels=labels)


def anomalies(values):
    use_one_target(values)
    values["data"] |= {
        "source": "npz", "path": "vectors.npz", "labels": ["normal", "broken"], "preprocessing": [],
    }  # fmt: skip
    values["task"] = {"kind": "anomaly", "metric": "auc"}
    values["net"] = {"name": "autoencoder"}


def certified(project):
    return measurement.read(project.path / "models/release" / TARGET / "measurement.json")


@pytest.fixture
def make_task(make_clone):
    """A miniature clone with a change of its params, pinned and checked."""

    def make(name, change, prepare=lambda _: None):
        project = make_clone(name)
        prepare(project.path)
        project.edit(change)
        project.slipway("inputs", "lock")
        project.slipway("check")
        project.commit()
        return project

    return make


def test_an_autoencoder_ships_with_its_auc(make_task):
    project = make_task("anomalies", anomalies, lambda path: write_vectors(path / "vectors.npz"))
    ran = project.repro()
    assert f"register@{TARGET}" in ran
    found = certified(project).quality
    assert (found.metric, found.direction, found.unit) == ("AUC", "higher", "%")
    assert found.n > 600
    assert 80 < found.value < 100  # an untrained autoencoder has 57
    assert 0 < found.half_width < 10

    listed = [
        measurement.read(path)
        for path in sorted((project.path / "models/profiled" / TARGET).glob("*/measurement.json"))
    ]
    assert {m.candidate for m in listed} == {
        f"{recipe}-{precision}"
        for recipe in ("dense", "pruned")
        for precision in ("fp32", "int8-static")
    }
    for m in listed:
        assert m.quality.metric == "AUC"
        assert m.agreement is None or m.agreement.max_abs_error > 0
        assert (m.drop is None) == (m.candidate == "dense-fp32")
    metrics = project.path / "models/metrics"
    pruned = json.loads((metrics / "distill.json").read_text())["pruned"]
    assert (
        pruned["parameters"]
        < 0.5 * json.loads((metrics / "train.json").read_text())["teacher"]["parameters"]
    )
    assert pruned["validation_auc"] > 70
    shown = project.slipway("report").stdout
    assert "test AUC" in shown
    page = (project.path / "models/report/report.md").read_text()
    assert "AUC" in page
    assert "accuracy" not in page


def own_metric(values):
    use_one_target(values)
    values["recipes"] = {"dense": values["recipes"]["dense"]}
    values["task"] = {
        "kind": "classification", "metric": "balance:missed", "direction": "lower", "unit": "%",
    }  # fmt: skip


def test_a_metric_of_ones_own_judges_the_whole_chain_and_is_pinned(make_task):
    project = make_task("metric", own_metric, lambda path: (path / "balance.py").write_text(METRIC))
    project.repro()
    shipped = certified(project)
    found = shipped.quality
    assert (found.metric, found.direction, found.unit) == ("balance:missed", "lower", "%")
    assert 0 < found.value < 30  # ten classes: chance misses 90
    assert found.half_width > 0
    train = json.loads((project.path / "models/metrics/train.json").read_text())["teacher"]
    assert 0 < train["validation_missed"] < 30
    shown = project.slipway("report").stdout
    assert f"test balance:missed {found.value:.2f} %" in shown

    released = files.digest_file(project.path / "models/release" / TARGET / "manifest.json")
    path = project.path / "balance.py"
    path.write_text(METRIC.replace("100 *", "1 *"))
    refused = project.slipway("check", check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    pin = yaml.safe_load((project.path / "params.yaml").read_text())["task"]["metric_digest"]
    assert f"task.metric_digest pins {pin}" in refused.stderr
    assert files.digest_file(project.path / "models/release" / TARGET / "manifest.json") == released

    project.slipway("inputs", "lock")
    project.slipway("check")
    would_run = project.dvc("status", "train").stdout
    assert "task" in would_run, "another metric is another choice of the epoch"
