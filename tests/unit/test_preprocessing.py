"""Preprocessing: known values, torch as the oracle of resize, and each refusal."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import params, preprocessing
from pipeline.runtimes.errors import RunnerError

RESIZE_TOLERANCE = 2e-6  # float32 sums of up to 4 products of values in 0..1, in another order

KNOWN = {
    "scale multiplies": ({"step": "scale", "factor": 0.0625}, [[0, 8, 16]], [[0, 0.5, 1]]),
    "normalize by one value": (
        {"step": "normalize", "mean": [2.0], "std": [4.0]},
        [[0, 2, 10]],
        [[-0.5, 0, 2]],
    ),
    "normalize by one value a channel": (
        {"step": "normalize", "mean": (0.0, 2.0), "std": (1.0, 4.0)},
        [[[5, 6], [7, 2]]],
        [[[5, 1], [7, 0]]],
    ),
    "resize doubles with half-pixel centres": (
        {"step": "resize", "height": 1, "width": 4},
        [[[0, 1]]],
        [[[0, 0.25, 0.75, 1]]],
    ),
    "resize clamps at the edges": (
        {"step": "resize", "height": 3, "width": 1},
        [[[7]]],
        [[[7], [7], [7]]],
    ),
    "add_channel appends an axis": ({"step": "add_channel"}, [[1, 2]], [[[1], [2]]]),
    "channels_first moves the last axis": (
        {"step": "channels_first"},
        [[[[1, 2], [3, 4], [5, 6]]]],
        [[[[1, 3, 5]], [[2, 4, 6]]]],
    ),
}


@pytest.mark.parametrize(("step", "raw", "expected"), KNOWN.values(), ids=KNOWN)
def test_known_values(step, raw, expected):
    tensor = preprocessing.apply([step], np.array(raw, np.uint8))
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 12)] * 2),
    new_size=st.tuples(*[st.integers(1, 40)] * 2),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_resize_equals_torch(size, new_size, channels, seed):
    batch = np.random.default_rng(seed).random((2, *size, channels), np.float32)
    step = {"step": "resize", "height": new_size[0], "width": new_size[1]}
    found = preprocessing.apply([step], batch)
    oracle = torch.nn.functional.interpolate(
        torch.from_numpy(batch).permute(0, 3, 1, 2),
        size=new_size,
        mode="bilinear",
        align_corners=False,
    ).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, oracle.numpy(), rtol=0, atol=RESIZE_TOLERANCE)


def test_resize_takes_samples_with_and_without_channel_alike():
    batch = np.random.default_rng(0).random((2, 5, 6), np.float32)
    step = {"step": "resize", "height": 9, "width": 4}
    with_channel = preprocessing.apply([step], batch[..., None])
    assert np.array_equal(preprocessing.apply([step], batch), with_channel[..., 0])


def test_steps_run_in_order_as_params_encode_them():
    steps = msgspec.to_builtins(
        (
            params.Scale(factor=0.5),
            params.Resize(height=4, width=6),
            params.AddChannel(),
            params.Normalize(mean=(1.0,), std=(2.0,)),
            params.ChannelsFirst(),
        )
    )
    tensor = preprocessing.apply(steps, np.full((3, 8, 8), 10))
    assert tensor.shape == (3, 1, 4, 6)
    assert np.unique(tensor).tolist() == [2.0]  # (10 * 0.5 - 1) / 2


def test_no_steps_give_a_float32_copy():
    batch = np.ones((2, 3), np.float32)
    tensor = preprocessing.apply((), batch)
    tensor[0, 0] = 5
    assert batch[0, 0] == 1


def test_each_sample_is_preprocessed_on_its_own():
    steps = [{"step": "scale", "factor": 0.1}, {"step": "resize", "height": 7, "width": 5}]
    batch = np.random.default_rng(1).random((4, 3, 3), np.float32)
    together = preprocessing.apply(steps, batch)
    alone = np.concatenate([preprocessing.apply(steps, batch[i : i + 1]) for i in range(4)])
    assert np.array_equal(together, alone)


REFUSED = {
    "an unknown step": (
        {"step": "rotate"},
        r"step 1 \(rotate\) is not known; allowed: add_channel",
    ),
    "a step without a name": ({"factor": 2}, r"step 1 \(None\) is not known"),
    "a missing setting": ({"step": "scale"}, r"step 1 \(scale\): .*'factor'"),
    "an unknown setting": (
        {"step": "add_channel", "axis": 1},
        r"\(add_channel\): .*unexpected keyword argument 'axis'",
    ),
    "too many means": (
        {"step": "normalize", "mean": [0, 0, 0], "std": [1]},
        r"mean must hold 1 or 2 values, holds 3, got a batch of shape \(1, 2\)",
    ),
    "resize of a signal": (
        {"step": "resize", "height": 2, "width": 2},
        "needs height and width.*mend data.preprocessing",
    ),
    "channels_first without channel": (
        {"step": "channels_first"},
        "needs height, width, channel; put add_channel before it",
    ),
}


@pytest.mark.parametrize(("step", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(step, message):
    with pytest.raises(RunnerError, match=message):
        preprocessing.apply([step], np.zeros((1, 2)))


def test_every_step_of_params_is_known():
    tags = {kind.__struct_config__.tag for kind in params.Step.__args__}
    assert tags == preprocessing.STEPS.keys()
