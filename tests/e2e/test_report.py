"""The report of a project that really ran, and DVC's own views of its figures."""

import json
import re

import pytest

pytestmark = pytest.mark.slow
TARGETS = ("x86-onnxruntime", "x86-litert")


def test_the_page_shows_every_target_with_the_evidence_behind_it(built):
    said = built.slipway("report").stdout
    assert "models/report/report.html" in said
    page = (built.path / "models/report/report.html").read_text(encoding="utf-8")
    for target in TARGETS:
        assert f'id="target-{target}"' in page
        assert f"Latency distributions: {target}" in page
        assert f"register@{target}" in page, "the lineage reaches what is released"
    for title in ("Sensitivity of each layer", "Loss", "Against fp32 of the same variant"):
        assert title in page
    stages = ("prepare", "train", "prune", "distill", "quantize", "export", "convert@x86-litert")
    assert all(re.search(rf">{stage}<", page) for stage in stages)
    assert "not here: from outside" not in page, "every digest leads to an output"


def test_dvc_compares_metrics_between_revisions(built):
    assert built.dvc("metrics", "show").returncode == 0
    path = built.path / "models/metrics/train.json"
    metrics = json.loads(path.read_text())
    was = metrics["teacher"]["validation_accuracy"]
    metrics["teacher"]["validation_accuracy"] = 12.5
    path.unlink()  # may be a link into DVC's cache
    path.write_text(json.dumps(metrics))
    difference = json.loads(built.dvc("metrics", "diff", "--json").stdout)
    changed = difference["models/metrics/train.json"]["teacher.validation_accuracy"]
    assert (changed["new"], round(changed["old"], 6)) == (12.5, round(was, 6))


def test_dvc_draws_the_training_curves(built, tmp_path):
    built.dvc("plots", "show", "--out", tmp_path / "plots")
    page = (tmp_path / "plots/index.html").read_text(encoding="utf-8")
    assert "Training and validation loss" in page
    assert "Validation accuracy, %" in page
