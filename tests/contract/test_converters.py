"""What every converter promises for every precision it makes, held on real conversions of a net.

The oracle is the fp32 net in PyTorch; the artifact runs in its own runtime, one sample at a time.
Here are the routes whose tools are always installed and whose files run on this machine;
tests/systems/test_converters.py holds the others to the same.
"""

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import compatibility, manifest, params, preprocessing
from pipeline.conversion import from_onnx
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.errors import ConversionError
from pipeline.nets import factory, store
from pipeline.runtimes import session

SHAPE, NUM_CLASSES, NUM_CALIBRATION = (1, 8, 8), 4, 32
SUFFIXES = {"onnxruntime": "onnx", "litert": "tflite", "openvino": "xml"}


@dataclass(frozen=True)
class Route:
    """A converter, and whether the model came as an ONNX file."""

    converter: str
    from_onnx: bool = False

    def __str__(self):
        return self.converter + (" from ONNX" if self.from_onnx else "")

    @property
    def runtime(self):
        return compatibility.RUNTIMES[self.converter][0]

    @property
    def layout(self):
        return "NHWC" if self == Route("to_litert", from_onnx=True) else "NCHW"


ROUTES = [
    Route(converter)
    for converter, extras in compatibility.CONVERTER_EXTRAS.items()
    if not extras and compatibility.EVIDENCE[converter] == "measured"
]

# Least signal-to-quantization-noise ratio of the outputs, in dB; their mean over the samples is no
# signal. The net has nine layers and random weights, so its outputs hardly differ: trained nets do
# better. A wrong scale, zero-point or layout gives less than 10.
MIN_SQNR_DB = {
    "fp32": 100.0,  # same arithmetic in another order; 119 seen
    "bf16": 30.0,  # 8 bits of mantissa
    "fp16-weights": 52.0,  # 11 bits of mantissa are some 66 dB a layer; 58 seen
    "int8-dynamic": 25.0,  # 8 bits of min-max range are some 40 dB a tensor; 31 seen
    "int8-static": 17.0,  # the same, with ranges from other samples; 21 seen
}
MAX_SIZE_RATIO = {"fp32": 1.0, "bf16": 1.0, "fp16-weights": 0.6}  # of fp32; int8: 0.45


def pytest_generate_tests(metafunc):
    """Parametrize by the module's own ROUTES: another module may hold other routes to this."""
    routes = metafunc.module.ROUTES
    if "case" in metafunc.fixturenames:
        cases = [(r, p) for r in routes for p in precisions_of(r)]
        metafunc.parametrize("case", cases, ids=lambda c: f"{c[0]} {c[1]}")
    elif "route" in metafunc.fixturenames:
        metafunc.parametrize("route", routes, ids=str)


def precisions_of(route):
    """A precision that this machine's processor lacks is not built, by any converter."""
    made = compatibility.PRECISIONS[route.converter]
    if route.runtime == "openvino":
        from pipeline.runtimes.openvino import openvino  # itself, it reports to its vendor

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return [p for p in made if p != "bf16"]
    return list(made)


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
    return Variant("dense", path, folder / "net", stated(path, signature))


@pytest.fixture(scope="module")
def adopted(variant, samples, tmp_path_factory):
    """The same net, as if its ONNX file were all that there is."""
    path = tmp_path_factory.mktemp("adopted") / "model.onnx"
    found = from_onnx.adopt(variant.onnx, samples, 1e-4)
    path.write_bytes(found.content)
    return Variant("dense", path, None, stated(path, found.signature))


def stated(path, signature):
    return manifest.write(
        path.parent,
        model="tiny",
        stage="export",
        opset=20,
        signature=signature,
        params={"export": {"opset": 20, "max_abs_error": 1e-4}},
        preprocessing=({"step": "channels_first"},),
        tools={"torch": "2"},
    )


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(variant, samples):
    with torch.no_grad():
        return store.load(variant.net).net(torch.from_numpy(samples)).numpy()


def convert(route, variant, samples, out, precisions=None):
    cfg = params.Convert(
        precisions=tuple(precisions or precisions_of(route)), num_calibration=NUM_CALIBRATION
    )
    module = importlib.import_module(f"pipeline.conversion.{route.converter}")
    return module.convert(variant, list(cfg.precisions), samples, cfg, out)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-place") / "deeper"


@pytest.fixture(scope="module")
def built(request, variant, adopted, samples, folders):
    """Outcomes by (route, precision), of both folders."""
    found = {}
    for number, route in enumerate(request.module.ROUTES):
        source = adopted if route.from_onnx else variant
        outs = [folder / str(number) for folder in folders]
        both = [convert(route, source, samples, out) for out in outs]
        found |= {(route, one.precision): (one, two) for one, two in zip(*both, strict=True)}
    return found


def contents(outcome):
    return {path.name: path.read_bytes() for path in sorted(outcome.path.parent.iterdir())}


def open_session(case, outcome):
    adapter = importlib.import_module(f"pipeline.runtimes.{case[0].runtime}")
    return adapter.load(str(outcome.path), 1)


def sqnr_db(reference, outputs):
    noise = ((reference.astype(np.float64) - outputs) ** 2).sum()
    return 10 * np.log10(((reference - reference.mean(0)).astype(np.float64) ** 2).sum() / noise)


def test_outcome_is_complete(built, case):
    outcome, _ = built[case]
    suffix = SUFFIXES[case[0].runtime]
    assert (outcome.status, outcome.reason) == ("built", None)
    assert outcome.candidate == f"dense-{case[1]}"
    assert outcome.path.name == f"model.{suffix}"
    assert outcome.path.parent.name == outcome.candidate
    assert outcome.format == suffix
    assert outcome.opset == (20 if suffix == "onnx" else None)
    assert outcome.tools
    assert "absent" not in outcome.tools.values()
    assert all(manifest.inputs_of(**outcome.sources))
    beside = {"model.bin"} if suffix == "xml" else set()
    assert set(contents(outcome)) == {outcome.path.name, *beside}


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
    rules = compatibility.INTEGER_RULES[case[0].converter]
    is_integer = rules.integer_io and case[1] == "int8-static"
    assert {t.dtype for t in (*stated.inputs, *stated.outputs)} == {
        "int8" if is_integer else "float32"
    }
    assert [t.name for t in (*stated.inputs, *stated.outputs)] == ["input", "output"]
    assert [t.layout for t in (*stated.inputs, *stated.outputs)] == [case[0].layout, None]
    assert stated.inputs[0].shape[1:] == laid_out(np.empty((1, *SHAPE)), case[0]).shape[1:]
    assert stated.outputs[0].shape[1:] == (NUM_CLASSES,)


def laid_out(samples, route):
    return np.moveaxis(samples, 1, -1) if route.layout == "NHWC" else samples


def test_preprocessing_gives_what_the_file_takes(built, case, samples):
    outcome, _ = built[case]
    raw = np.moveaxis(samples, 1, -1)  # the variants' manifests say channels_first
    steps = outcome.preprocessing
    own = preprocessing.apply([{"step": "channels_first"}] if steps is None else steps, raw)
    assert np.array_equal(own, laid_out(samples, case[0]))


def test_outputs_agree_with_the_net(built, case, samples, expected):
    outcome, _ = built[case]
    loaded = open_session(case, outcome)
    (taken,), (given,) = outcome.signature.inputs, outcome.signature.outputs
    outputs = [
        session.decode(
            loaded.run([session.encode(sample[None], as_session(taken))])[0], as_session(given)
        )
        for sample in laid_out(samples, case[0])
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
    assert contents(outcome) == contents(again)
    assert replace(outcome, path=None) == replace(again, path=None)


def test_no_folder_is_named_in_the_file(built, case, folders):
    homes = (*folders, Path(__file__).parents[2], Path.home(), Path("/tmp"))
    for content in contents(built[case][0]).values():
        for path in (*map(str, homes), "site-packages", ".py"):
            assert path.encode() not in content


def test_each_precision_is_what_it_says(built, route):
    sizes = {
        precision: sum(map(len, contents(outcome).values()))
        for (found, precision), (outcome, _) in built.items()
        if found == route
    }
    for precision, size in sizes.items():
        assert size <= MAX_SIZE_RATIO.get(precision, 0.45) * sizes["fp32"]


def test_order_of_calibration_samples_is_indifferent(
    built, route, variant, adopted, samples, tmp_path
):
    backwards = samples[:NUM_CALIBRATION][::-1].copy()
    source = adopted if route.from_onnx else variant
    (outcome,) = convert(route, source, backwards, tmp_path, ["int8-static"])
    first, _ = built[route, "int8-static"]
    assert contents(outcome) == contents(first)


def test_a_precision_of_another_converter_is_refused(route, variant, samples, tmp_path):
    expected = rf"{route.converter} makes fp32, .*, got 'int4'; mend"
    with pytest.raises(ConversionError, match=expected):
        convert(route, variant, samples, tmp_path, ["fp32", "int4"])
    assert not list(tmp_path.iterdir())


def test_too_few_calibration_samples_are_refused(route, variant, samples, tmp_path):
    with pytest.raises(
        ConversionError, match=r"num_calibration of the target asks for 32 samples, .* has 31; "
    ):
        convert(route, variant, samples[:31], tmp_path)
    assert not list(tmp_path.iterdir())
