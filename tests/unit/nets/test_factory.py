"""Factories: what they get, and one line for each way in which one can be wrong."""

import pytest
import torch

from pipeline import params, users_code
from pipeline.errors import InputsError, NetError
from pipeline.nets import factory
from pipeline.nets.resnet8 import ResNet8

LINEAR = """
def make(input_shape, num_classes, hidden=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, num_classes))
"""


def test_built_in_net_maps_images_to_logits():
    net = factory.build(params.Net(name="resnet8"), (1, 8, 8), 3)
    assert isinstance(net, ResNet8)
    assert net.training
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_same_seed_same_weights():
    nets = []
    for _ in range(2):
        torch.manual_seed(7)
        nets.append(factory.build(params.Net(name="resnet8"), (1, 8, 8), 3))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_factory_gets_shape_classes_and_args(factory_cfg):
    net = factory.build(factory_cfg(LINEAR, hidden=5), (1, 8, 8), 3)
    assert net.training
    assert [tuple(p.shape) for p in net.parameters()] == [(5, 64), (5,), (3, 5), (3,)]


def test_factory_in_a_package_of_the_project(tmp_path, factory_cfg):
    factory_cfg(LINEAR)
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("from torch import nn\n" + LINEAR)
    cfg = params.Net(factory="users_package.nets:make")
    assert users_code.find("net.factory", cfg.factory, NetError) == package / "nets.py"
    assert isinstance(factory.build(cfg, (1, 8, 8), 3), torch.nn.Module)


def test_a_changed_factory_is_refused_before_it_runs(factory_cfg):
    cfg = factory_cfg("raise SystemExit('it ran')", digest="sha256:" + "0" * 64)
    with pytest.raises(InputsError, match=r"net.factory: .* net.factory_digest pins .*inputs lock"):
        factory.build(cfg, (1, 8, 8), 3)


REFUSED = {
    "import failure": ("import no_such_module", "import of users_net_.* failed: ModuleNotFound"),
    "syntax error": ("def make(:", "import of users_net_.* failed: SyntaxError"),
    "no function": ("def other(): pass", r"users_net_\d+.py has no function 'make'; mend params"),
    "not a function": ("make = 3", "has no function 'make'"),
    "wrong arguments": (
        "def make(shape): pass",
        "called with input_shape, num_classes failed: TypeError: .*unexpected keyword",
    ),
    "the factory fails": (
        "def make(**_): raise RuntimeError('line 1\\nline 2')",
        "called with .* failed: RuntimeError: line 1 line 2; mend it",
    ),
    "no module": ("def make(**_): return 5", r"returned int; it must return a torch.nn.Module"),
    "forward fails": (
        "def make(**_): return nn.Linear(7, 3)",
        r"a forward pass of shape \(1, 8, 8\) failed: RuntimeError: mat1 and mat2",
    ),
    "wrong number of classes": (
        "def make(**_): return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))",
        r"forward gave torch.float32 \(2, 9\) for 2 samples of \(1, 8, 8\); .* \(2, 3\)",
    ),
    "batch axis lost": (
        (
            "class N(nn.Linear):\n"
            "    def forward(self, x): return super().forward(x.flatten(1)).mean(0, keepdim=True)\n"
            "def make(num_classes, **_): return N(64, num_classes)"
        ),
        r"forward gave torch.float32 \(1, 3\) for 2 samples",
    ),
    "wrong dtype": (
        (
            "class N(nn.Linear):\n"
            "    def forward(self, x): return super().forward(x.flatten(1)).half()\n"
            "def make(num_classes, **_): return N(64, num_classes)"
        ),
        r"forward gave torch.float16 \(2, 3\)",
    ),
    "two outputs": (
        (
            "class N(nn.Linear):\n"
            "    def forward(self, x): return x, x\n"
            "def make(num_classes, **_): return N(64, num_classes)"
        ),
        "forward returned tuple; it must return one tensor of logits",
    ),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_one_line(factory_cfg, body, message):
    with pytest.raises(NetError, match=message) as caught:
        factory.build(factory_cfg(body), (1, 8, 8), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module", "no.such.module", "pipeline.no_such_module"])
def test_a_module_that_is_not_there_is_refused(name):
    with pytest.raises(NetError, match=f"there is no module '{name}' in .*mend params.yaml"):
        users_code.find("net.factory", f"{name}:make", NetError)


def test_a_name_that_is_taken_is_refused(factory_cfg, tmp_path):
    factory_cfg(LINEAR)
    (tmp_path / "json.py").write_text("def make(**_): pass\n")
    with pytest.raises(NetError, match=r"another module 'json' is loaded already; rename json.py"):
        factory.build(params.Net(factory="json:make"), (1, 8, 8), 3)


BUILT_IN_REFUSED = {
    "args": ({"args": {"depth": 3}}, (1, 8, 8), r"net.args \['depth'\] go with net.factory"),
    "no channel": ({}, (8, 8), r"got shape \(8, 8\); add add_channel and channels_first"),
}


@pytest.mark.parametrize(
    ("settings", "shape", "message"), BUILT_IN_REFUSED.values(), ids=BUILT_IN_REFUSED
)
def test_built_in_refusals(settings, shape, message):
    with pytest.raises(NetError, match=message):
        factory.build(params.Net(name="resnet8", **settings), shape, 3)
