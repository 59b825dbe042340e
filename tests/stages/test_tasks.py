"""Tasks other than classification go through train, prune, distill, quantize and export."""

import json

import msgspec
import numpy as np
import pytest

from pipeline import files, manifest, params
from pipeline.chain import export
from pipeline.data import splits
from pipeline.errors import DataError
from pipeline.nets import store

STEPS = ({"step": "channels_first"},)
SIZES = {"train": 96, "validation": 60, "calibration": 16}
SLOPES = np.linspace(-1, 1, 16, dtype=np.float32)


def anomalies(rng, num_samples):
    """Normal samples are multiples of one picture; every third is an anomaly, which is noise."""
    labels = (np.arange(num_samples) % 3 == 2).astype(np.int64)
    inputs = rng.standard_normal((num_samples, 1)).astype(np.float32) * SLOPES
    noise = rng.standard_normal((num_samples, 16)).astype(np.float32)
    return np.where(labels[:, None] == 1, noise, inputs), labels


def lines(rng, num_samples):
    """Two numbers to regress to: the slope along the picture, and its mean."""
    inputs = rng.standard_normal((num_samples, 16)).astype(np.float32)
    return inputs, np.stack([inputs @ SLOPES, inputs.mean(1)], axis=1).astype(np.float32)


TASKS = {
    "anomaly": (anomalies, params.Net(name="autoencoder"), "auc", ("normal", "odd")),
    "regression": (lines, None, "mae", ()),
}


@pytest.fixture(params=TASKS)
def project(request, tiny_project):
    """`tiny_project` with another task, its data and a net for it: (project, params, metric)."""
    make, net, metric, names = TASKS[request.param]
    rng = np.random.default_rng(0)
    for name, num_samples in SIZES.items():
        inputs, labels = make(rng, num_samples)
        split = splits.Split(inputs.reshape(-1, 4, 4, 1), labels, names, STEPS)
        splits.write(tiny_project.models / "data" / f"{name}.npz", split)
    p = msgspec.structs.replace(
        tiny_project.p,
        task=params.Task(kind=request.param, metric=metric),
        net=net or tiny_project.p.net,
        train=msgspec.structs.replace(tiny_project.p.train, epochs=20, patience=20),
    )
    return tiny_project, p, metric


def test_metrics_are_named_for_the_task_and_say_that_it_learned(project):
    tiny, p, metric = project
    figures = tiny.run("train", p).metrics["teacher"]
    assert set(figures) == {"parameters", "macs", "size_bytes", f"validation_{metric}"}
    found = figures[f"validation_{metric}"]
    assert found > 90 if metric == "auc" else found < 0.5
    tiny.run("prune", p)
    recovered = tiny.run("distill", p).metrics["pruned"]
    assert {f"distilled_{metric}", f"fine_tuned_{metric}", "winner"} <= set(recovered)
    both = recovered[f"distilled_{metric}"], recovered[f"fine_tuned_{metric}"]
    better = max(both) if metric == "auc" else min(both)
    assert recovered[f"validation_{metric}"] == pytest.approx(better)
    sign = 1 if metric == "auc" else -1
    assert recovered["difference"] == pytest.approx(sign * (both[0] - both[1]))
    assert recovered["difference_lower"] <= recovered["difference"]
    quantized = tiny.run("quantize", p)
    scores = json.loads((quantized.out / "pruned/sensitivity.json").read_text())
    assert {score["top1_agreement"] for score in scores} == {None}
    assert "lowest_top1_agreement" not in quantized.metrics["pruned"]
    assert quantized.metrics["pruned"]["lowest_sqnr_db"] == scores[0]["sqnr_db"]


def test_the_pruned_net_exports_and_two_runs_give_the_same_bytes(project):
    tiny, p, _ = project
    for name in ("train", "prune", "distill", "quantize"):
        tiny.run(name, p)
    first = tiny.models / "quantized"
    stored = store.load(first / "pruned")
    assert stored.num_classes == (16 if p.task.kind == "anomaly" else 2)
    validation = tiny.models / "data/validation.npz"
    export.run(validation, first, tiny.models / "exported", tiny.root / "export.json", p)
    for name in ("trained", "pruned", "distilled"):
        (tiny.models / name).rename(tiny.root / name)
    again = tiny.run("train", p).out
    assert manifest.read(again) == manifest.read(tiny.root / "trained")
    tiny.run("prune", p)
    assert manifest.read(tiny.run("distill", p).out) == manifest.read(tiny.root / "distilled")


def test_curves_are_named_for_the_metric(project):
    tiny, p, metric = project
    curves = tiny.models / "training"
    tiny.run("train", p, live=curves)
    names = {path.stem for path in (curves / "plots/metrics").iterdir()}
    assert names == {"loss", "validation_loss", f"validation_{metric}", "learning_rate"}


def test_pruning_by_the_loss_of_the_task(project):
    tiny, p, _ = project
    by_loss = msgspec.structs.replace(p.prune["half"], criterion="taylor")
    tiny.run("train", p)
    tiny.run("prune", p)
    by_size = files.digest_file(tiny.models / "pruned/pruned/weights.safetensors")
    (tiny.models / "pruned").rename(tiny.root / "by-size")
    out = tiny.run("prune", msgspec.structs.replace(p, prune={"half": by_loss})).out
    assert files.digest_file(out / "pruned/weights.safetensors") != by_size


def test_an_augmented_recipe_says_so_and_a_plain_one_keeps_its_words(tiny_project):
    noisy = msgspec.structs.replace(
        tiny_project.p.train, augmentation=params.Augmentation(noise_std=0.1)
    )
    changed = msgspec.structs.replace(tiny_project.p, train=noisy)
    found = manifest.read(tiny_project.run("train", changed).out)
    assert found.params["train"]["augmentation"]["noise_std"] == 0.1
    first = found.files["weights.safetensors"]
    (tiny_project.models / "trained").rename(tiny_project.root / "noisy")
    plain = manifest.read(tiny_project.run("train").out)
    assert "augmentation" not in plain.params["train"]
    assert plain.files["weights.safetensors"] != first


def test_distilling_with_augmentation_asks_the_teacher_about_the_changed_samples(tiny_project):
    for stage in ("train", "prune"):
        tiny_project.run(stage)
    noisy = msgspec.structs.replace(
        tiny_project.p.distill["recover"], augmentation=params.Augmentation(noise_std=0.1)
    )
    found = tiny_project.run(
        "distill", msgspec.structs.replace(tiny_project.p, distill={"recover": noisy})
    )
    assert found.metrics["pruned"]["validation_accuracy"] > 85


def test_anomaly_detection_without_anomalies_in_validation_is_refused(tiny_project):
    data = tiny_project.models / "data"
    for name in SIZES:
        split = splits.read(data / f"{name}.npz")
        inputs = np.asarray(split.inputs)
        normal = splits.Split(inputs, np.zeros(len(inputs), np.int64), ("normal", "odd"), STEPS)
        splits.write(data / f"{name}.npz", normal)
    p = msgspec.structs.replace(
        tiny_project.p,
        task=params.Task(kind="anomaly", metric="auc"),
        net=params.Net(name="autoencoder"),
    )
    with pytest.raises(DataError, match="judged on normal samples and on anomalies, got 40"):
        tiny_project.run("train", p)
