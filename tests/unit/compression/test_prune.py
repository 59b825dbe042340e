import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_pruning import DependencyGraph

from pipeline import params
from pipeline.compression.prune import prune
from pipeline.errors import NetError, ParamsError
from pipeline.nets import factory
from pipeline.nets.count import count
from pipeline.training.loop import Tensors

SHAPE = (1, 6, 6)


def cfg(ratio=0.5, round_to=4, **more):
    return params.Prune(**{"ratio": ratio, "round_to": round_to, "criterion": "magnitude", **more})


def channels(net):
    return {name: m.out_channels for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}


def test_half_of_the_channels_leave_and_the_net_shrinks(residual, example):
    before = copy.deepcopy(residual.state_dict())
    pruned = prune(residual, example, cfg())
    assert channels(pruned.net) == {"stem": 8, "inner": 16, "outer": 8}
    assert pruned.net.head.in_features == 8 * 9
    old, new = count(residual, SHAPE), count(pruned.net, SHAPE)
    assert new.macs < 0.3 * old.macs
    assert new.parameters < 0.3 * old.parameters
    assert pruned.kept_whole == {"head": "its outputs are the net's"}
    assert all(torch.equal(before[name], value) for name, value in residual.state_dict().items())


def test_macs_fall_as_the_ratio_rises(residual, example):
    macs = [
        count(prune(residual, example, cfg(ratio)).net, SHAPE).macs
        for ratio in (0.0, 0.25, 0.5, 0.75)
    ]
    assert macs == sorted(macs, reverse=True)
    assert len(set(macs)) == 4


def test_ratio_zero_changes_nothing(residual, example, images):
    pruned = prune(residual, example, cfg(0.0))
    assert torch.equal(pruned.net(images), residual(images))
    assert (pruned.history, pruned.kept_whole) == ([], {})


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_channel_counts_are_multiples_of_round_to(residual, example, round_to):
    found = channels(prune(residual, example, cfg(0.3, round_to)).net)
    assert all(num % round_to == 0 for num in found.values())
    assert found["stem"] == found["outer"] < 16


def test_the_smallest_channels_leave(residual, example):
    weak = [1, 3, 8, 30]
    with torch.no_grad():
        residual.inner.weight[weak] *= 1e-3
        residual.outer.weight[:, weak] *= 1e-3
    history = prune(residual, example, cfg(4 / 32, 1)).history
    assert [sorted(cut[2]) for cut in history if cut[0] == "inner"] == [weak]


def test_taylor_removes_what_the_loss_does_not_feel(residual, example, images):
    dead = list(range(0, 32, 2))
    with torch.no_grad():
        residual.inner.weight[dead] = 5.0  # large, so magnitude would keep them
        residual.inner.bias[dead] = -1e4  # and never active, so no gradient reaches them
    samples = Tensors(images, torch.arange(40) % 3)
    history = prune(residual, example, cfg(criterion="taylor"), samples).history
    assert [sorted(cut[2]) for cut in history if cut[0] == "inner"] == [dead]
    by_magnitude = prune(residual, example, cfg()).history
    assert not set(dead) & set(next(cut[2] for cut in by_magnitude if cut[0] == "inner"))


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_the_same_net_is_pruned_the_same_way(residual, example, images, criterion):
    samples = Tensors(images, torch.arange(40) % 3)
    first, second = (prune(residual, example, cfg(criterion=criterion), samples) for _ in range(2))
    assert first.history == second.history
    assert torch.equal(first.net(images), second.net(images))
    assert all(weight.grad is None for weight in first.net.parameters())


def test_history_replays_on_the_unpruned_net(residual, example, images):
    pruned = prune(residual, example, cfg())
    fresh = copy.deepcopy(residual)
    DependencyGraph().build_dependency(fresh, (example,)).load_pruning_history(pruned.history)
    assert torch.equal(fresh(images), pruned.net(images))


class TwoHeads(nn.Module):
    """Two layers reach the output, and only one of them runs last."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.first, self.second = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.first(x) + self.second(x)


class Tied(nn.Module):
    """A layer whose outputs meet the net's own input and so cannot lose any."""

    def __init__(self):
        super().__init__()
        self.tied, self.free, self.head = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(torch.relu(self.free(x + self.tied(x))))


class Fixed(nn.Module):
    """A forward that counts on its own number of channels."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 16), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).reshape(-1, 4, 4).sum(1))


NETS = {
    "a second layer that reaches the output": (
        TwoHeads,
        4,
        {"first": "it shares channels with second: its outputs are the net's"},
        "body",
    ),
    "a layer tied to the input": (Tied, 8, {"tied": "pruning it breaks the net: "}, "free"),
    "a forward that reshapes to a fixed size": (
        Fixed,
        4,
        {"body": "torch-pruning refused its group|pruning it breaks the net: "},
        None,
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("make", "num_inputs", "whole", "smaller"), NETS.values(), ids=NETS)
def test_what_cannot_be_pruned_is_kept_with_its_reason(make, num_inputs, whole, smaller, seed):
    torch.manual_seed(seed)  # which channels are weak decides how pruning would fail
    pruned = prune(make(), torch.zeros(1, num_inputs), cfg())
    assert pruned.net(torch.zeros(5, num_inputs)).shape == (5, 3)
    for name, reason in whole.items():
        assert re.match(reason, pruned.kept_whole[name])
    if smaller:
        assert pruned.net.get_submodule(smaller).out_features == 8


def test_ignored_layers_and_those_they_share_channels_with_are_kept(residual, example):
    pruned = prune(residual, example, cfg(ignored_layers=("outer",)))
    assert channels(pruned.net) == {"stem": 16, "inner": 16, "outer": 16}
    assert pruned.kept_whole["outer"] == "named in ignored_layers"
    assert pruned.kept_whole["stem"] == "it shares channels with outer: named in ignored_layers"


def test_a_group_that_rounding_would_empty_is_kept(residual, example):
    pruned = prune(residual, example, cfg(round_to=16))
    assert channels(pruned.net) == {"stem": 16, "inner": 16, "outer": 16}
    assert pruned.kept_whole["stem"] == "8 of 16 channels would stay, less than round_to 16"


def test_an_unknown_ignored_layer_is_refused(residual, example):
    with pytest.raises(ParamsError, match=r"\['hed'\] are no .* layer of the net; it has stem, "):
        prune(residual, example, cfg(ignored_layers=("hed",)))


def test_a_net_without_layers_is_refused():
    with pytest.raises(NetError, match="no convolution or linear layer to prune"):
        prune(nn.Flatten(), torch.zeros(1, 3), cfg())


def test_depthwise_convolutions_follow_their_neighbours():
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    pruned = prune(net, torch.zeros(1, *SHAPE), cfg())
    assert [pruned.net[i].out_channels for i in range(3)] == [8, 8, 12]
    assert pruned.net[1].groups == 8
    assert pruned.net(torch.zeros(2, *SHAPE)).shape == (2, 3)


def test_the_default_recipe_removes_at_least_30_percent_of_the_macs():
    p = params.load(Path(__file__).parents[3] / "params.yaml")
    torch.manual_seed(0)
    net = factory.build(p.net, (1, 32, 32), 10)
    settings = p.prune[p.recipes["pruned"].prune]
    smaller = prune(net, torch.zeros(1, 1, 32, 32), settings).net
    assert count(smaller, (1, 32, 32)).macs <= 0.7 * count(net, (1, 32, 32)).macs
