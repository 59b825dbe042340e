import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline import files, metrics, params
from pipeline.data.splits import Split
from pipeline.errors import DataError, InputsError, MetricError
from pipeline.profiling import intervals, quality
from pipeline.profiling.quality import Truth
from pipeline.runtimes import structured

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 2, 300)
VALUES = GENERATOR.normal(0, 1, (300, 2)).astype(np.float32)
NOISE = GENERATOR.normal(0, 1, (300, 2)).astype(np.float32)
NUMBERS = itertools.count()  # Python keeps imported modules: each test's metric has its own name


def outputs(classes, num_classes=3):
    """Outputs whose predictions are these classes."""
    return np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


def judge(kind, metric=None, **fields):
    return quality.judge_of(params.Task(kind=kind, metric=metric or params.METRICS[kind], **fields))


def test_accuracy_is_a_share_with_wilsons_half_width():
    truth = Truth(np.array([0, 1, 2, 2, 0]))
    found = judge("classification").quality(outputs([0, 1, 2, 0, 1]), truth)
    assert (found.metric, found.direction, found.unit, found.n) == ("accuracy", "higher", "%", 5)
    assert found.value == pytest.approx(60)
    assert found.half_width == pytest.approx(100 * intervals.wilson_half_width(0.6, 5))


def test_a_drop_of_accuracy_counts_pairs():
    truth = Truth(np.zeros(10, np.int64))
    reference = outputs([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    candidate = outputs([1, 2, 1, 0, 0, 0, 0, 0, 0, 2])  # three lost, one gained, one wrong twice
    found = judge("classification").drop(candidate, reference, truth)
    assert (found.value, found.num_discordant, found.n) == (pytest.approx(20), 4, 10)
    assert found.lower < 20 < found.upper


def test_a_regression_is_judged_by_its_mean_absolute_error():
    labels = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    found = judge("regression").quality(labels + np.float32(0.25), Truth(labels))
    assert (found.metric, found.direction, found.unit) == ("mean absolute error", "lower", "")
    assert (found.value, found.half_width) == (0.25, 0)


@pytest.mark.parametrize("shape", [(300,), (300, 1)], ids=["flat labels", "one value each"])
def test_labels_of_one_value_go_with_outputs_of_one_value(shape):
    labels = VALUES[:, 0].reshape(shape)
    found = judge("regression").quality(VALUES[:, :1] + 1, Truth(labels))
    assert found.value == pytest.approx(1, abs=1e-6)


def test_a_larger_error_is_a_positive_drop_with_an_interval_around_it():
    reference, candidate = VALUES + 0.1 * NOISE, VALUES + 0.3 * NOISE
    found = judge("regression").drop(candidate, reference, Truth(VALUES))
    errors = np.abs(0.3 * NOISE).mean() - np.abs(0.1 * NOISE).mean()
    assert found.value == pytest.approx(errors, abs=1e-6)
    assert 0 < found.lower < found.value < found.upper
    assert (found.n, found.num_discordant) == (300, 300)
    mirrored = judge("regression").drop(reference, candidate, Truth(VALUES))
    assert (mirrored.lower, mirrored.value, mirrored.upper) == pytest.approx(
        (-found.upper, -found.value, -found.lower)
    )


def test_a_paired_drop_is_narrower_than_the_figures_it_compares():
    reference, candidate = VALUES + NOISE, VALUES + NOISE * np.float32(1.01)
    drop = judge("regression").drop(candidate, reference, Truth(VALUES))
    alone = judge("regression").quality(candidate, Truth(VALUES))
    assert (drop.upper - drop.lower) / 2 < alone.half_width / 20


def test_equal_outputs_have_lost_nothing():
    found = judge("regression").drop(VALUES, VALUES, Truth(VALUES * 2))
    assert (found.value, found.lower, found.upper, found.num_discordant) == (0, 0, 0, 0)


def test_other_numbers_of_values_are_refused():
    with pytest.raises(DataError, match=r"gives 2 values a sample, labels have 1; give labels"):
        judge("regression").quality(VALUES, Truth(VALUES[:, 0]))


@pytest.fixture
def autoencoder():
    """Inputs [300, 1, 8], what a net gives back, labels: it gives anomalies back less well."""
    inputs = np.random.default_rng(1).normal(0, 1, (300, 1, 8)).astype(np.float32)
    blur = (0.5 + 0.2 * LABELS)[:, None, None] * np.random.default_rng(2).normal(0, 1, inputs.shape)
    return (inputs + blur).astype(np.float32), Truth(LABELS, inputs)


def test_an_autoencoder_reports_auc_of_its_reconstruction_errors(autoencoder):
    found = judge("anomaly").quality(*autoencoder)
    errors = ((autoencoder[0] - autoencoder[1].inputs) ** 2).mean(axis=(1, 2))
    assert (found.metric, found.direction, found.unit, found.n) == ("AUC", "higher", "%", 300)
    assert found.value == pytest.approx(100 * roc_auc_score(LABELS, errors))
    assert 60 < found.value < 99
    # DeLong's standard error of an AUC is at most 1 / (2 sqrt(smaller class))
    assert 1 < found.half_width < 100 * intervals.Z / (2 * min(np.bincount(LABELS)) ** 0.5)


def test_an_autoencoder_that_forgot_its_task_has_a_positive_drop(autoencoder):
    reference, truth = autoencoder
    blurred = reference + np.random.default_rng(3).normal(0, 3, reference.shape).astype("f4")
    found = judge("anomaly").drop(blurred, reference, truth)
    assert 0 < found.lower < found.value < found.upper


def test_an_autoencoder_is_held_against_its_preprocessed_inputs():
    raw = np.random.default_rng(4).integers(0, 255, (5, 4), np.uint8)
    steps = ({"step": "scale", "factor": 0.5},)
    split = Split(raw, np.array([0, 1, 0, 1, 0]), ("normal", "anomaly"), steps)
    truth = quality.truth_of(params.Task(kind="anomaly", metric="auc"), split)
    np.testing.assert_array_equal(truth.inputs, raw * np.float32(0.5))
    assert truth.labels.tolist() == [0, 1, 0, 1, 0]
    other = quality.truth_of(params.Task(kind="agreement", metric="top1"), split)
    assert (other.labels, other.inputs) == (None, None)


def test_a_net_that_says_one_score_is_judged_by_it():
    scores = (LABELS + NOISE[:, 0]).astype(np.float32)
    found = judge("anomaly").quality(scores[:, None], Truth(LABELS, np.zeros((300, 4), np.float32)))
    assert found.value == pytest.approx(100 * roc_auc_score(LABELS, scores))


def test_equal_scores_count_half():
    found = judge("anomaly").quality(np.ones((4, 1), np.float32), Truth(np.array([0, 1, 0, 1])))
    assert (found.value, found.half_width) == (50, 0)


def test_an_output_that_is_neither_score_nor_reconstruction_is_refused():
    truth = Truth(LABELS, np.zeros((300, 4), np.float32))
    with pytest.raises(DataError, match=r"input's shape \[4\] .* one value a sample, got \[2\]"):
        judge("anomaly").quality(VALUES, truth)


@pytest.mark.parametrize("label", [0, 1])
def test_auc_without_both_classes_is_refused(label):
    labels = np.full(4, label)
    with pytest.raises(DataError, match=rf"{4 * label} of 4 samples are anomalies; add the others"):
        judge("anomaly").quality(np.ones((4, 1), np.float32), Truth(labels))


def test_without_labels_quality_is_agreement_with_the_reference():
    reference, candidate = outputs([0, 1, 2, 2]), outputs([0, 1, 2, 1])
    truth = Truth(reference_outputs=reference)
    chosen = judge("agreement")
    found = chosen.quality(candidate, truth)
    assert (found.metric, found.value, found.unit) == ("top-1 agreement with fp32", 75, "%")
    assert chosen.quality(reference, truth).value == 100
    drop = chosen.drop(candidate, reference, truth)
    assert (drop.value, drop.num_discordant) == (25, 1)
    assert drop.upper > 25
    assert chosen.needs_reference
    assert not judge("classification").needs_reference


def test_agreement_of_a_single_value_would_always_be_complete_and_is_refused():
    values = np.ones((4, 1), np.float32)
    with pytest.raises(DataError, match=r"first output has one value; give labels"):
        judge("agreement").quality(values, Truth(reference_outputs=values))


def test_of_several_outputs_the_first_is_judged():
    several = structured.join({"scores": outputs([0, 1, 1]), "boxes": np.zeros((3, 4), np.float32)})
    found = judge("classification").quality(several, Truth(np.array([0, 1, 2])))
    assert found.value == pytest.approx(200 / 3)


@pytest.fixture
def make_metric(tmp_path, monkeypatch):
    """Write the user's metric into a project and give its judge."""

    def make(body, kind="regression", direction="lower", **fields):
        name = f"users_metric_{next(NUMBERS)}"
        path = tmp_path / f"{name}.py"
        path.write_text(f"import numpy as np\n\n\ndef score(outputs, labels):\n    {body}\n")
        monkeypatch.chdir(tmp_path)
        digest = fields.pop("digest", files.digest_file(path))
        return judge(
            kind, f"{name}:score", metric_digest=digest, direction=direction, **fields
        )  # fmt: skip

    return make


def test_a_users_metric_passes(make_metric):
    chosen = make_metric("return np.abs(outputs - labels).max(axis=1).mean()", unit="mm")
    found = chosen.quality(VALUES + 0.5 * NOISE, Truth(VALUES))
    assert (found.direction, found.unit, found.n) == ("lower", "mm", 300)
    assert found.metric.endswith(":score")
    assert found.value == pytest.approx(np.abs(0.5 * NOISE).max(axis=1).mean(), abs=1e-6)
    assert 0 < found.half_width < 0.1
    drop = chosen.drop(VALUES + 0.5 * NOISE, VALUES + 0.4 * NOISE, Truth(VALUES))
    assert 0 < drop.lower < drop.value < drop.upper


def test_a_metric_that_is_better_when_higher_has_its_drop_turned(make_metric):
    chosen = make_metric("return -np.abs(outputs - labels).mean()", direction="higher")
    drop = chosen.drop(VALUES + 0.5 * NOISE, VALUES + 0.4 * NOISE, Truth(VALUES))
    assert drop.lower > 0


def test_a_users_metric_is_called_with_arrays_a_few_hundred_times(make_metric):
    chosen = make_metric(
        "score.calls = getattr(score, 'calls', 0) + 1; "
        "assert (outputs.shape, labels.shape) == ((300, 2), (300,)); return float(score.calls)"
    )
    found = chosen.quality(VALUES, Truth(LABELS))
    assert found.value == 1
    assert found.half_width > 50
    assert quality.NUM_USERS_RESAMPLES == 200


def test_a_metric_of_classes_has_them_all_in_every_resample(make_metric):
    body = "assert set(labels.tolist()) == {0, 1, 2}; return np.mean(outputs.argmax(1) == labels)"
    chosen = make_metric(body, kind="classification", direction="higher")
    labels = np.array([0] * 20 + [1] * 20 + [2])  # an ordinary resample often lacks class 2
    assert chosen.quality(outputs(labels), Truth(labels)).value == 1


def test_a_metric_of_anomalies_gets_scores(make_metric, autoencoder):
    chosen = make_metric(
        "return outputs[labels == 1].mean() - outputs[labels == 0].mean()",
        kind="anomaly", direction="higher",
    )  # fmt: skip
    errors = metrics.reconstruction_scores(autoencoder[0], autoencoder[1].inputs)
    expected = errors[LABELS == 1].mean() - errors[LABELS == 0].mean()
    assert chosen.quality(*autoencoder).value == pytest.approx(expected)


def test_a_users_metric_gets_every_output(make_metric):
    several = structured.join({"a": VALUES, "b": NOISE})
    chosen = make_metric("return (outputs['b'] - labels).mean() + outputs['a'].sum() * 0")
    assert chosen.quality(several, Truth(NOISE)).value == 0
    moved = several.copy()
    moved["a"][7] += 1
    assert chosen.drop(moved, several, Truth(NOISE)).num_discordant == 1


def test_a_metric_cannot_spoil_the_outputs_of_the_next(make_metric):
    chosen = make_metric("outputs *= 0; labels *= 0; return 1.0")
    kept, labels = VALUES.copy(), VALUES.copy()
    chosen.quality(kept, Truth(labels))
    np.testing.assert_array_equal(kept, VALUES)
    np.testing.assert_array_equal(labels, VALUES)


BROKEN = {
    "raises": ("raise RuntimeError('no\\nluck')", "on 300 samples failed: RuntimeError: no luck"),
    "NaN": ("return float('nan')", r"gave nan \(float\) on 300 samples; .* a finite float"),
    "inf": ("return np.float32('inf')", r"gave np.float32\(inf\)"),
    "nothing": ("return None", r"gave None \(NoneType\)"),
    "an array": ("return np.zeros(2)", r"gave array\(\[0., 0.\]\) \(ndarray\)"),
    "a truth value": ("return True", r"gave True \(bool\)"),
    "leaves": ("raise SystemExit(3)", "failed: SystemExit: 3"),
}


@pytest.mark.parametrize(("body", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_metric_is_one_line(make_metric, body, message):
    with pytest.raises(MetricError, match=message) as caught:
        make_metric(body).quality(VALUES, Truth(VALUES))
    assert "\n" not in str(caught.value)
    assert "task.metric 'users_metric_" in str(caught.value)


def test_a_changed_metric_is_not_run(make_metric):
    with pytest.raises(InputsError, match=r"task.metric.*slipway inputs lock"):
        make_metric("raise AssertionError", digest="sha256:" + "0" * 64)


def test_a_missing_metric_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetricError, match=r"task.metric 'nowhere:score': there is no module"):
        judge("regression", "nowhere:score", metric_digest="sha256:" + "0" * 64, direction="lower")
