"""The user's ONNX file in LiteRT, by TensorFlow in its own environment; and target by target.

The oracle is the user's file in ONNX Runtime.
"""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from pipeline import compatibility, files, manifest, params, preprocessing
from pipeline.chain import adopt, convert
from pipeline.conversion import from_onnx, onnx_to_tflite, to_litert
from pipeline.conversion.candidates import Variant
from pipeline.data import splits
from pipeline.errors import ConversionError
from pipeline.runtimes import litert, session, structured
from pipeline.targets import tools

TOLERANCE = 1e-5
IMAGE = ("N", 3, 8, 8)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path, nodes, inputs, outputs, weights, imports=()):
    """Write a model at opset 17; ``inputs`` and ``outputs`` map names to shapes."""
    ins, outs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items()]
        for values in (inputs, outputs)
    )
    held = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    sets = [helper.make_opsetid("", 17), *(helper.make_opsetid(*entry) for entry in imports)]
    graph = helper.make_graph(nodes, "g", ins, outs, held)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path


def adopted(path, samples, folder, steps=()):
    """Adopt a file, as the stage does."""
    found = from_onnx.adopt(path, samples, TOLERANCE)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(found.content)
    written = manifest.write(
        folder,
        model="own",
        stage="adopt",
        signature=found.signature,
        params={"export": {"max_abs_error": 1e-4}},
        preprocessing=steps,
    )
    return Variant("plain", folder / "model.onnx", None, written)


def make(variant, samples, out, precisions=("fp32", "int8-static")):
    cfg = params.Convert(precisions=precisions, num_calibration=min(16, len(samples)))
    return to_litert.convert(variant, precisions, samples, cfg, out)


def run_onnx(path, samples):
    """Each sample alone, since a file may have a batch of one."""
    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in opened.get_inputs()]
    rows = []
    for row in range(len(samples)):
        parts = structured.parts(samples[row : row + 1])
        fields = samples.dtype.names or names
        rows.append(opened.run(None, dict(zip(fields, parts, strict=True)))[0])
    return np.concatenate(rows)


def run_tflite(outcome, samples):
    """Raw samples through the candidate's own preprocessing, as a worker does it."""
    opened = litert.load(str(outcome.path), 1)
    tensors = preprocessing.apply_all(outcome.preprocessing or (), samples)
    rows = [
        opened.run(session.encode_all(tensors[row : row + 1], opened.inputs))
        for row in range(len(tensors))
    ]
    return np.concatenate([session.decode(row[0], opened.outputs[0]) for row in rows])


SHARED = {"pretrainedResnet": (32, 255), "vww_96_float": (96, 1)}  # side, largest value


@pytest.mark.parametrize(("name", "about"), SHARED.items(), ids=SHARED)
def test_the_shared_files_reach_litert_with_parity(data_path, tmp_path, name, about):
    """fp32 to within 1e-5 of the user's file; int8 about as near as the reference's own int8 is."""
    size, largest = about
    small = np.random.default_rng(0).random((24, 3, size // 8, size // 8), np.float32)
    samples = small.repeat(8, axis=2).repeat(8, axis=3) * np.float32(largest)
    path = data_path / "mlperf-tiny" / "models" / "onnx" / f"{name}.onnx"
    every = compatibility.PRECISIONS["to_litert"]
    outcomes = make(adopted(path, samples, tmp_path / "adopted"), samples, tmp_path / "out", every)
    assert [(o.status, o.reason) for o in outcomes] == [("built", None)] * 4
    expected = run_onnx(path, samples)
    found = {o.precision: np.abs(run_tflite(o, samples) - expected) for o in outcomes}
    assert found["fp32"].max() <= TOLERANCE
    assert found["fp16-weights"].max() <= 0.01
    for precision in ("int8-dynamic", "int8-static"):
        assert found[precision].mean() <= 0.03
    (taken,) = outcomes[3].signature.inputs
    assert (taken.dtype, taken.layout, taken.shape) == ("int8", "NHWC", (1, size, size, 3))
    assert outcomes[0].preprocessing == ({"step": "channels_last"},)
    assert outcomes[0].tools == {
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        **{t: tools.version(t, "convert-tensorflow", tools.environments_path())
           for t in ("onnx2tf", "tensorflow")},
    }  # fmt: skip


def classifier(path, middle, weights=None, imports=()):
    """A convolution, ``middle`` from c to m, a mean."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="first", pads=[1] * 4),
        *middle,
        helper.make_node("GlobalAveragePool", ["m"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["scores"], name="flat"),
    ]
    held = {"w": draw(4, 3, 3, 3), **(weights or {})}
    return write(path, nodes, {"image": IMAGE}, {"scores": ("N", 4)}, held, imports)


def channels_last(path):
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["c"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    shapes = {"image": ("N", 8, 8, 3)}
    return write(path, nodes, shapes, {"scores": ("N", 4)}, {"w": draw(4, 3, 3, 3)})


def flattening(path):
    """Flattens images in NCHW order, at a batch that it reads from the shape."""
    nodes = [
        helper.make_node("Shape", ["image"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["image", "to"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["scores"]),
    ]
    held = {"zero": np.array([0]), "rest": np.array([-1]), "w": draw(192, 4)}
    return write(path, nodes, {"image": IMAGE}, {"scores": ("N", 4)}, held)


def mask(path):
    """Gives an image of four channels."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["c"], ["mask"]),
    ]
    return write(path, nodes, {"image": IMAGE}, {"mask": ("N", 4, 8, 8)}, {"w": draw(4, 3, 3, 3)})


def signal(path):
    """A convolution over time."""
    nodes = [
        helper.make_node("Conv", ["wave", "w"], ["c"], pads=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["scores"], axes=[2], keepdims=0),
    ]
    return write(path, nodes, {"wave": ("N", 3, 16)}, {"scores": ("N", 4)}, {"w": draw(4, 3, 3)})


def attention(path):
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["a"]),
        helper.make_node("MatMul", ["x", "k"], ["b"]),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["o"]),
        helper.make_node("ReduceMean", ["o"], ["y"], axes=[1], keepdims=0),
    ]
    held = {"q": draw(6, 6), "k": draw(6, 6, seed=1)}
    return write(path, nodes, {"x": ("N", 7, 6)}, {"y": ("N", 6)}, held)


LAYOUTS = {  # model, a sample's shape, what the file takes of it, the input's layout
    "an image whose channels come last": (channels_last, (8, 8, 3), (1, 8, 8, 3), "NHWC"),
    "an image that is flattened": (flattening, (3, 8, 8), (1, 8, 8, 3), "NHWC"),
    "an image at the output": (mask, (3, 8, 8), (1, 8, 8, 3), "NHWC"),
    "a signal": (signal, (3, 16), (1, 3, 16), None),
    "a sequence": (attention, (7, 6), (1, 7, 6), None),
}


@pytest.mark.parametrize(("build", "shape", "takes", "layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_whatever_the_layout_raw_samples_give_the_users_outputs(
    tmp_path, build, shape, takes, layout
):
    path = build(tmp_path / "own.onnx")
    samples = draw(16, *shape)
    fp32, int8 = make(adopted(path, samples, tmp_path / "adopted"), samples, tmp_path / "out")
    assert (fp32.status, fp32.reason) == ("built", None)
    (taken,) = fp32.signature.inputs
    assert (taken.shape, taken.layout) == (takes, layout)
    expected = run_onnx(path, samples)
    found = run_tflite(fp32, samples)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert np.abs(run_tflite(int8, samples) - expected).mean() <= 0.05 * np.abs(expected).max()


def test_several_inputs_and_outputs_keep_their_names_and_order(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "extra"], ["sum/1:0"]),
        helper.make_node("Sub", ["mean", "extra"], ["difference"]),
    ]
    inputs = {"image": IMAGE, "extra": ("N", 3)}
    outputs = {"sum/1:0": ("N", 3), "difference": ("N", 3)}
    path = write(tmp_path / "own.onnx", nodes, inputs, outputs, {})
    samples = structured.join({"image": draw(16, 3, 8, 8), "extra": draw(16, 3, seed=1)})
    steps = {"image": (), "extra": ()}
    variant = adopted(path, samples, tmp_path / "adopted", steps)
    fp32, int8 = make(variant, samples, tmp_path / "out")
    for outcome in (fp32, int8):
        assert (outcome.status, outcome.reason) == ("built", None)
        assert [t.name for t in outcome.signature.inputs] == ["image", "extra"]
        assert [t.name for t in outcome.signature.outputs] == ["sum/1:0", "difference"]
        assert outcome.preprocessing == {"image": ({"step": "channels_last"},), "extra": ()}
    expected = samples["image"].mean((2, 3)) * samples["extra"]
    np.testing.assert_allclose(run_tflite(fp32, samples), expected, atol=TOLERANCE)
    assert np.abs(run_tflite(int8, samples) - expected).mean() <= 0.05


def test_a_swapped_layout_is_caught_with_both_numbers(tmp_path, monkeypatch):
    """Height and width of an image change places on the way into the finished file."""
    path = flattening(tmp_path / "own.onnx")
    samples = draw(16, 3, 8, 8)
    variant = adopted(path, samples, tmp_path / "adopted")
    monkeypatch.setattr(onnx_to_tflite, "_arranged", lambda images, _: images.transpose(0, 3, 2, 1))
    expected = (
        r"litert: outputs differ from the ONNX file's by [\d.]+, allowed 0.0001 "
        r"\(export.max_abs_error\); raise it, or replace"
    )
    with pytest.raises(ConversionError, match=expected):
        to_litert.lower(variant, samples)
    outcomes = make(variant, samples, tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["not_built"] * 2
    assert "allowed 0.0001" in outcomes[0].reason


def node(operator, **attributes):
    return helper.make_node(operator, ["c"], ["m"], name="the/odd:one", **attributes)


REFUSED = {  # what onnx2tf lacks, what another domain has, what LiteRT has no kernel for
    "LpPool": (node("LpPool", kernel_shape=[2, 2]), (), "LpPool"),
    "com.microsoft.Gelu": (
        node("Gelu", domain="com.microsoft"),
        (("com.microsoft", 1),),
        "com.microsoft.Gelu",
    ),
    "Asinh": (node("Asinh"), (), "Asinh"),
}


@pytest.mark.parametrize(("odd", "imports", "operator"), REFUSED.values(), ids=REFUSED)
def test_an_operator_without_a_form_is_named_with_its_node(tmp_path, odd, imports, operator):
    path = classifier(tmp_path / "own.onnx", [odd], imports=imports)
    samples = draw(16, 3, 8, 8)
    (outcome,) = make(
        adopted(path, samples, tmp_path / "adopted"), samples, tmp_path / "out", ("fp32",)
    )
    expected = f"litert does not support operator {operator}, node 'the/odd:one': "
    assert outcome.reason.startswith(expected)
    assert outcome.reason.endswith("; replace the layer")
    assert "\n" not in outcome.reason


def test_bytes_do_not_depend_on_the_folder(tmp_path):
    samples = draw(16, 3, 8, 8)
    contents = []
    for name in ("one", "another/deeper"):
        path = classifier(tmp_path / name / "own.onnx", [node("Relu")])
        variant = adopted(path, samples, tmp_path / name / "adopted")
        contents.append(to_litert.lower(variant, samples).content)
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in contents[0]


TARGETS = {
    "x86-onnxruntime": ("to_onnxruntime", "onnxruntime"),
    "x86-litert": ("to_litert", "litert"),
    "x86-openvino": ("to_openvino", "openvino"),
}


def test_an_unsupported_operator_is_named_per_target_while_the_others_ship(tmp_path):
    """ONNX Runtime computes determinants; LiteRT and OpenVINO do not."""
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="volume"),
        helper.make_node("Unsqueeze", ["d", "axis"], ["u"], name="row"),
        helper.make_node("MatMul", ["u", "w"], ["scores"], name="head"),
    ]
    held = {"axis": np.array([1]), "w": draw(1, 2)}
    onnx_path = write(tmp_path / "own.onnx", nodes, {"x": ("N", 4, 4)}, {"scores": ("N", 2)}, held)
    for name, number in (("validation", 40), ("calibration", 16)):
        labels = np.arange(number, dtype=np.int64) % 2
        split = splits.Split(draw(number, 4, 4), labels, ("a", "b"), ())
        splits.write(tmp_path / f"{name}.npz", split)
    (tmp_path / "tools.json").write_text("{}")
    plain = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="int8")
    targets = {
        key: params.Target(
            converter=converter,
            runtime=runtime,
            convert=params.Convert(precisions=("fp32",), num_calibration=16),
            profile=params.Profile(),
            select=params.Select(),
        )
        for key, (converter, runtime) in TARGETS.items()
    }
    pinned = params.Net(onnx="own.onnx", onnx_digest=files.digest_file(onnx_path))
    p = params.Params(
        model="own",
        data=params.load().data,
        task=params.Task(kind="classification", metric="accuracy"),
        net=pinned,
        export=params.load().export,
        recipes={"plain": plain},
        targets=targets,
    )
    exported = tmp_path / "exported"
    metrics = tmp_path / "metrics" / "export.json"
    adopt.run(tmp_path / "validation.npz", onnx_path, exported, metrics, p)
    records = {}
    for key in TARGETS:
        out, calibration = tmp_path / key, tmp_path / "calibration.npz"
        convert.run(exported, None, calibration, tmp_path / "tools.json", out, p, key)
        (records[key],) = json.loads((out / "candidates.json").read_text())
    assert records["x86-onnxruntime"]["status"] == "built"
    for key in ("x86-litert", "x86-openvino"):
        assert records[key]["status"] == "not_built"
        assert "operator Det, node 'volume'" in records[key]["reason"]
        assert set(manifest.verify(tmp_path / key).files) == {"candidates.json"}


def test_the_file_loads_without_our_help(tmp_path):
    """Whoever gets the file needs its bytes alone: no custom operator, a named signature."""
    path = classifier(tmp_path / "own.onnx", [node("Relu")])
    samples = draw(16, 3, 8, 8)
    lowered = to_litert.lower(adopted(path, samples, tmp_path / "adopted"), samples)
    signatures = Interpreter(model_content=lowered.content).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["image"], "outputs": ["scores"]}}
