"""Raw input to tensor, as declarative steps in numpy: the same code on the host and on the device.

Axes: N samples, then those of one raw sample (H height, W width, C channel).
"""

from typing import Any, Callable, Dict, Mapping, Sequence

import numpy as np

from pipeline.runtimes.errors import RunnerError

Array = Any  # np.ndarray; NDArray's parameters differ between the numpys of old boards


def apply(steps: Sequence[Mapping[str, Any]], batch: Array) -> Array:
    """Apply the steps in order to raw samples [N, ...] and return C-contiguous float32 [N, ...].

    Args:
        steps: mappings such as ``{"step": "scale", "factor": 0.0625}``, as a manifest holds them.
        batch: raw samples of any real dtype, never changed.

    Raises:
        RunnerError: a step is unknown, lacks a setting, or does not fit the shape it is given.
    """
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


STEPS: Dict[str, Callable[..., Array]] = {
    "scale": scale,
    "normalize": normalize,
    "resize": resize,
    "add_channel": add_channel,
    "channels_first": channels_first,
}
