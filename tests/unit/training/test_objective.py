"""Objectives: what each task learns from, by what loss, and by what its epochs are judged."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import files, metrics, params
from pipeline.errors import DataError, InputsError, MetricError, ParamsError
from pipeline.training import loop, objective
from pipeline.training.objective import CLASSIFICATION, Batch

ANOMALY = objective.of(params.Task(kind="anomaly", metric="auc"))
REGRESSION = objective.of(params.Task(kind="regression", metric="mae"))


def batch(inputs, labels):
    return Batch(inputs, labels, torch.arange(len(labels)))


def test_each_task_has_its_length_of_output():
    classes, values = torch.zeros(5, dtype=torch.int64), torch.zeros(5, 3)
    assert CLASSIFICATION.num_outputs((1, 4, 4), classes, ("a", "b")) == 2
    assert ANOMALY.num_outputs((1, 4, 5), classes, ("normal", "odd")) == 20
    assert REGRESSION.num_outputs((1, 4, 4), values, ()) == 3
    assert REGRESSION.num_outputs((1, 4, 4), values[:, 0], ()) == 1


def test_anomaly_detection_learns_from_normal_samples_alone():
    tensors = loop.Tensors(torch.arange(4.0)[:, None], torch.tensor([0, 1, 0, 2]))
    kept = loop.learnable(tensors, ANOMALY)
    assert kept.inputs.flatten().tolist() == [0.0, 2.0]
    assert kept.labels.tolist() == [0, 0]
    assert loop.learnable(tensors, CLASSIFICATION) is tensors


def test_without_normal_samples_there_is_nothing_to_learn():
    with pytest.raises(DataError, match="learns from normal samples, label 0, and there is none"):
        ANOMALY.learns_from(torch.tensor([1, 2]))


LOSSES = {
    "anomaly: back to the input": (ANOMALY, [[2.0, 2.0], [0.0, 4.0]], 2.0),
    "regression: to the labels": (REGRESSION, [[5.0], [7.0]], 2.0),
}


@pytest.mark.parametrize(("goal", "outputs", "expected"), LOSSES.values(), ids=LOSSES)
def test_mean_squared_errors(goal, outputs, expected):
    inputs, labels = torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]]]), torch.tensor([5.0, 5.0])
    found = batch(inputs, labels)
    assert goal.loss(torch.tensor(outputs), found).item() == expected
    assert goal.loss(torch.tensor(outputs), found, reduction="sum").item() == 2 * expected


def test_wide_labels_are_compared_value_by_value_and_never_broadcast():
    found = batch(torch.zeros(2, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert REGRESSION.loss(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), found).item() == 1.0
    with pytest.raises(RuntimeError, match="shape"):
        REGRESSION.loss(torch.zeros(2, 1), found)


def test_labels_to_regress_become_float32_and_classes_stay_integers():
    assert loop.Tensors.of(np.zeros((2, 1), np.float32), np.zeros(2)).labels.dtype == torch.float32
    assert loop.Tensors.of(np.zeros((2, 1), np.float32), np.arange(2)).labels.dtype == torch.int64


def test_an_anomaly_is_what_is_not_given_back():
    inputs = torch.tensor([[0.0], [1.0], [9.0]])
    outputs = np.array([[0.0], [1.0], [1.0]], np.float32)
    assert ANOMALY.quality(outputs, inputs, np.array([0, 0, 1])) == 100
    with pytest.raises(DataError, match="judged on normal samples and on anomalies, got 3 normal"):
        ANOMALY.quality(outputs, inputs, np.array([0, 0, 0]))


@pytest.fixture
def machine():
    """Normal samples on a line in space, anomalies beside it: (train, validation)."""
    generator = torch.Generator().manual_seed(0)
    line = torch.tensor([1.0, -2.0, 0.5, 1.5])

    def make(num):
        labels = (torch.arange(num) % 4 == 3).long()
        inputs = torch.randn(num, 1, generator=generator) * line
        inputs += labels[:, None] * torch.randn(num, 4, generator=generator)
        return loop.Tensors(inputs, labels)

    return make(120), make(60)


def test_an_autoencoder_learns_what_is_normal(machine, settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 4))
    before = loop.evaluate(net, machine[1], ANOMALY)
    kept = loop.learnable(machine[0], ANOMALY)
    fit = loop.fit(net, kept, machine[1], settings(epochs=20), 0, objective=ANOMALY)
    after = loop.evaluate(net, machine[1], ANOMALY)
    assert after.quality == fit.best.quality > 95
    assert after.quality > before.quality
    outputs = after.outputs
    scores = metrics.reconstruction_scores(outputs, machine[1].inputs.numpy())
    normal = machine[1].labels.numpy() == 0
    assert after.loss == pytest.approx(scores[normal].mean(), rel=1e-5)  # of normal samples alone


def test_the_epoch_with_the_smallest_error_is_kept(settings):
    inputs = torch.linspace(-1, 1, 40)[:, None]
    tensors = loop.Tensors(inputs, 3 * inputs[:, 0] + 1)
    net = nn.Linear(1, 1)
    fit = loop.fit(net, tensors, tensors, settings(epochs=15), 0, objective=REGRESSION)
    errors = [epoch.quality for epoch in fit.epochs]
    assert fit.best.quality == min(errors) < errors[0]
    assert loop.evaluate(net, tensors, REGRESSION).quality == min(errors)


@pytest.fixture
def users_task(tmp_path, monkeypatch):
    """Write a metric into the working directory; returns the task that names it."""
    monkeypatch.chdir(tmp_path)

    def write(name, body, **more):
        path = tmp_path / f"{name}.py"
        path.write_text(body, encoding="utf-8")
        found = {"metric_digest": files.digest_file(path), "direction": "lower", "unit": "V"}
        return params.Task(**{"kind": "regression", "metric": f"{name}:worst", **found, **more})

    return write


WORST = """\
import numpy as np


def worst(outputs, labels):
    return np.abs(outputs[:, 0] - labels).max()
"""


def test_the_users_metric_chooses_the_epoch_and_names_the_figure(users_task, settings):
    goal = objective.of(users_task("users_metric_a", WORST))
    inputs = torch.linspace(-1, 1, 40)[:, None]
    tensors = loop.Tensors(inputs, 3 * inputs[:, 0] + 1)
    fit = loop.fit(nn.Linear(1, 1), tensors, tensors, settings(epochs=6), 0, objective=goal)
    assert fit.best.quality == min(epoch.quality for epoch in fit.epochs)
    assert goal.validation_key == "validation_worst"
    assert goal.words(0.25) == "0.25 V"


def test_a_users_metric_with_other_bytes_or_faults_is_refused(users_task):
    with pytest.raises(InputsError, match=r"task.metric: .* task.metric_digest pins"):
        objective.of(users_task("users_metric_b", WORST, metric_digest="sha256:" + "0" * 64))
    goal = objective.of(
        users_task("users_metric_c", "def worst(outputs, labels):\n    return 1/0\n")
    )
    with pytest.raises(MetricError, match="'users_metric_c:worst' failed: ZeroDivisionError"):
        goal.quality(np.zeros((2, 1)), torch.zeros(2, 1), np.zeros(2))


def test_a_task_without_labels_cannot_be_trained():
    with pytest.raises(ParamsError, match=r"task.kind agreement has no labels to train by"):
        objective.of(params.Task(kind="agreement", metric="top1"))


def test_figures_in_words():
    assert CLASSIFICATION.words(98.94) == "98.9 %"
    assert CLASSIFICATION.words_of_difference(0.184, -0.5, 1.03) == "+0.18 [-0.50..+1.03] point"
    assert REGRESSION.words(0.03125) == "0.03125"
    assert REGRESSION.words_of_difference(0.5, -1, 2.25) == "+0.5 [-1..+2.25]"
