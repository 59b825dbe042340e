"""Random changes of training samples, drawn anew in each epoch, on the tensors that the net sees.

Shapes: B samples of one batch, C channels, R and S the two axes behind them (height and width of an
image; frame and coefficient of a sound).
"""

from collections.abc import Callable

import torch

from pipeline import params
from pipeline.errors import TrainingError

Augment = Callable[[torch.Tensor], torch.Tensor]
NUM_AXES = 4  # batch, channel, and two to move along


def of(cfg: params.Augmentation | None, generator: torch.Generator) -> Augment:
    """Return what changes a batch [B, C, R, S], leaving it as it is; None changes nothing.

    Each sample is stretched and shifted about its middle, then gets an offset and noise, and last
    is masked (Park et al. 2019, arXiv:1904.08779), each by numbers of its own from the generator.

    Raises:
        TrainingError: by the function returned: the batch has other axes.
    """
    if cfg is None:
        return lambda batch: batch

    def change(batch: torch.Tensor) -> torch.Tensor:
        if batch.ndim != NUM_AXES:
            raise TrainingError(
                f"augmentation takes samples of channel and two axes behind it, got shape "
                f"{tuple(batch.shape[1:])}; leave it out, or mend data.preprocessing"
            )
        for axis in (2, 3):
            batch = _move(batch, axis, cfg.stretch[axis - 2], cfg.shift[axis - 2], generator)
        batch = _add(batch, cfg.offset_std, (len(batch), 1, 1, batch.shape[3]), generator)
        batch = _add(batch, cfg.noise_std, tuple(batch.shape), generator)
        for axis in (2, 3):
            batch = _mask(batch, axis, cfg.mask[axis - 2], generator)
        return batch

    return change


def _uniform(num: int, generator: torch.Generator) -> torch.Tensor:
    """Draw [num] of -1 to 1."""
    return 2 * torch.rand(num, generator=generator) - 1


def _move(
    batch: torch.Tensor, axis: int, stretch: float, shift: int, generator: torch.Generator
) -> torch.Tensor:
    """Stretch each sample by up to e^stretch and shift it by whole places; edges are repeated."""
    if not stretch and not shift:
        return batch
    length, last = batch.shape[axis], batch.shape[axis] - 1
    factor = torch.exp(stretch * _uniform(len(batch), generator))
    moved = torch.round(shift * _uniform(len(batch), generator))
    centred = torch.arange(length) - last / 2
    place = (centred * factor[:, None] + last / 2 + moved[:, None]).clamp(0, last)
    below = place.floor()
    view = [len(batch), 1, 1, 1]
    view[axis] = length
    weight = (place - below).reshape(view)
    lower = below.long().reshape(view).expand_as(batch)
    upper = (lower + 1).clamp(max=last)
    return batch.gather(axis, lower) * (1 - weight) + batch.gather(axis, upper) * weight


def _add(
    batch: torch.Tensor, std: float, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Add Gaussian numbers of the shape."""
    return batch + std * torch.randn(shape, generator=generator) if std else batch


def _mask(batch: torch.Tensor, axis: int, longest: int, generator: torch.Generator) -> torch.Tensor:
    """Set one run of each sample's places, of up to ``longest``, to zero."""
    if not longest:
        return batch
    length = batch.shape[axis]
    run = torch.randint(0, min(longest, length) + 1, (len(batch),), generator=generator)
    first = (torch.rand(len(batch), generator=generator) * (length - run + 1)).long()
    place = torch.arange(length)
    hidden = (place >= first[:, None]) & (place < (first + run)[:, None])
    view = [len(batch), 1, 1, 1]
    view[axis] = length
    return batch.masked_fill(hidden.reshape(view), 0.0)
