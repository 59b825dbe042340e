"""Net directories: what comes back is what went in, also pruned; and bad files are refused."""

import copy
import pickle
import sys

import pytest
import safetensors.torch
import torch
import torch_pruning
from torch import nn

from pipeline import params
from pipeline.errors import DependencyError, InputsError, NetError
from pipeline.nets import factory, store

SHAPE = (1, 8, 8)
RESNET = {"cfg": params.Net(name="resnet8"), "input_shape": SHAPE, "num_classes": 3}


def outputs(net):
    with torch.no_grad():
        return net(torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1)))


def prune(net, ratio):
    """Remove channels in place and return the history."""
    pruner = torch_pruning.pruner.BasePruner(
        net,
        torch.zeros(1, *SHAPE),
        torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=[net.head],
    )
    pruner.step()
    return pruner.pruning_history()


def assert_equal_nets(first, second):
    expected, found = first.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert torch.equal(outputs(first), outputs(second))


def test_round_trip(resnet, tmp_path):
    store.save(tmp_path / "net", resnet, **RESNET)
    stored = store.load(tmp_path / "net")
    assert not stored.net.training
    assert (stored.cfg, stored.input_shape, stored.num_classes) == tuple(RESNET.values())
    assert stored.pruning_history is None
    assert_equal_nets(resnet, stored.net)
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "net.json",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_round_trip_of_a_pruned_net(resnet, tmp_path, ratio):
    whole = sum(p.numel() for p in resnet.parameters())
    history = prune(resnet, ratio)
    assert sum(p.numel() for p in resnet.parameters()) < whole
    store.save(tmp_path, resnet, **RESNET, pruning_history=history)
    stored = store.load(tmp_path)
    assert stored.net.stem.out_channels < 16
    assert_equal_nets(resnet, stored.net)


def test_round_trip_of_a_net_pruned_twice(resnet, tmp_path):
    history = prune(resnet, 0.25)
    history = [*history, *prune(resnet, 0.25)]
    store.save(tmp_path, resnet, **RESNET, pruning_history=history)
    assert_equal_nets(resnet, store.load(tmp_path).net)


BRANCHES = """
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.side = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.cat([self.pointwise(self.depthwise(x)), self.side(x)], 1)
        return self.head(x.mean((2, 3)))


def make(**_):
    return Branches()
"""


FLATTENED = """
class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 2, 1)
        self.head = nn.Linear(16 * 4 * 4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).flatten(1))


def make(**_):
    return Flattened()
"""


@pytest.mark.parametrize(
    ("body", "head_features"),
    [(BRANCHES, 16), (FLATTENED, 8 * 4 * 4)],
    ids=["depthwise and concatenated channels", "flattened channels"],
)
def test_round_trip_of_a_users_pruned_net(factory_cfg, tmp_path, body, head_features):
    cfg = factory_cfg(body)
    net = factory.build(cfg, SHAPE, 3).eval()
    history = prune(net, 0.5)
    settings = {"cfg": cfg, "input_shape": SHAPE, "num_classes": 3, "pruning_history": history}
    store.save(tmp_path / "net", net, **settings)
    stored = store.load(tmp_path / "net")
    assert stored.net.head.in_features == head_features
    assert_equal_nets(net, stored.net)


def test_a_loaded_net_is_saved_as_the_same_bytes(resnet, tmp_path):
    history = prune(resnet, 0.5)
    store.save(tmp_path / "a", resnet, **RESNET, pruning_history=history)
    stored = store.load(tmp_path / "a")
    store.save(
        tmp_path / "b",
        stored.net,
        cfg=stored.cfg,
        input_shape=stored.input_shape,
        num_classes=stored.num_classes,
        pruning_history=stored.pruning_history,
    )
    for name in (store.WEIGHTS_NAME, store.DESCRIPTION_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_loaded_net_can_be_pruned_and_trained_on(resnet, tmp_path):
    store.save(tmp_path, resnet, **RESNET, pruning_history=prune(resnet, 0.5))
    net = store.load(tmp_path).net.train()
    net(torch.randn(4, *SHAPE)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_saving_and_loading_leave_the_random_generator_alone(resnet, tmp_path):
    before = torch.get_rng_state()
    store.save(tmp_path, resnet, **RESNET)
    store.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


TIED = """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 64)
        self.b.weight = self.a.weight
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.b(self.a(x.flatten(1))))


def make(**_):
    return Tied()
"""


def test_a_users_net_with_tied_weights(factory_cfg, tmp_path):
    cfg = factory_cfg(TIED)
    net = factory.build(cfg, SHAPE, 3).eval()
    store.save(tmp_path / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=3)
    stored = store.load(tmp_path / "net")
    assert stored.cfg == cfg
    assert_equal_nets(net, stored.net)


def test_a_factory_that_changed_since_is_refused(factory_cfg, tmp_path):
    cfg = factory_cfg(TIED)
    net = factory.build(cfg, SHAPE, 3)
    store.save(tmp_path / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=3)
    (tmp_path / f"{cfg.factory.partition(':')[0]}.py").write_text("")
    with pytest.raises(InputsError, match=r"net.factory_digest pins"):
        store.load(tmp_path / "net")


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"net": {"name": "vgg"}}', b"\xff"])
def test_a_description_that_is_missing_or_broken_is_refused(resnet, tmp_path, content):
    store.save(tmp_path, resnet, **RESNET)
    (tmp_path / "net.json").unlink()
    if content is not None:
        (tmp_path / "net.json").write_bytes(content)
    with pytest.raises(NetError, match=r"net.json cannot be read: .*restore it"):
        store.load(tmp_path)


FOREIGN_HISTORIES = {
    "unknown layer": [("no.such.layer", True, [0])],
    "not a layer": [("block1", True, [0])],
}


@pytest.mark.parametrize("history", FOREIGN_HISTORIES.values(), ids=FOREIGN_HISTORIES)
def test_a_history_of_another_net_is_refused(resnet, tmp_path, history):
    store.save(tmp_path, resnet, **RESNET, pruning_history=history)
    with pytest.raises(NetError, match=r"the pruning history does not fit the net: .*run prune"):
        store.load(tmp_path)


def test_weights_of_another_history_are_refused(resnet, tmp_path):
    store.save(tmp_path, resnet, **RESNET, pruning_history=[("stem", True, [0, 1])])
    with pytest.raises(NetError, match=r"of another shape \(block1.conv1.weight \[16, 16, 3, 3\]"):
        store.load(tmp_path)


def test_pruned_net_without_torch_pruning_names_the_extra(resnet, tmp_path, monkeypatch):
    store.save(tmp_path, resnet, **RESNET, pruning_history=prune(resnet, 0.5))
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(DependencyError, match=r"torch-pruning is not installed.*slipway\[build\]"):
        store.load(tmp_path)


@pytest.fixture
def fresh(resnet):
    """A net as `resnet`, filled with other weights."""
    net = copy.deepcopy(resnet)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    return net


def test_checkpoint_of_safetensors(resnet, fresh, tmp_path):
    safetensors.torch.save_file(resnet.state_dict(), tmp_path / "c.safetensors")
    store.load_checkpoint(tmp_path / "c.safetensors", fresh)
    assert_equal_nets(resnet, fresh)


def test_checkpoint_of_a_state_dict(resnet, fresh, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "c.pt")
    store.load_checkpoint(tmp_path / "c.pt", fresh)
    assert_equal_nets(resnet, fresh)


def test_checkpoint_of_half_precision_is_converted(resnet, fresh, tmp_path):
    torch.save(copy.deepcopy(resnet).half().state_dict(), tmp_path / "c.pt")
    store.load_checkpoint(tmp_path / "c.pt", fresh)
    assert fresh.head.weight.dtype == torch.float32
    assert torch.equal(fresh.head.weight, resnet.head.weight.half().float())


MISFITS = {
    "missing": (lambda w: w.pop("head.bias"), r"1 missing \(head.bias\); give a checkpoint"),
    "unexpected": (
        lambda w: w.update({"module.x": torch.zeros(1)}),
        r"1 unexpected \(module.x\)",
    ),
    "mismatched": (
        lambda w: w.update({"head.weight": torch.zeros(10, 64)}),
        r"1 of another shape \(head.weight \[10, 64\] for \[3, 64\]\)",
    ),
    "NaN": (
        lambda w: w.update({"head.bias": torch.tensor([0, float("nan"), 0])}),
        r"1 with NaN or inf \(head.bias\)",
    ),
    "many missing": (lambda w: w.clear(), r"\d\d missing \(\S+, \S+, \S+, \S+, \S+, \.\.\.\)"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_checkpoint_that_does_not_fit_is_refused(resnet, fresh, tmp_path, change, message, suffix):
    weights = dict(resnet.state_dict())
    change(weights)
    path = tmp_path / f"c{suffix}"
    (torch.save if suffix == ".pt" else safetensors.torch.save_file)(weights, path)
    with pytest.raises(NetError, match=message):
        store.load_checkpoint(path, fresh)
    assert (fresh.head.weight == 0.5).all()  # nothing was filled


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_malicious_pickle_is_refused_and_never_runs(fresh, tmp_path, save):
    save({"head.bias": Malicious(tmp_path / "owned")}, tmp_path / "c.pt")
    with pytest.raises(NetError, match=r"is not a plain state dict \(UnpicklingError\)"):
        store.load_checkpoint(tmp_path / "c.pt", fresh)
    assert not (tmp_path / "owned").exists()


NOT_STATE_DICTS = {
    "a module": (nn.Linear(1, 1), r"is not a plain state dict \(UnpicklingError\); write"),
    "a training checkpoint": (
        {"epoch": 3, "state_dict": {}},
        r"it holds epoch, state_dict; write it by torch.save\(net.state_dict\(\), path\)",
    ),
    "a tensor": (torch.zeros(3), "is not a plain state dict: it holds a Tensor"),
}


@pytest.mark.parametrize(("saved", "message"), NOT_STATE_DICTS.values(), ids=NOT_STATE_DICTS)
def test_what_is_no_state_dict_is_refused(fresh, tmp_path, saved, message):
    torch.save(saved, tmp_path / "c.pt")
    with pytest.raises(NetError, match=message):
        store.load_checkpoint(tmp_path / "c.pt", fresh)


@pytest.mark.parametrize("content", [None, b"", b"hello world, this is no checkpoint"])
@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
def test_an_unreadable_checkpoint_is_refused(fresh, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NetError, match=r"is not a (plain state dict|safetensors file).+; ") as e:
        store.load_checkpoint(tmp_path / name, fresh)
    assert "\n" not in str(e.value)
    assert "weights_only" not in str(e.value)
