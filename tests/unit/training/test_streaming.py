"""Streamed inputs: the same bits as those in memory, a batch at a time."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data import splits
from pipeline.data.splits import Split
from pipeline.training import loop
from pipeline.training.loop import Tensors
from pipeline.training.streaming import Streamed

STEPS = (
    {"step": "scale", "factor": 1 / 255},
    {"step": "resize", "height": 9, "width": 7},
    {"step": "channels_first"},
)


@pytest.fixture
def path(tmp_path):
    """A split of 150 pictures in a file."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (150, 5, 6, 3), np.uint8)
    split = Split(inputs, np.arange(150) % 3, ("a", "b", "c"), STEPS)
    splits.write(tmp_path / "train.npz", split)
    return tmp_path / "train.npz"


def both(path):
    split = splits.read(path)
    return Tensors.of_split(split), Tensors.of_split(split, in_memory_bytes=0)


def test_many_are_streamed_and_few_are_not(path):
    split = splits.read(path)
    num_bytes = 150 * 3 * 9 * 7 * 4
    assert isinstance(Tensors.of_split(split, num_bytes).inputs, torch.Tensor)
    assert isinstance(Tensors.of_split(split, num_bytes - 1).inputs, Streamed)


def test_each_way_to_ask_gives_the_same_bits(path):
    whole, streamed = (tensors.inputs for tensors in both(path))
    assert streamed.shape == whole.shape == (150, 3, 9, 7)
    assert len(streamed) == 150
    order = torch.randperm(150)[:40]
    assert torch.equal(streamed[order], whole[order])
    assert torch.equal(streamed[64:128], whole[64:128])
    assert torch.equal(streamed[:0], whole[:0])
    chosen = torch.arange(150) % 4 == 1
    assert torch.equal(streamed.select(chosen)[5:9], whole[chosen][5:9])
    assert np.array_equal(streamed.numpy(), whole.numpy())


def trained(tensors, settings):
    with loop.deterministic(3):
        net = nn.Sequential(nn.Flatten(), nn.Linear(189, 8), nn.ReLU(), nn.Linear(8, 3))
    fit = loop.fit(net, tensors, tensors, settings(epochs=3), 0)
    return fit, net.state_dict()


def test_training_gives_the_same_bytes(path, settings):
    (first, weights), (second, others) = (trained(tensors, settings) for tensors in both(path))
    assert first == second
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_batch_takes_the_memory_of_a_batch(tmp_path):
    inputs = np.ones((2000, 64, 64, 3), np.uint8)  # 24 MB, as tensors 98 MB
    split = Split(inputs, np.zeros(2000, np.int64), ("a",), ({"step": "channels_first"},))
    splits.write(tmp_path / "train.npz", split)
    tensors = Tensors.of_split(splits.read(tmp_path / "train.npz"), in_memory_bytes=0)
    tracemalloc.start()
    try:
        for batch in loop.batches(tensors.inputs):
            assert batch[0, 0, 0, 0] == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # 64 samples are 3 MB as tensors
    finally:
        tracemalloc.stop()
