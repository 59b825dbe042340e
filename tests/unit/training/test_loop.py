import functools
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import TrainingError
from pipeline.training import loop
from pipeline.training.objective import CLASSIFICATION


class Scripted(nn.Module):
    """A net whose validation logits at each epoch are given; its one weight counts the epochs."""

    def __init__(self, validation_logits):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("num_evaluations", torch.zeros(1, dtype=torch.int64))
        self.logits = validation_logits

    def forward(self, inputs):
        if self.training:
            return inputs[:, :1] * self.weight + torch.zeros(len(inputs), 2)
        outputs = self.logits[int(self.num_evaluations)]
        self.num_evaluations += 1
        return outputs


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fit_learns_a_separable_problem(make_net, clouds, settings, optimizer):
    net = make_net()
    before = loop.evaluate(net, clouds[1])
    fit = loop.fit(net, *clouds, settings(optimizer=optimizer), 0)
    after = loop.evaluate(net, clouds[1])
    assert before.quality < 80
    assert after.quality == fit.best.quality == 100
    assert after.loss < before.loss / 2
    assert fit.epochs[-1].loss < fit.epochs[0].loss
    assert not net.training


def test_the_same_seed_gives_the_same_bytes(make_net, clouds, settings):
    first, second = make_net(), make_net()
    fits = [loop.fit(net, *clouds, settings(epochs=3), 7) for net in (first, second)]
    assert fits[0] == fits[1]
    assert same_weights(first, second)


def test_global_state_changes_nothing_and_is_put_back(make_net, clouds, settings):
    first, second = make_net(), make_net()
    loop.fit(first, *clouds, settings(epochs=2), 7)
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    torch.set_num_threads(threads + 1)
    try:
        state = torch.get_rng_state()
        loop.fit(second, *clouds, settings(epochs=2), 7)
        assert same_weights(first, second)
        assert torch.equal(state, torch.get_rng_state())
        assert torch.get_num_threads() == threads + 1
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)


def test_another_seed_gives_other_weights(make_net, clouds, settings):
    first, second = make_net(), make_net()
    loop.fit(first, *clouds, settings(epochs=1), 7)
    loop.fit(second, *clouds, settings(epochs=1), 8)
    assert not same_weights(first, second)


RIGHT, UNSURE, WRONG = (
    torch.tensor([[2.0, 0.0], [0.0, 2.0]]),
    torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    torch.tensor([[0.0, 2.0], [0.0, 2.0]]),
)
HISTORIES = {
    "the highest accuracy wins": ([WRONG, RIGHT, WRONG, WRONG], 9, 2, 4),
    "a tie goes to the lower loss": ([UNSURE, RIGHT, UNSURE, WRONG], 9, 2, 4),
    "a full tie goes to the earlier": ([WRONG, RIGHT, RIGHT, RIGHT], 9, 2, 4),
    "patience ends the run": ([WRONG, UNSURE, WRONG, WRONG, RIGHT], 2, 2, 4),
    "a better epoch renews patience": ([UNSURE, WRONG, RIGHT, WRONG, WRONG, RIGHT], 2, 3, 5),
    "the last epoch can be the best": ([WRONG, WRONG, UNSURE], 9, 3, 3),
}


@pytest.mark.parametrize(
    ("logits", "patience", "best", "num_run"), HISTORIES.values(), ids=HISTORIES
)
def test_early_stop_restores_the_best(settings, logits, patience, best, num_run):
    net, weights = Scripted(logits), []
    validation = loop.Tensors(torch.ones(2, 1), torch.tensor([0, 1]))
    train = loop.Tensors(torch.ones(4, 1), torch.tensor([0, 0, 0, 1]))
    fit = loop.fit(
        net,
        train,
        validation,
        settings(epochs=len(logits), patience=patience),
        0,
        loss=lambda outputs, *_: outputs.sum(),
        on_epoch=lambda _: weights.append(net.weight.item()),
    )
    assert (fit.best_epoch, len(fit.epochs)) == (best, num_run)
    assert fit.best == fit.epochs[best - 1]
    assert net.weight.item() == weights[best - 1]
    assert len(set(weights)) == num_run  # every epoch moved the weight, so restoring is visible


def test_nan_loss_names_the_epoch_and_the_remedy(make_net, clouds, settings):
    inputs = clouds[0].inputs.clone()
    inputs[5] = torch.nan
    train = loop.Tensors(inputs, clouds[0].labels)
    with pytest.raises(
        TrainingError,
        match=r"training loss is nan in epoch 1 of 8; lower learning_rate \(now 0\.05\) or raise",
    ):
        loop.fit(make_net(), train, clouds[1], settings(), 0)


def test_divergence_that_only_validation_shows_is_refused(settings):
    net = Scripted([torch.full((2, 2), torch.inf)])
    train = loop.Tensors(torch.ones(4, 1), torch.tensor([0, 0, 0, 1]))
    with pytest.raises(TrainingError, match=r"validation loss is nan in epoch 1 of 1"):
        loop.fit(
            net, train, loop.Tensors(torch.ones(2, 1), torch.tensor([0, 1])), settings(epochs=1), 0
        )


def test_each_epoch_sees_every_sample_once_in_even_batches_and_another_order(
    make_net, clouds, settings
):
    seen = []

    def loss(outputs, batch):
        assert torch.equal(batch.labels, clouds[0].labels[batch.indices])
        assert torch.equal(batch.inputs, clouds[0].inputs[batch.indices])
        seen.append(batch.indices.tolist())
        return nn.functional.cross_entropy(outputs, batch.labels)

    loop.fit(make_net(), *clouds, settings(epochs=2, global_batch_size=40), 0, loss=loss)
    assert [len(batch) for batch in seen] == [30] * 6  # 90 in steps of at most 40
    first, second = [*chain(*seen[:3])], [*chain(*seen[3:])]
    assert sorted(first) == sorted(second) == list(range(90))
    assert first != second


def test_learning_rate_follows_the_schedule(make_net, clouds, settings):
    reported = []
    loop.fit(
        make_net(),
        *clouds,
        settings(epochs=4, global_batch_size=90, warmup_ratio=0.25, learning_rate=0.01),
        0,
        on_epoch=reported.append,
    )
    rates = [epoch.learning_rate for epoch in reported]
    assert rates == pytest.approx([0.005, 0.01, 0.0075, 0.0025])
    assert [epoch.epoch for epoch in reported] == [1, 2, 3, 4]


def test_label_smoothing_is_that_of_the_settings(make_net, clouds, settings):
    smoothed = functools.partial(CLASSIFICATION.loss, label_smoothing=0.3)
    first, second, third = make_net(), make_net(), make_net()
    loop.fit(first, *clouds, settings(epochs=1, label_smoothing=0.3), 0)
    loop.fit(second, *clouds, settings(epochs=1), 0, loss=smoothed)
    loop.fit(third, *clouds, settings(epochs=1), 0)
    assert same_weights(first, second)
    assert not same_weights(first, third)


def test_evaluate_against_numpy_over_several_batches():
    rng = np.random.default_rng(0)
    num = 2 * loop.EVALUATION_BATCH + 5
    inputs = rng.standard_normal((num, 4)).astype(np.float32)
    labels = rng.integers(0, 3, num)
    net = nn.Linear(4, 3).train()
    found = loop.evaluate(net, loop.Tensors.of(inputs, labels))
    weight, bias = (value.detach().numpy().astype(np.float64) for value in net.parameters())
    logits = inputs @ weight.T + bias
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found.outputs == pytest.approx(logits, abs=1e-5)
    assert found.quality == pytest.approx(100 * (logits.argmax(1) == labels).mean())
    assert found.loss == pytest.approx(-log_p[np.arange(num), labels].mean(), rel=1e-5)
    assert net.training


def test_a_net_is_judged_with_the_batch_norm_it_ships_with(make_net, clouds):
    """By what it learned of all samples: not by those that happen to be in the batch."""
    net = make_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    together = loop.outputs(net, clouds[1].inputs)
    alone = loop.outputs(net, clouds[1].inputs[:2])
    assert torch.allclose(alone, together[:2], atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
