"""Preprocessing: known values, torch as the oracle of resize, and each refusal."""

import sys

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import params, preprocessing
from pipeline.runtimes import structured
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
    "normalize by one value a coefficient": (
        {"step": "normalize", "mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 4.0]},
        [[[1, 3, 6], [2, 1, 2]]],
        [[[1, 1, 1], [2, 0, 0]]],
    ),
    "center takes each line's own mean over the first axis": (
        {"step": "center"},
        [[[1, 10], [3, 30]], [[5, 0], [5, 2]]],
        [[[-1, -10], [1, 10]], [[0, -1], [0, 1]]],
    ),
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
    "center of a signal": ({"step": "center"}, r"step 1 \(center\): needs an axis behind"),
    "channels_first without channel": (
        {"step": "channels_first"},
        "needs height, width, channel; put add_channel before it",
    ),
}


@pytest.mark.parametrize(("step", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(step, message):
    with pytest.raises(RunnerError, match=message):
        preprocessing.apply([step], np.zeros((1, 2)))


KWS = {
    "step": "mfcc",
    "sample_rate_hz": 8000,
    "num_coefficients": 10,
    "num_mel_bins": 40,
    "frame_length_ms": 40.0,
    "frame_shift_ms": 20.0,
}


def numpy_mfcc(waveform):
    """Kaldi's MFCC with the settings of `KWS`, written down again: [frame, coefficient]."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), 320)[::160]
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 319)) ** 0.85
    power = np.abs(np.fft.rfft(frames * povey, 512)) ** 2
    low, high = (1127 * np.log(1 + hz / 700) for hz in (20, 4000))
    edges = np.linspace(low, high, 42)
    bins = 1127 * np.log(1 + np.arange(256) * 8000 / 512 / 700)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    mel = np.log(power[:, :256] @ np.clip(np.minimum(rising, falling), 0, None).T)
    k, n = np.arange(10)[:, None], np.arange(40)
    dct = np.sqrt(2 / 40) * np.cos(np.pi * k * (n + 0.5) / 40)
    dct[0] = np.sqrt(1 / 40)
    return mel @ dct.T * (1 + 11 * np.sin(np.pi * np.arange(10) / 22))


def test_mfcc_are_those_of_kaldi():
    waveforms = (np.random.default_rng(0).standard_normal((2, 8000)) * 1000).astype(np.int16)
    found = preprocessing.apply([KWS], waveforms)
    assert found.shape == (2, 49, 10)  # as MLPerf Tiny's keyword spotting has them
    for waveform, coefficients in zip(waveforms, found, strict=True):
        # float32 sums of 512 products of a large range
        np.testing.assert_allclose(coefficients, numpy_mfcc(waveform), rtol=1e-4, atol=5e-3)


def test_mfcc_of_a_sample_are_the_same_alone_and_again():
    batch = np.random.default_rng(0).integers(-9000, 9000, (3, 8000), np.int16)
    steps = [KWS, {"step": "add_channel"}, {"step": "channels_first"}]
    together = preprocessing.apply(steps, batch)
    assert together.shape == (3, 1, 49, 10)
    assert np.array_equal(together[1:2], preprocessing.apply(steps, batch[1:2]))
    assert preprocessing.apply(steps, batch[:0]).shape == (0, 1, 49, 10)


NO_MFCC = {
    "an image": ({}, (1, 8, 8), "needs one axis, time"),
    "a waveform shorter than a frame": ({}, (1, 319), "frames of 320 samples, one every 160, must"),
    "a frame of two samples": ({"frame_length_ms": 0.3}, (1, 8000), "must hold 16 at least"),
    "no shift": ({"frame_shift_ms": 0.01}, (1, 8000), "one every 0"),
    "more coefficients than bins": ({"num_coefficients": 41}, (1, 8000), "num_mel_bins must be at"),
    "more bins than samples": ({"num_mel_bins": 400}, (1, 8000), "at most 320"),
    "a tiny sample rate": ({"sample_rate_hz": 30}, (1, 8000), "must be at least 1000"),
}


@pytest.mark.parametrize(("changes", "shape", "message"), NO_MFCC.values(), ids=NO_MFCC)
def test_settings_that_would_end_the_process_are_one_line(changes, shape, message):
    with pytest.raises(RunnerError, match=message):
        preprocessing.apply([{**KWS, **changes}], np.zeros(shape))


def test_mfcc_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaldi_native_fbank", None)
    with pytest.raises(RunnerError, match=r"needs kaldi-native-fbank.*slipway\[audio\]"):
        preprocessing.apply([KWS], np.zeros((1, 8000)))


def test_each_of_several_inputs_has_its_own_steps():
    raw = structured.join(
        {"sound": np.full((2, 4), 3, np.int16), "picture": np.ones((2, 5, 6), np.uint8)}
    )
    steps = {"picture": [{"step": "add_channel"}], "sound": [{"step": "scale", "factor": 0.5}]}
    found = preprocessing.apply_all(steps, raw)
    assert found.dtype.names == ("sound", "picture")  # the samples' order
    assert found["sound"].tolist() == [[1.5] * 4] * 2
    assert found["picture"].shape == (2, 5, 6, 1)
    assert found["picture"].dtype == np.float32
    plain = preprocessing.apply_all([{"step": "scale", "factor": 2.0}], np.ones((1, 2)))
    assert plain.tolist() == [[2, 2]]


def test_inputs_and_steps_of_other_names_are_refused():
    raw = structured.join({"a": np.zeros((1, 2)), "b": np.zeros((1, 2))})
    with pytest.raises(RunnerError, match=r"inputs \['a', 'b'\].* steps for \['a', 'c'\]"):
        preprocessing.apply_all({"a": [], "c": []}, raw)
    with pytest.raises(RunnerError, match=r"input 'b': preprocessing step 1 \(channels_first\)"):
        preprocessing.apply_all({"a": [], "b": [{"step": "channels_first"}]}, raw)


def test_every_step_of_params_is_known():
    tags = {kind.__struct_config__.tag for kind in params.Step.__args__}
    of_converters = {"channels_last"}  # for files that take another layout than the export
    assert tags | of_converters == preprocessing.STEPS.keys()
