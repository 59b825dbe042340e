import numpy as np
import pytest

from pipeline import params
from pipeline.data.samples import Samples


@pytest.fixture
def data_cfg():
    """Settings of the data section, some replaced: `data_cfg(seed=3)`."""

    def make(**changes):
        fields = {
            "source": "digits",
            "seed": 0,
            "train_ratio": 0.5,
            "validation_ratio": 0.25,
            "num_calibration": 2,
        }
        return params.Data(**{**fields, **changes})

    return make


@pytest.fixture
def few_samples():
    """40 distinct samples of two values, 20 of each class."""
    inputs = np.arange(80, dtype=np.float32).reshape(40, 2)
    return Samples(inputs, np.arange(40) % 2, ("even", "odd"))


@pytest.fixture
def npz_file(tmp_path):
    """Write a small valid .npz, some arrays replaced (None leaves one out); returns its path."""

    def write(**changes):
        arrays = {
            "inputs": np.arange(48, dtype=np.float32).reshape(16, 3),
            "labels": np.arange(16) % 2,
        }
        arrays.update(changes)
        path = tmp_path / "samples.npz"
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
        return path

    return write
