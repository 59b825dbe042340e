"""Answers of every shape (tests/report_samples.py), and a report of all of them."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

SAMPLES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "report_samples.py")))


@pytest.fixture(scope="session")
def samples():
    return SAMPLES
