"""Quantization-aware training with ModelOpt: from the recipe to int8 files that run.

A net in miniature on an easy task; the teacher is the dense net, as in the chain.
"""

import importlib
import json
import sys

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from pipeline import files, manifest, params
from pipeline.chain import export
from pipeline.compression import distill, qat
from pipeline.conversion import onnx_qdq, to_litert, to_onnxruntime, to_openvino
from pipeline.conversion.candidates import Variant
from pipeline.data import splits
from pipeline.errors import DependencyError, NetError
from pipeline.nets import factory, fold, on_grids, ranges, store
from pipeline.runtimes import litert, openvino, session
from pipeline.training import loop, objective
from pipeline.training.objective import CLASSIFICATION

SHAPE, LABELS = (1, 6, 6), ("a", "b", "c")
# int8 after training may lose this much against int8 by ranges alone: 1 of 90 samples
MAX_LOSS_POINTS = 100 / 90 + 1e-9
MIN_SQNR_DB = 15.0
SOURCE = '''
from torch import nn


class Net(nn.Module):
    """Two convolutions with batch norm, a pooling, a linear head."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.inner_norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 9, num_classes)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        x = self.pool(self.inner_norm(self.inner(x)).relu())
        return self.head(x.flatten(1))


def make(input_shape, num_classes):
    return Net(input_shape[0], num_classes)
'''
QAT = params.Qat(
    seed=3,
    temperature=2.0,
    alpha=0.5,
    epochs=3,
    global_batch_size=16,
    optimizer="adamw",
    learning_rate=0.003,
    weight_decay=0.0,
    warmup_ratio=0.0,
    label_smoothing=0.0,
    patience=3,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project up to stage distill: recipe `learned` trains for int8, `ptq` and `dense` do not."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "qat_net.py").write_text(SOURCE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    rng = np.random.default_rng(0)
    for name, num_samples in (("train", 120), ("validation", 90), ("calibration", 32)):
        labels = np.arange(num_samples, dtype=np.int64) % 3
        inputs = rng.standard_normal((num_samples, 6, 6, 1)).astype(np.float32)
        inputs[np.arange(num_samples), 2 * labels] += 1.0  # the class is the row that is bright
        steps = ({"step": "channels_first"},)
        splits.write(folder / f"{name}.npz", splits.Split(inputs, labels, LABELS, steps))
    digest = files.digest_file(folder / "qat_net.py")
    cfg = params.Net(factory="qat_net:make", factory_digest=digest)
    train, validation = (loop.Tensors.read(folder / f"{n}.npz") for n in ("train", "validation"))
    teaching = params.Training(
        **{f: getattr(QAT, f) for f in params.Training.__struct_fields__} | {"epochs": 8}
    )
    with loop.deterministic(0):
        net = importlib.import_module("qat_net").make(SHAPE, 3)
        loop.fit(net, train, validation, teaching, 0)
    for name in ("trained", "distilled/dense", "distilled/ptq", "distilled/learned"):
        store.save(folder / name, net, cfg=cfg, input_shape=SHAPE, num_classes=3)
    for name in ("trained", "distilled"):
        manifest.write(folder / name, model="tiny", stage=name, labels=LABELS, preprocessing=steps)
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["qat_net"]  # another worker's tests may have been between


@pytest.fixture(scope="module")
def p():
    plain = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="int8")
    return msgspec.structs.replace(
        params.load(),
        model="tiny",
        recipes={
            "dense": msgspec.structs.replace(plain, quantize="skip"),
            "ptq": plain,
            "learned": msgspec.structs.replace(plain, quantize="qat"),
        },
        quantize={
            "int8": params.Quantize(bits=8, num_samples=32),
            "qat": params.Quantize(bits=8, num_samples=32, qat=QAT),
        },
    )


def run_quantize(root, p, out):
    from pipeline.chain import quantize

    names = ("train.npz", "calibration.npz", "validation.npz", "trained", "distilled")
    quantize.run(*(root / n for n in names), out, out.with_suffix(".json"), p)
    return json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def quantized(root, p):
    """The stage's out and metrics, then everything exported."""
    metrics = run_quantize(root, p, root / "quantized")
    export.run(
        root / "validation.npz", root / "quantized", root / "exported", root / "export.json", p
    )
    return root / "quantized", metrics


@pytest.fixture(scope="module")
def validation(root):
    return splits.read(root / "validation.npz")


def test_the_variant_is_a_plain_net_with_symmetric_ranges(quantized):
    directory = quantized[0] / "learned"
    found = {path.name for path in directory.iterdir()}
    assert found == {"net.json", "weights.safetensors", "ranges.json", "sensitivity.json"}
    stored, learned = store.load(directory), ranges.read(directory)
    assert [entry.layer for entry in learned] == ["stem", "inner", "head"]
    assert not any("quantizer" in name for name in stored.net.state_dict())
    for entry in learned:
        assert entry.activation_amax > 0
        assert -entry.activation_amax <= entry.activation_min <= 0
        weight = stored.net.get_submodule(entry.layer).weight
        assert len(entry.weight_amax) == len(weight)
    assert learned[0].activation_min < 0  # the input
    assert learned[2].activation_min == 0  # behind a ReLU
    assert ranges.read(quantized[0] / "ptq") is None


def test_weights_lie_within_their_ranges(quantized):
    stored = store.load(quantized[0] / "learned")
    folded = fold.folded(stored.net, torch.zeros(1, *SHAPE))
    for entry in ranges.read(quantized[0] / "learned"):
        weight = folded.get_submodule(entry.layer).weight.detach()
        largest = weight.flatten(1).abs().amax(1).numpy()
        assert (largest <= np.array(entry.weight_amax) * (1 + 1e-5)).all()
        assert float(weight.double().norm()) == pytest.approx(entry.weight_norm, rel=1e-6)


def test_manifest_and_metrics_say_what_was_learned_from(quantized):
    found = manifest.verify(quantized[0])
    assert {i.path for i in found.inputs} == {
        *("calibration", "distilled", "train", "trained", "validation")
    }
    assert found.params["quantize"]["learned"]["qat"]["temperature"] == 2.0
    assert "qat" not in found.params["quantize"]["ptq"]
    assert "nvidia-modelopt" in found.tools
    metrics = quantized[1]["learned"]
    assert metrics["int8_validation_accuracy"] >= (
        metrics["int8_validation_accuracy_before"] - MAX_LOSS_POINTS
    )
    assert "int8_validation_accuracy" not in quantized[1]["ptq"]


def test_same_seed_same_bytes_and_another_seed_others(root, p, quantized, tmp_path):
    run_quantize(root, p, tmp_path / "again")
    changed = msgspec.structs.replace(p.quantize["qat"], qat=msgspec.structs.replace(QAT, seed=4))
    other = msgspec.structs.replace(p, quantize={**p.quantize, "qat": changed})
    run_quantize(root, other, tmp_path / "other")
    for name in ("weights.safetensors", "ranges.json", "net.json"):
        first, again = quantized[0] / "learned" / name, tmp_path / "again" / "learned" / name
        assert first.read_bytes() == again.read_bytes()
    name = "learned/weights.safetensors"
    assert (tmp_path / "other" / name).read_bytes() != (quantized[0] / name).read_bytes()
    manifests = [
        (path / "manifest.json").read_bytes() for path in (quantized[0], tmp_path / "again")
    ]
    assert manifests[0] == manifests[1]


@pytest.mark.usefixtures("quantized")
def test_the_exported_pair_of_files_names_its_ranges(root):
    folder = root / "exported" / "learned"
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "model.onnx", "model.qdq.onnx"}
    assert not (root / "exported" / "ptq" / "model.qdq.onnx").exists()
    found = manifest.verify(folder)
    assert {i.path for i in found.inputs} == {"net", "weights", "ranges"}
    metrics = json.loads((root / "export.json").read_text())
    assert metrics["learned"]["on_grids_sqnr_db"] > 30
    assert "on_grids_sqnr_db" not in metrics["ptq"]
    model = onnx.load(folder / "model.qdq.onnx")
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    zero_points = [held[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(zero_points) == 6  # input and weight of three layers
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zero_points)
    assert b"/home" not in (folder / "model.qdq.onnx").read_bytes()


def outputs_of(content, inputs):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def accuracy(outputs, validation):
    return 100 * float((outputs.argmax(1) == validation.labels).mean())


def sqnr_db(expected, found):
    return 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum())


@pytest.fixture(scope="module")
def converted(root, quantized):
    """Content of each int8-static candidate in ONNX Runtime and LiteRT, by converter and recipe."""
    samples = splits.read(root / "calibration.npz").tensors()
    cfg = params.Convert(precisions=("int8-static",), num_calibration=32)
    found = {}
    for converter in (to_onnxruntime, to_litert):
        for name in ("ptq", "learned"):
            folder = root / "exported" / name
            variant = Variant(
                name, folder / "model.onnx", quantized[0] / name, manifest.read(folder)
            )
            out = root / "converted" / converter.__name__
            (outcome,) = converter.convert(variant, ["int8-static"], samples, cfg, out)
            assert outcome.status == "built", outcome.reason
            found[converter, name] = outcome.path
    return found


def test_int8_of_the_trained_net_runs_in_onnxruntime_and_loses_nothing(
    converted, quantized, validation
):
    inputs = validation.tensors()
    found = {
        name: outputs_of(converted[to_onnxruntime, name].read_bytes(), inputs)
        for name in ("ptq", "learned")
    }
    assert accuracy(found["learned"], validation) >= (
        accuracy(found["ptq"], validation) - MAX_LOSS_POINTS
    )
    stored, learned = (f(quantized[0] / "learned") for f in (store.load, ranges.read))
    net = on_grids.fake_quantized(stored.net, torch.zeros(1, *SHAPE), learned)
    expected = loop.outputs(net, torch.from_numpy(inputs)).numpy()
    assert sqnr_db(expected, found["learned"]) > MIN_SQNR_DB


def test_int8_of_the_trained_net_runs_in_litert_and_loses_nothing(converted, validation):
    found = {}
    for name in ("ptq", "learned"):
        loaded = litert.load(str(converted[to_litert, name]), 1)
        (given,), (made,) = loaded.inputs, loaded.outputs
        found[name] = np.concatenate(
            [
                session.decode(loaded.run([session.encode(sample[None], given)])[0], made)
                for sample in validation.tensors()
            ]
        )
    assert accuracy(found["learned"], validation) >= (
        accuracy(found["ptq"], validation) - MAX_LOSS_POINTS
    )


def test_openvino_reads_the_exported_pairs(root, quantized, validation, tmp_path):
    folder = root / "exported" / "learned"
    variant = Variant(
        "learned", folder / "model.onnx", quantized[0] / "learned", manifest.read(folder)
    )
    cfg = params.Convert(precisions=("int8-static",), num_calibration=32)
    samples = splits.read(root / "calibration.npz").tensors()
    (outcome,) = to_openvino.convert(variant, ["int8-static"], samples, cfg, tmp_path / "out")
    assert outcome.status == "built", outcome.reason
    loaded = openvino.load(str(outcome.path), 1)
    found = np.concatenate([loaded.run([sample[None]])[0] for sample in validation.tensors()])
    expected = outputs_of((folder / "model.qdq.onnx").read_bytes(), validation.tensors())
    assert sqnr_db(expected, found) > MIN_SQNR_DB
    assert "nncf" not in outcome.tools  # no ranges of its own


def test_the_exported_pairs_are_what_tensorrt_asks_for(root, quantized):
    path = root / "exported" / "learned" / "model.onnx"
    samples = splits.read(root / "calibration.npz").tensors()
    content = onnx_qdq.quantize(path, samples)  # which refuses zero points and quantized biases
    expected = outputs_of(path.with_name("model.qdq.onnx").read_bytes(), samples)
    np.testing.assert_allclose(outputs_of(content, samples), expected, atol=1e-5)
    assert ranges.read(quantized[0] / "learned") is not None


def test_an_autoencoder_trains_on_its_grids():
    goal = objective.of(params.Task(kind="anomaly", metric="auc"))
    labels = torch.arange(90) % 3 // 2
    slopes = torch.linspace(-1, 1, 20)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(90, 1, generator=generator) * slopes
    inputs += labels[:, None] * torch.randn(90, 20, generator=generator)
    tensors = loop.Tensors(inputs, labels)
    normal = loop.learnable(tensors, goal)
    with loop.deterministic(0):
        net = factory.build(params.Net(name="autoencoder"), (20,), 20)
        cfg = msgspec.structs.replace(QAT, epochs=15, patience=15)
        loop.fit(net, normal, tensors, cfg, 0, objective=goal)
    teacher = distill.teaching(net, normal, QAT)
    found = qat.train(net, normal.inputs[:32], normal, tensors, teacher, QAT, goal)
    assert len(found.ranges) == 10
    assert found.fit.best.quality > 80


def test_training_beats_ranges_alone_where_int8_hurts(root):
    """A layer whose channels differ by a factor of thousands: its grid is too coarse for most."""
    stored = store.load(root / "trained")
    train, tensors = (loop.Tensors.read(root / f"{n}.npz") for n in ("train", "validation"))
    teacher = distill.teaching(stored.net, train, QAT)
    net = store.load(root / "trained").net
    with torch.no_grad():  # one input of the head dwarfs the others
        net.inner_norm.weight[0] *= 3000
        net.inner_norm.bias[0] *= 3000
        net.head.weight[:, :9] /= 3000
    cfg = msgspec.structs.replace(QAT, epochs=8, patience=8)
    found = qat.train(net, train.inputs[:64], train, tensors, teacher, cfg, CLASSIFICATION)
    assert loop.evaluate(net, tensors).quality > found.calibrated_quality + 10
    assert found.fit.best.quality > found.calibrated_quality + 10


def test_a_net_without_layers_is_refused(root):
    train, validation = (loop.Tensors.read(root / f"{n}.npz") for n in ("train", "validation"))

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.mean((1, 2))[:, :3] * self.scale

    with pytest.raises(NetError, match="no convolution or linear layer that ModelOpt quantizes"):
        qat.train(Bare(), train.inputs[:8], train, validation, lambda _: None, QAT, CLASSIFICATION)


def test_without_modelopt_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelopt.torch", None)
    train = loop.Tensors.read(root / "train.npz")
    with pytest.raises(
        DependencyError, match=r"nvidia-modelopt is not installed; .*slipway\[qat\]"
    ):
        qat.train(
            store.load(root / "trained").net,
            train.inputs[:8],
            train,
            train,
            lambda _: None,
            QAT,
            CLASSIFICATION,
        )
