"""Raw input to tensor, as declarative steps in numpy: the same code on the host and on the device.

Axes: N samples, then those of one raw sample (H height, W width, C channel; T time of a waveform).
Of a net with several inputs the samples are a structured array [N] with a field an input.
"""

from typing import Any, Callable, Dict, Mapping, Sequence, Union

import numpy as np

from pipeline.runtimes import structured
from pipeline.runtimes.errors import RunnerError

Array = Any  # np.ndarray; NDArray's parameters differ between the numpys of old boards
Steps = Sequence[Mapping[str, Any]]

MIN_SAMPLE_RATE_HZ = 1000  # the mel filters start at 20 Hz and need room below half the rate
MIN_FRAME = 16  # samples; kaldi-native-fbank crashes at one
MIN_MEL_BINS = 3


def apply_all(steps: Union[Steps, Mapping[str, Steps]], batch: Array) -> Array:
    """Apply one list of steps to a plain array, or a mapping of them to a structured one."""
    return apply_named(steps, batch) if isinstance(steps, Mapping) else apply(steps, batch)


def apply_named(steps_by_input: Mapping[str, Steps], batch: Array) -> Array:
    """Apply each input's own steps to its field of raw samples, a structured array [N].

    Args:
        steps_by_input: a list of steps a field, maybe an empty one, as `apply` takes them.
        batch: raw samples with one field an input, never changed.

    Returns:
        A structured array [N] with the same fields in the same order, each float32.

    Raises:
        RunnerError: fields and steps have other names, or as `apply`; names the input.
    """
    names = batch.dtype.names or ()
    if set(names) != set(steps_by_input):
        raise RunnerError(
            "the samples have inputs {}, data.preprocessing has steps for {}; "
            "give each input a list of steps".format(sorted(names), sorted(steps_by_input))
        )
    tensors = {name: _apply_input(name, steps_by_input[name], batch[name]) for name in names}
    return structured.join(tensors)


def _apply_input(name: str, steps: Steps, batch: Array) -> Array:
    try:
        return apply(steps, batch)
    except RunnerError as error:
        raise RunnerError("input {!r}: {}".format(name, error)) from error


def apply(steps: Steps, batch: Array) -> Array:
    """Apply the steps in order to raw samples [N, ...] and return C-contiguous float32 [N, ...].

    Args:
        steps: mappings such as ``{"step": "scale", "factor": 0.0625}``, as a manifest holds them.
        batch: raw samples of any real dtype, never changed.

    Raises:
        RunnerError: a step is unknown, lacks a setting, or does not fit the shape it is given.
    """
    if batch.dtype.names:
        raise RunnerError(
            "the samples have several inputs ({}); give data.preprocessing a list of steps for "
            "each, by its name".format(", ".join(batch.dtype.names))
        )
    tensor = np.array(batch, dtype=np.float32)
    for position, step in enumerate(steps):
        name = step.get("step")
        where = "preprocessing step {} ({})".format(position + 1, name)
        if name not in STEPS:
            raise RunnerError(
                "{} is not known; allowed: {}".format(where, ", ".join(sorted(STEPS)))
            )
        settings = {key: value for key, value in step.items() if key != "step"}
        try:
            tensor = STEPS[name](tensor, **settings)
        except (TypeError, ValueError) as error:
            raise RunnerError(
                "{}: {}, got a batch of shape {}; mend data.preprocessing".format(
                    where, error, tensor.shape
                )
            ) from error
    return np.ascontiguousarray(tensor, dtype=np.float32)


def scale(tensor: Array, factor: float) -> Array:
    """Multiply by the factor."""
    return tensor * np.float32(factor)


def normalize(tensor: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Return (tensor - mean) / std, with one value for all or one an entry of the last axis."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, tensor.shape[-1]):
            raise ValueError(
                "{} must hold 1 or {} values, holds {}".format(name, tensor.shape[-1], len(values))
            )
    return (tensor - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def resize(tensor: Array, height: int, width: int) -> Array:
    """Resize [N, H, W] or [N, H, W, C] bilinearly: half-pixel centres, edges clamped, no antialias.

    Equal to torch's ``F.interpolate(mode="bilinear", align_corners=False)`` but for last digits.
    """
    if tensor.ndim not in (3, 4):
        raise ValueError("needs height and width, and at most a channel behind them")
    return _resize_axis(_resize_axis(tensor, 1, height), 2, width)


def _resize_axis(tensor: Array, axis: int, size: int) -> Array:
    old_size = tensor.shape[axis]
    if size == old_size:
        return tensor
    centre = (np.arange(size) + 0.5) * old_size / size - 0.5
    centre = centre.clip(0, old_size - 1)
    lower = np.floor(centre).astype(np.intp)
    upper = np.minimum(lower + 1, old_size - 1)
    weight_shape = [1] * tensor.ndim
    weight_shape[axis] = size
    weight = (centre - lower).astype(np.float32).reshape(weight_shape)
    return tensor.take(lower, axis) * (1 - weight) + tensor.take(upper, axis) * weight


def add_channel(tensor: Array) -> Array:
    """Append an axis of size one."""
    return tensor[..., np.newaxis]


def channels_first(tensor: Array) -> Array:
    """Turn [N, H, W, C] into [N, C, H, W]."""
    if tensor.ndim != 4:
        raise ValueError("needs height, width, channel; put add_channel before it")
    return tensor.transpose(0, 3, 1, 2)


def channels_last(tensor: Array) -> Array:
    """Turn [N, C, H, W] into [N, H, W, C]; converters append it for files that take that."""
    if tensor.ndim != 4:
        raise ValueError("needs channel, height, width")
    return tensor.transpose(0, 2, 3, 1)


def mfcc(
    tensor: Array,
    sample_rate_hz: int,
    num_coefficients: int,
    num_mel_bins: int,
    frame_length_ms: float,
    frame_shift_ms: float,
) -> Array:
    """Turn waveforms [N, T] into cepstral coefficients [N, frame, coefficient].

    Kaldi's MFCC: frames that lie wholly inside the waveform, 1 + (T - length) // shift of them; no
    dither; coefficient 0 is the mean of the log mel energies, not the frame's own energy.
    """
    try:
        import kaldi_native_fbank
    except ImportError as error:
        raise RunnerError(
            "preprocessing step mfcc needs kaldi-native-fbank, which is not installed here; "
            "pip install 'slipway[audio]'"
        ) from error
    if tensor.ndim != 2:
        raise ValueError("needs one axis, time")
    # as the library rounds: it holds milliseconds as float32
    length = int(sample_rate_hz * 0.001 * float(np.float32(frame_length_ms)))
    shift = int(sample_rate_hz * 0.001 * float(np.float32(frame_shift_ms)))
    num_frames = 1 + (tensor.shape[1] - length) // max(shift, 1)
    # the library ends the process where a setting makes no sense, so none of these reaches it
    if sample_rate_hz < MIN_SAMPLE_RATE_HZ:
        raise ValueError("sample_rate_hz must be at least {}".format(MIN_SAMPLE_RATE_HZ))
    if length < MIN_FRAME or shift < 1 or num_frames < 1:
        raise ValueError(
            "frames of {} samples, one every {}, must hold {} at least and fit".format(
                length, shift, MIN_FRAME
            )
        )
    if not max(MIN_MEL_BINS, num_coefficients) <= num_mel_bins <= length:
        raise ValueError(
            "num_mel_bins must be at least {} and num_coefficients, at most {}".format(
                MIN_MEL_BINS, length
            )
        )
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.samp_freq = sample_rate_hz
    options.frame_opts.frame_length_ms = frame_length_ms
    options.frame_opts.frame_shift_ms = frame_shift_ms
    options.frame_opts.dither = 0  # noise: equal samples would differ
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = num_mel_bins
    options.num_ceps = num_coefficients
    options.use_energy = False
    found = np.empty((len(tensor), num_frames, num_coefficients), np.float32)
    for index, waveform in enumerate(tensor):
        computer = kaldi_native_fbank.OnlineMfcc(options)
        computer.accept_waveform(sample_rate_hz, waveform.tolist())
        computer.input_finished()
        assert computer.num_frames_ready == num_frames
        for frame in range(num_frames):
            found[index, frame] = computer.get_frame(frame)
    return found


def center(tensor: Array) -> Array:
    """Subtract from each sample [T, ...] its own mean over T."""
    if tensor.ndim < 3:
        raise ValueError("needs an axis behind the first; put it behind mfcc")
    return tensor - tensor.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)


STEPS: Dict[str, Callable[..., Array]] = {
    "scale": scale,
    "normalize": normalize,
    "resize": resize,
    "add_channel": add_channel,
    "channels_first": channels_first,
    "channels_last": channels_last,
    "mfcc": mfcc,
    "center": center,
}
