"""What several stages' tests start from."""

import importlib
import itertools
import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
import torch_pruning

from pipeline import files, manifest, params
from pipeline.data import splits
from pipeline.nets import factory, store

SHAPE, LABELS = (1, 8, 8), ("a", "b", "c", "d")


@pytest.fixture(scope="package")
def quantized_workspace(tmp_path_factory):
    """The outs up to stage quantize in miniature: a dense and a pruned ResNet-8, untrained, 8x8."""
    root = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    for name, num_samples in (("validation", 40), ("calibration", 16)):
        inputs = rng.standard_normal((num_samples, 8, 8, 1)).astype(np.float32)
        labels = np.arange(num_samples, dtype=np.int64) % len(LABELS)
        steps = ({"step": "channels_first"},)
        splits.write(root / f"{name}.npz", splits.Split(inputs, labels, LABELS, steps))
    cfg = params.Net(name="resnet8")
    for variant in ("dense", "pruned"):
        torch.manual_seed(0)
        net = factory.build(cfg, SHAPE, len(LABELS)).eval()
        history = None
        if variant == "pruned":
            pruner = torch_pruning.pruner.BasePruner(
                net,
                torch.zeros(1, *SHAPE),
                torch_pruning.importance.GroupMagnitudeImportance(),
                pruning_ratio=0.5,
                ignored_layers=[net.head],
            )
            pruner.step()
            history = pruner.pruning_history()
        store.save(
            root / "quantized" / variant,
            net,
            cfg=cfg,
            input_shape=SHAPE,
            num_classes=len(LABELS),
            pruning_history=history,
        )
    manifest.write(
        root / "quantized", model="tiny", stage="quantize", labels=LABELS, preprocessing=steps
    )
    return root


@pytest.fixture(scope="package")
def conversion_params():
    """The project's params with the recipes of `quantized_workspace`; `pruned` skips quantize."""
    p = params.load()
    plain = {"prune": "skip", "factorize": "skip", "distill": "skip"}
    recipes = {
        "dense": params.Recipe(**plain, quantize="int8"),
        "pruned": params.Recipe(**{**plain, "prune": "half"}, quantize="skip"),
    }
    targets = {
        name: msgspec.structs.replace(
            target, convert=msgspec.structs.replace(target.convert, num_calibration=16)
        )
        for name, target in p.targets.items()
    }
    return msgspec.structs.replace(p, model="tiny", recipes=recipes, targets=targets)


@pytest.fixture(scope="package")
def exported_workspace(quantized_workspace, conversion_params):
    """The same with stage export run."""
    from pipeline.chain import export

    root = quantized_workspace
    paths = SimpleNamespace(
        root=root,
        validation=root / "validation.npz",
        calibration=root / "calibration.npz",
        quantized=root / "quantized",
        exported=root / "exported",
        metrics=root / "metrics" / "export.json",
    )
    export.run(paths.validation, paths.quantized, paths.exported, paths.metrics, conversion_params)
    return paths


TINY_FACTORY = """\
from torch import nn


def make(input_shape, num_classes, width):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * input_shape[1] * input_shape[2], num_classes),
    )
"""
NUMBERS = itertools.count()  # Python keeps imported modules: each test's factory has its own name


@pytest.fixture
def tiny_project(tmp_path, monkeypatch):
    """A project in miniature: an easy task, a net of the user's own, and ``run(stage)``.

    Its recipes are ``dense`` (skips all), ``pruned`` (prune, distill, quantize) and ``bare`` (as
    ``pruned`` without quantize).
    """
    p = _tiny_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    models, rng = tmp_path / "models", np.random.default_rng(0)
    (models / "data").mkdir(parents=True)
    for name, num_samples in (("train", 48), ("validation", 40), ("calibration", 16)):
        labels = np.arange(num_samples, dtype=np.int64) % 3
        inputs = rng.standard_normal((num_samples, 4, 4, 1)).astype(np.float32)
        inputs[np.arange(num_samples), labels] += 2  # the class is the row that is bright
        steps = ({"step": "channels_first"},)
        split = splits.Split(inputs, labels, ("a", "b", "c"), steps)
        splits.write(models / "data" / f"{name}.npz", split)
    reads = {
        "train": ("data/train.npz", "data/validation.npz"),
        "prune": ("data/train.npz", "data/validation.npz", "trained"),
        "distill": ("data/train.npz", "data/validation.npz", "trained", "pruned"),
        "quantize": (
            *("data/train.npz", "data/calibration.npz", "data/validation.npz"),
            *("trained", "distilled"),
        ),
    }
    writes = {
        "train": "trained",
        "prune": "pruned",
        "distill": "distilled",
        "quantize": "quantized",
    }

    def run(stage, changed=None, **more):
        module = importlib.import_module(f"pipeline.chain.{stage}")
        out, metrics = models / writes[stage], models / "metrics" / f"{stage}.json"
        deps = [models / name for name in reads[stage]]
        module.run(*deps, out, metrics, changed or p, **more)
        return SimpleNamespace(out=out, metrics=json.loads(metrics.read_text()))

    return SimpleNamespace(root=tmp_path, models=models, p=p, run=run)


def _tiny_params(root):
    name = f"tiny_net_{next(NUMBERS)}"
    source = root / f"{name}.py"
    source.write_text(TINY_FACTORY, encoding="utf-8")
    p = params.load()
    short = {"epochs": 3, "learning_rate": 0.02, "warmup_ratio": 0.0, "global_batch_size": 16}
    skip = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="skip")
    pruned = params.Recipe(prune="half", factorize="skip", distill="recover", quantize="int8")
    return msgspec.structs.replace(
        p,
        model="tiny",
        net=params.Net(
            factory=f"{name}:make", factory_digest=files.digest_file(source), args={"width": 8}
        ),
        train=msgspec.structs.replace(p.train, **short),
        recipes={
            "dense": skip,
            "pruned": pruned,
            "bare": msgspec.structs.replace(pruned, quantize="skip"),
        },
        prune={"half": params.Prune(ratio=0.5, round_to=4, criterion="magnitude")},
        distill={"recover": msgspec.structs.replace(p.distill["recover"], **short)},
        quantize={"int8": params.Quantize(bits=8, num_samples=16)},
    )
