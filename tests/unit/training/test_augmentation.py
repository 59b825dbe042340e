"""Augmentation: what each change does, that others stay away, and that seeds repeat it."""

import pytest
import torch

from pipeline import params
from pipeline.errors import TrainingError
from pipeline.training import augmentation, loop


def changed(batch, seed=0, **settings):
    cfg = params.Augmentation(**settings)
    return augmentation.of(cfg, torch.Generator().manual_seed(seed))(batch)


@pytest.fixture
def ramps():
    """[64, 1, 8, 6], each sample a ramp along the first of its two axes."""
    return torch.arange(8.0).reshape(1, 1, 8, 1).expand(64, 1, 8, 6).clone()


def test_none_is_the_same_batch(ramps):
    assert augmentation.of(None, torch.Generator())(ramps) is ramps
    assert torch.equal(changed(ramps), ramps)


def test_a_shift_moves_whole_samples_by_whole_places_and_repeats_edges(ramps):
    moved = changed(ramps, shift=(3, 0))
    steps = {tuple((sample[0, :, 0] - ramps[0, 0, :, 0]).tolist()) for sample in moved}
    expected = {tuple((torch.arange(8) + s).clamp(0, 7).sub(torch.arange(8)).tolist())
                for s in range(-3, 4)}  # fmt: skip
    assert steps == {tuple(map(float, row)) for row in expected}
    assert torch.equal(moved[..., :1].expand_as(moved), moved)  # the other axis stayed


def test_a_shift_of_the_other_axis_leaves_the_first(ramps):
    turned = ramps.transpose(2, 3)
    assert torch.equal(changed(turned, shift=(3, 0)), turned)
    assert not torch.equal(changed(turned, shift=(0, 3)), turned)


def test_a_stretch_keeps_the_middle_and_changes_the_slope(ramps):
    stretched = changed(ramps, stretch=(0.5, 0.0))[:, 0, :, 0]
    middle = stretched[:, 3:5].mean(1)
    slopes = stretched[:, 4] - stretched[:, 3]
    assert middle == pytest.approx(3.5, abs=1e-5)
    assert slopes.min() < 0.7
    assert slopes.max() > 1.4
    assert slopes.min() >= torch.e**-0.5
    assert slopes.max() <= torch.e**0.5


def test_a_mask_sets_one_run_of_an_axis_to_zero(ramps):
    hidden = changed(ramps + 1, mask=(0, 2)) == 0
    assert hidden.all(dim=2).equal(hidden.any(dim=2))  # whole lines
    lengths = hidden[:, 0, 0].sum(1)
    assert set(lengths.tolist()) == {0, 1, 2}
    assert hidden[:, 0, 0].any(0).all()  # the edges too


def test_an_offset_is_one_number_a_line_of_the_last_axis(ramps):
    added = changed(ramps, offset_std=0.5) - ramps
    assert added.std(dim=2).max() == pytest.approx(0, abs=1e-5)
    assert added[:, 0, 0].std() == pytest.approx(0.5, rel=0.15)


def test_noise_is_of_every_value(ramps):
    added = changed(ramps, noise_std=0.25) - ramps
    assert added.std() == pytest.approx(0.25, rel=0.05)
    assert len(added.unique()) > 3000


def test_the_batch_itself_stays_and_seeds_repeat(ramps):
    before = ramps.clone()
    every = {"shift": (2, 1), "stretch": (0.2, 0.1), "mask": (2, 1), "noise_std": 0.1}
    assert torch.equal(changed(ramps, **every), changed(ramps, **every))
    assert not torch.equal(changed(ramps, **every), changed(ramps, seed=1, **every))
    assert torch.equal(ramps, before)


def test_samples_without_two_axes_are_refused():
    message = r"takes samples of channel and two axes behind it, got shape \(4,\)"
    with pytest.raises(TrainingError, match=message):
        changed(torch.zeros(2, 4), noise_std=1.0)


def test_training_sees_changed_samples_and_validation_does_not(settings):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, inputs):
            seen.append((self.training, inputs.detach().clone()))
            return inputs.mean((1, 2, 3))[:, None] * self.weight

    images = loop.Tensors(torch.zeros(16, 1, 4, 4), torch.arange(16) % 2)
    noisy = settings(epochs=1, augmentation=params.Augmentation(noise_std=1.0))
    loop.fit(Spy(), images, images, noisy, 0)
    assert all(bool(inputs.any()) == training for training, inputs in seen)
    assert {training for training, _ in seen} == {True, False}
