"""Metrics: known values, ties, and shapes that only look different."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline import metrics, params


def test_accuracy_counts_the_first_of_equal_outputs():
    outputs = np.array([[0.1, 0.9], [0.5, 0.5], [0.2, 0.8], [1.0, 0.0]], np.float32)
    assert metrics.accuracy(outputs, np.array([1, 0, 0, 0])) == 75.0


def test_accuracy_of_outputs_with_more_axes_is_of_all_their_values():
    outputs = np.array([[[[0.0, 3.0]]], [[[2.0, 1.0]]]], np.float32)
    assert metrics.accuracy(outputs, np.array([1, 0])) == 100.0


@pytest.mark.parametrize("labels", [[1.0, 2.0], [[1.0], [2.0]]], ids=["flat", "one value each"])
def test_mean_absolute_error_is_never_broadcast(labels):
    outputs = np.array([[2.0], [4.0]], np.float32)
    assert metrics.mean_absolute_error(outputs, np.array(labels)) == 1.5
    assert metrics.absolute_errors(outputs, np.array(labels)).tolist() == [1.0, 2.0]


def test_labels_of_another_width_are_refused():
    with pytest.raises(ValueError, match="reshape"):
        metrics.mean_absolute_error(np.zeros((2, 1)), np.zeros((2, 3)))


AUCS = {
    "all anomalies above": ([1, 2, 3, 4], [0, 0, 1, 1], 100.0),
    "all anomalies below": ([3, 4, 1, 2], [0, 0, 1, 1], 0.0),
    "all equal": ([5, 5, 5, 5], [0, 1, 0, 1], 50.0),
    "one tie of four pairs": ([1, 2, 2, 9], [0, 0, 1, 1], 87.5),
    "any label but 0 is an anomaly": ([1, 2, 3], [0, 7, 2], 100.0),
}


@pytest.mark.parametrize(("scores", "labels", "expected"), AUCS.values(), ids=AUCS)
def test_auc_of_known_cases(scores, labels, expected):
    assert metrics.auc(np.array(scores, float), np.array(labels)) == expected


def test_auc_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = np.round(rng.standard_normal(500) + labels, 1)  # rounded: with many ties
    assert metrics.auc(scores, labels) == pytest.approx(100 * roc_auc_score(labels, scores))


def test_reconstruction_scores_are_mean_squares_a_sample_in_any_shape():
    inputs = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    outputs = inputs.reshape(2, 4) + np.array([[0.0], [3.0]], np.float32)
    assert metrics.reconstruction_scores(outputs, inputs).tolist() == [0.0, 9.0]


def test_every_metric_of_a_task_has_a_direction_and_a_unit():
    assert set(params.METRICS.values()) == set(metrics.DIRECTIONS) == set(metrics.UNITS)
