import io
import json

import pytest
import torch
from rich.console import Console

from pipeline.compression import figures
from pipeline.training.loop import Tensors

BIG = figures.Figures(77418, 12206720, 309672, 99.6)
SMALL = figures.Figures(19642, 3088704, 78568, 98.94)

COUNTS = {
    "below a thousand": (999, "", "999"),
    "thousands": (77418, "", "77.4 k"),
    "nearly a million is a million": (999_600, "", "1.00 M"),
    "bytes": (309672, "B", "310 kB"),
    "few bytes": (12, "B", "12 B"),
    "milliards": (2_500_000_000, "", "2.50 G"),
}


@pytest.mark.parametrize(("value", "unit", "expected"), COUNTS.values(), ids=COUNTS)
def test_counts_are_short(value, unit, expected):
    assert figures.scaled(value, unit) == expected


def test_measure_counts_and_judges(residual, images):
    with torch.no_grad():
        labels = residual(images).argmax(1)
    labels[:10] = (labels[:10] + 1) % 3
    found = figures.measure(residual, (1, 6, 6), Tensors(images, labels))
    assert found.quality == 75
    assert found.macs == 36 * 9 * (16 + 2 * 16 * 32) + 16 * 9 * 3
    assert found.size_bytes == 4 * found.parameters


def test_metrics_hold_after_before_and_more(tmp_path):
    path = tmp_path / "metrics" / "prune.json"
    figures.write(path, {"first": (None, BIG), "next": (BIG, SMALL)}, {"next": {"winner": "x"}})
    found = json.loads(path.read_text())
    assert found["first"]["macs"] == 12206720
    assert "macs_before" not in found["first"]
    assert found["next"]["validation_accuracy"] == 98.94
    assert found["next"]["validation_accuracy_before"] == 99.6
    assert found["next"]["winner"] == "x"


def test_the_table_shows_what_changed_and_only_that():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(figures.table({"dense": (BIG, BIG), "pruned": (BIG, SMALL), "new": (None, BIG)}))
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["dense", "pruned", "new"]
    assert "->" not in lines[1] + lines[3]
    assert "77.4 k -> 19.6 k" in lines[2]
    assert "12.2 M -> 3.09 M" in lines[2]
    assert "99.6 % -> 98.9 %" in lines[2]


def test_costs_in_one_line():
    assert figures.costs(BIG, SMALL) == "MACs 12.2 M -> 3.09 M   parameters 77.4 k -> 19.6 k"
