"""What every converter promises for every precision it makes, held on real conversions of a net.

The oracle is the fp32 net in PyTorch; the artifact runs in its own runtime, one sample at a time.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import compatibility, manifest, params
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.errors import ConversionError
from pipeline.nets import factory, store
from pipeline.runtimes import session

SHAPE, NUM_CLASSES, NUM_CALIBRATION = (1, 8, 8), 4, 32
CASES = [(c, p) for c, precisions in compatibility.PRECISIONS.items() for p in precisions]
RUNTIMES = {"to_onnxruntime": "onnxruntime", "to_litert": "litert"}

# Least signal-to-quantization-noise ratio of the outputs, in dB; their mean over the samples is no
# signal. The net has nine layers and random weights, so its outputs hardly differ: trained nets do
# better. A wrong scale, zero-point or layout gives less than 10.
MIN_SQNR_DB = {
    "fp32": 100.0,  # same arithmetic in another order; 119 seen
    "fp16-weights": 52.0,  # 11 bits of mantissa are some 66 dB a layer; 58 seen
    "int8-dynamic": 25.0,  # 8 bits of min-max range are some 40 dB a tensor; 31 seen
    "int8-static": 17.0,  # the same, with ranges from other samples; 21 seen
}
INTEGER_IO = {("to_litert", "int8-static")}


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """A ResNet-8 for 8x8 images whose batch norms have seen data, stored and exported."""
    folder = tmp_path_factory.mktemp("variant")
    cfg = params.Net(name="resnet8")
    torch.manual_seed(0)
    net = factory.build(cfg, SHAPE, NUM_CLASSES)
    for _ in range(20):
        net(torch.randn(32, *SHAPE))
    net.eval()
    store.save(folder / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=NUM_CLASSES)
    (folder / "onnx").mkdir()
    path = folder / "onnx" / "model.onnx"
    signature = to_onnx(net, torch.zeros(1, *SHAPE), path, 20)
    written = manifest.write(
        path.parent,
        model="tiny",
        stage="export",
        opset=20,
        signature=signature,
        tools={"torch": "2"},
    )
    return Variant("dense", path, folder / "net", written)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(variant, samples):
    with torch.no_grad():
        return store.load(variant.net).net(torch.from_numpy(samples)).numpy()


def convert(converter, variant, samples, out, precisions=None):
    cfg = params.Convert(
        precisions=compatibility.PRECISIONS[converter], num_calibration=NUM_CALIBRATION
    )
    module = importlib.import_module(f"pipeline.conversion.{converter}")
    return module.convert(variant, precisions or cfg.precisions, samples, cfg, out)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-place") / "deeper"


@pytest.fixture(scope="module")
def built(variant, samples, folders):
    """Outcomes by (converter, precision), of both folders."""
    return {
        (converter, outcome.precision): (outcome, again)
        for converter in compatibility.PRECISIONS
        for outcome, again in zip(
            *(convert(converter, variant, samples, folder / converter) for folder in folders),
            strict=True,
        )
    }


@pytest.fixture(params=CASES, ids=" ".join)
def case(request):
    return request.param


def open_session(case, outcome):
    adapter = importlib.import_module(f"pipeline.runtimes.{RUNTIMES[case[0]]}")
    return adapter.load(str(outcome.path), 1)


def sqnr_db(reference, outputs):
    noise = ((reference.astype(np.float64) - outputs) ** 2).sum()
    return 10 * np.log10(((reference - reference.mean(0)).astype(np.float64) ** 2).sum() / noise)


def test_outcome_is_complete(built, case, folders):
    outcome, _ = built[case]
    suffix = {"to_onnxruntime": "onnx", "to_litert": "tflite"}[case[0]]
    assert (outcome.status, outcome.reason) == ("built", None)
    assert outcome.candidate == f"dense-{case[1]}"
    assert outcome.path == folders[0] / case[0] / outcome.candidate / f"model.{suffix}"
    assert outcome.format == suffix
    assert outcome.opset == (20 if suffix == "onnx" else None)
    assert outcome.tools
    assert all(manifest.inputs_of(**outcome.sources))
    assert [path.name for path in outcome.path.parent.iterdir()] == [outcome.path.name]


def test_signature_matches_the_file(built, case):
    outcome, _ = built[case]
    loaded = open_session(case, outcome)
    stated = outcome.signature
    for described, found in ((stated.inputs, loaded.inputs), (stated.outputs, loaded.outputs)):
        assert [(t.dtype, t.shape) for t in described] == [(t.dtype, t.shape) for t in found]
        for tensor, real in zip(described, found, strict=True):
            scale = tensor.quantization and tensor.quantization.scale
            zero_point = tensor.quantization and tensor.quantization.zero_point
            assert scale == (real.scale and (real.scale,))
            assert zero_point == (None if real.zero_point is None else (real.zero_point,))
            assert (tensor.dtype == "int8") == (tensor.quantization is not None)
    assert {t.dtype for t in (*stated.inputs, *stated.outputs)} == {
        "int8" if case in INTEGER_IO else "float32"
    }
    assert [t.name for t in (*stated.inputs, *stated.outputs)] == ["input", "output"]
    assert [t.layout for t in (*stated.inputs, *stated.outputs)] == ["NCHW", None]
    assert stated.inputs[0].shape[1:] == SHAPE
    assert stated.outputs[0].shape[1:] == (NUM_CLASSES,)


def test_outputs_agree_with_the_net(built, case, samples, expected):
    outcome, _ = built[case]
    loaded = open_session(case, outcome)
    (taken,), (given,) = outcome.signature.inputs, outcome.signature.outputs
    outputs = [
        session.decode(
            loaded.run([session.encode(sample[None], as_session(taken))])[0], as_session(given)
        )
        for sample in samples
    ]
    assert sqnr_db(expected, np.concatenate(outputs)) >= MIN_SQNR_DB[case[1]]


def as_session(tensor):
    """What the manifest states, not what the file does: a board may have only the manifest."""
    quantization = tensor.quantization
    return session.Tensor(
        tensor.name,
        tensor.dtype,
        (1, *tensor.shape[1:]),
        quantization and quantization.scale[0],
        quantization and quantization.zero_point[0],
    )


def test_two_folders_give_the_same_bytes(built, case):
    outcome, again = built[case]
    assert outcome.path != again.path
    assert outcome.path.read_bytes() == again.path.read_bytes()
    assert outcome.signature == again.signature


def test_no_folder_is_named_in_the_file(built, case, folders):
    content = built[case][0].path.read_bytes()
    homes = (*folders, Path(__file__).parents[2], Path.home(), Path("/tmp"))
    for path in (*map(str, homes), "site-packages", ".py"):
        assert path.encode() not in content


def test_each_precision_is_what_it_says(built):
    sizes = {case: outcome.path.stat().st_size for case, (outcome, _) in built.items()}
    for (converter, precision), size in sizes.items():
        most = {"fp32": 1.0, "fp16-weights": 0.6}.get(precision, 0.45)
        assert size <= most * sizes[converter, "fp32"]


@pytest.mark.parametrize("converter", compatibility.PRECISIONS)
def test_order_of_calibration_samples_is_indifferent(built, converter, variant, samples, tmp_path):
    backwards = samples[:NUM_CALIBRATION][::-1].copy()
    (outcome,) = convert(converter, variant, backwards, tmp_path, ["int8-static"])
    first, _ = built[converter, "int8-static"]
    assert outcome.path.read_bytes() == first.path.read_bytes()


@pytest.mark.parametrize("converter", compatibility.PRECISIONS)
def test_a_precision_of_another_converter_is_refused(converter, variant, samples, tmp_path):
    with pytest.raises(ConversionError, match=rf"{converter} makes fp32, .*, got 'int4'; mend"):
        convert(converter, variant, samples, tmp_path, ["fp32", "int4"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("converter", compatibility.PRECISIONS)
def test_too_few_calibration_samples_are_refused(converter, variant, samples, tmp_path):
    with pytest.raises(
        ConversionError, match=r"num_calibration of the target asks for 32 samples, .* has 31; "
    ):
        convert(converter, variant, samples[:31], tmp_path)
    assert not list(tmp_path.iterdir())
