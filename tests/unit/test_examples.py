"""Example params in docs/: valid, and pinned to the data that they name."""

from pathlib import Path

import pytest

from pipeline import files, params

EXAMPLES = sorted((Path(__file__).parents[2] / "docs/examples").glob("*.params.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_no_problem(path):
    found, problems = params.parse(path)
    assert problems == []
    assert found is not None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_its_data_are_what_it_pins(path, data_path):
    data = params.load(path).data
    _, _, below = str(data.path).partition("shared/data/")
    assert files.digest_file(data_path / below) == data.digest


def test_there_are_examples():
    assert [path.name for path in EXAMPLES] == ["fsdd.params.yaml"]
