"""The user's own ONNX file: what is handled, and one clear line for each that is not."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import params
from pipeline.conversion import from_onnx, onnx_read, to_onnxruntime
from pipeline.conversion.candidates import Variant
from pipeline.errors import ConversionError, ParityError
from pipeline.manifest import Manifest, Tensor
from pipeline.runtimes import structured

TOLERANCE = 1e-5


def run(content, image):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def test_a_file_with_a_dynamic_batch_keeps_it(make_onnx, images):
    path = make_onnx()
    adopted = from_onnx.adopt(path, images, TOLERANCE)
    assert adopted.signature.inputs == (
        Tensor("image", "float32", ("batch", 3, 8, 8), layout="NCHW"),
    )
    assert adopted.signature.outputs == (Tensor("scores", "float32", ("batch", 2)),)
    assert (adopted.opset, adopted.max_abs_error, adopted.top1_agreement_ratio) == (13, 0.0, 1.0)
    assert np.array_equal(run(adopted.content, images[:3]), run(path.read_bytes(), images[:3]))


def test_a_fixed_batch_of_one_stays(make_onnx, images):
    adopted = from_onnx.adopt(make_onnx(batch=1), images, TOLERANCE)
    assert adopted.signature.inputs[0].shape == (1, 3, 8, 8)
    assert adopted.signature.outputs[0].shape == (1, 2)


def test_another_fixed_batch_becomes_symbolic_and_one_sample_runs(make_onnx, images):
    path = make_onnx(batch=8)
    adopted = from_onnx.adopt(path, images, TOLERANCE)
    assert adopted.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert adopted.signature.outputs[0].shape == ("batch", 2)
    expected = run(path.read_bytes(), images[:8])[:1]
    np.testing.assert_allclose(run(adopted.content, images[:1]), expected, atol=TOLERANCE)


def test_other_dynamic_axes_are_fixed_to_the_samples(make_onnx, images):
    adopted = from_onnx.adopt(make_onnx(size="side"), images, TOLERANCE)
    assert adopted.signature.inputs[0].shape == ("batch", 3, 8, 8)


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12])
def test_an_older_opset_is_raised_and_computes_the_same(make_onnx, images, opset):
    path = make_onnx(opset)
    adopted = from_onnx.adopt(path, images, TOLERANCE)
    assert adopted.opset == 13
    model = onnx.load_from_string(adopted.content)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["image"]
    np.testing.assert_allclose(
        run(adopted.content, images), run(path.read_bytes(), images), atol=TOLERANCE
    )


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_a_newer_opset_stays(make_onnx, images, opset):
    assert from_onnx.adopt(make_onnx(opset), images, TOLERANCE).opset == opset


def test_an_old_file_can_then_be_quantized_with_a_scale_a_channel(make_onnx, images, tmp_path):
    adopted = from_onnx.adopt(make_onnx(7), images, TOLERANCE)
    path = tmp_path / "adopted" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(adopted.content)
    (path.parent / "manifest.json").write_text("{}")
    variant = Variant("plain", path, None, Manifest(model="m", stage="adopt"))
    cfg = params.Convert(precisions=("fp32", "int8-static"), num_calibration=16)
    outcomes = to_onnxruntime.convert(variant, cfg.precisions, images, cfg, tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["built", "built"]
    constants = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(outcomes[1].path).graph.initializer
    }
    assert constants["w_scale"].shape == (4,)
    quantized = run(outcomes[1].path.read_bytes(), images[:4])
    np.testing.assert_allclose(quantized, run(adopted.content, images[:4]), atol=0.02)


def test_bytes_are_equal_each_time_and_hold_no_metadata(make_onnx, images):
    def mark(model):
        model.producer_name, model.doc_string = "/home/somebody", "/home/somebody"
        model.metadata_props.add(key="author", value="/home/somebody")

    path = make_onnx(11, change=mark)
    first, second = (from_onnx.adopt(path, images, TOLERANCE).content for _ in range(2))
    assert first == second
    assert b"somebody" not in first


def test_every_node_has_a_name_of_its_own(make_onnx, images):
    def rename(model):
        for node in model.graph.node:
            node.name = "same"
        model.graph.node[0].name = ""

    content = from_onnx.adopt(make_onnx(change=rename), images, TOLERANCE).content
    names = [node.name for node in onnx.load_from_string(content).graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_functions_are_inlined_for_converters_that_know_none(make_onnx, images):
    def add_function(model):
        double = helper.make_node("Add", ["x", "x"], ["y"])
        imports = [helper.make_opsetid("", 13)]
        model.functions.append(
            helper.make_function("mine", "Double", ["x"], ["y"], [double], imports)
        )

    middle = [helper.make_node("Double", ["c"], ["m"], domain="mine", name="twice")]
    path = make_onnx(middle=middle, imports=[("mine", 1)], ir_version=8, change=add_function)
    model = onnx.load_from_string(from_onnx.adopt(path, images, TOLERANCE).content)
    assert not model.functions
    assert "Add" in {node.op_type for node in model.graph.node}


def test_an_image_whose_channels_come_last_is_said_to(make_onnx, images):
    def turn(model):
        first = model.graph.node[0]
        first.input[0] = "turned"
        order = helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])
        model.graph.node.insert(0, order)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[1].dim_value, dims[3].dim_value = 8, 3

    last = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    adopted = from_onnx.adopt(make_onnx(change=turn), last, TOLERANCE)
    assert adopted.signature.inputs[0].layout == "NHWC"


def test_control_flow_is_taken(make_onnx, images):
    def branch(name, operator):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["c"], [name])], name, [], [value])

    middle = [
        helper.make_node("ReduceMax", ["c"], ["top"], keepdims=0),
        helper.make_node("Constant", [], ["limit"], value_float=1e6),
        helper.make_node("Less", ["top", "limit"], ["is_small"]),
        helper.make_node(
            "If", ["is_small"], ["m"], name="choice",
            then_branch=branch("yes", "Relu"), else_branch=branch("no", "Neg"),
        ),
    ]  # fmt: skip
    adopted = from_onnx.adopt(make_onnx(middle=middle), images, TOLERANCE)
    assert adopted.max_abs_error <= TOLERANCE


@pytest.fixture
def two_inputs(tmp_path):
    """Adds an image's mean to a vector, with two outputs."""
    values = {
        "image": ("N", 3, 8, 8), "extra": ("N", 3), "sum": ("N", 3), "mean": ("N", 3),
    }  # fmt: skip
    infos = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in values.items()}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "extra"], ["sum"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [infos["image"], infos["extra"]], [infos["sum"], infos["mean"]]
    )
    path = tmp_path / "two.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path
    )
    return path


def test_several_inputs_are_fed_by_name_and_several_outputs_are_compared(two_inputs, images):
    extra = np.arange(60, dtype=np.float32).reshape(20, 3)
    samples = structured.join({"extra": extra, "image": images})
    adopted = from_onnx.adopt(two_inputs, samples, TOLERANCE)
    assert [t.name for t in adopted.signature.inputs] == ["image", "extra"]
    assert [t.name for t in adopted.signature.outputs] == ["sum", "mean"]
    session = onnxruntime.InferenceSession(adopted.content, providers=["CPUExecutionProvider"])
    total, mean = session.run(None, {"image": images, "extra": extra})
    np.testing.assert_allclose(total, mean + extra, atol=TOLERANCE)


def test_inputs_without_their_samples_are_named(two_inputs, images):
    with pytest.raises(ConversionError, match=r"takes inputs \['extra', 'image'\], the samples"):
        from_onnx.adopt(two_inputs, images, TOLERANCE)


def as_string(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    model.graph.node[0].op_type = "Identity"
    del model.graph.node[0].attribute[:]
    del model.graph.node[0].input[1:]
    del model.graph.node[1:]
    model.graph.node[0].output[0] = "scores"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        model.graph.input[0].type.tensor_type.shape
    )


def as_sequence(model):
    del model.graph.node[1:]
    model.graph.node[0].CopyFrom(helper.make_node("SequenceConstruct", ["image"], ["scores"]))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None)
    )


def as_classes(model):
    model.graph.node[-1].CopyFrom(helper.make_node("ArgMax", ["l"], ["scores"], axis=1))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("scores", TensorProto.INT64, ("N", 1))
    )


def with_nan(model):
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0, 0, 0] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, "w"))


def with_division_by_zero(model):
    model.graph.node[2].CopyFrom(helper.make_node("Log", ["zero"], ["m"]))
    zero = helper.make_node("Sub", ["c", "c"], ["zero"])
    model.graph.node.insert(2, zero)


def with_short_weights(model):
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def with_unknown(model):
    model.graph.node[2].CopyFrom(helper.make_node("Frobnicate", ["c"], ["m"], name="odd"))


def with_foreign(model):
    node = helper.make_node("Frobnicate", ["c"], ["m"], name="odd", domain="mine")
    model.graph.node[2].CopyFrom(node)
    model.opset_import.append(helper.make_opsetid("mine", 1))


def with_reshape_to_eight(model):
    model.graph.node[4].CopyFrom(helper.make_node("Reshape", ["g", "to"], ["f"], name="fixed"))
    to = numpy_helper.from_array(np.array([8, 4], np.int64), "to")
    model.graph.initializer.append(to)


def without_opset(model):
    del model.opset_import[:]


def from_the_future(model):
    model.opset_import[0].version = 999


def with_cycle(model):
    model.graph.node[0].input[0] = "scores"


REFUSED = {
    "strings": (as_string, {}, r"input 'image' is a string, not a tensor of numbers; export"),
    "a sequence": (as_sequence, {}, r"output 'scores' is a sequence_type, not a tensor"),
    "integers out": (as_classes, {}, r"output 'scores' is int64; slipway gives and takes float32"),
    "weights that are NaN": (with_nan, {}, r"weights 'w' are NaN in 1 of 108 values; training"),
    "outputs that are infinite": (
        with_division_by_zero,
        {},
        r"output 'scores' of the user's file is NaN or infinite for 20 of 20 validation samples",
    ),
    "too few weights": (
        with_short_weights,
        {},
        r"user.onnx: onnx refuses the model: .*tensor name: w.* is too small",
    ),
    "an operator that ONNX lacks": (
        with_unknown,
        {},
        r"operator Frobnicate of node 'odd' is not in ONNX's opset 13",
    ),
    "an operator of nobody": (
        with_foreign,
        {},
        r"onnxruntime does not support operator mine:Frobnicate.*\(node 'odd'\)",
    ),
    "a batch fixed inside": (
        with_reshape_to_eight,
        {"batch": 8},
        r"fixes its batch inside and cannot run one sample, as targets do: .*; export it with",
    ),
    "no operator set": (without_opset, {}, r"is no ONNX file: it has no graph or operator set"),
    "an opset of the future": (from_the_future, {}, r"has opset 999, onnx .* knows up to \d+"),
    "a cycle": (with_cycle, {}, r"user.onnx: onnx refuses the model: "),
    "channels last samples": (
        None,
        {"turned": True},
        r"takes \[N, 3, 8, 8\], .* are \[batch, 8, 8, 3\]; end data.preprocessing with ch",
    ),
    "other sizes": (
        None,
        {"size": 16},
        r"'image' takes \[N, 3, 16, 16\], the preprocessed samples are \[batch, 3, 8, 8\]; mend",
    ),
}


@pytest.mark.parametrize(("change", "settings", "expected"), REFUSED.values(), ids=REFUSED)
def test_one_line_says_what_is_wrong(make_onnx, images, change, settings, expected):
    settings = dict(settings)
    if settings.pop("turned", False):
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    path = make_onnx(change=change, **settings)
    with pytest.raises((ConversionError, ParityError), match=expected) as raised:
        from_onnx.adopt(path, images, TOLERANCE)
    assert "\n" not in str(raised.value)


DAMAGED = {
    "empty": (lambda _: b"", r"\(0 bytes\) is no ONNX file"),
    "truncated": (lambda content: content[: len(content) // 2], r"is no readable ONNX file: it is"),
    "without its last byte": (lambda content: content[:-1], r"is no readable ONNX file"),
    "random bytes": (
        lambda content: np.random.default_rng(3).bytes(len(content)),
        r"is no readable ONNX file",
    ),
    "another format": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(99), r"is no (readable )?ONNX"),
    "a text": (lambda _: b"<html>404</html>", r"is no (readable )?ONNX file"),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_line(make_onnx, images, damage, expected):
    path = make_onnx()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConversionError, match=expected) as raised:
        from_onnx.adopt(path, images, TOLERANCE)
    assert "\n" not in str(raised.value)


def test_every_truncation_is_refused(make_onnx, images):
    path = make_onnx()
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises((ConversionError, ParityError)):
            from_onnx.adopt(path, images, TOLERANCE)


def test_a_spoiled_byte_is_taken_or_refused_and_never_a_trace(make_onnx, images):
    path = make_onnx(11)
    content, taken, refused = path.read_bytes(), 0, []
    for seed in range(100):
        draw, spoiled = np.random.default_rng(seed), bytearray(content)
        for place in draw.integers(len(content), size=draw.integers(1, 6)):
            spoiled[place] = draw.integers(256)
        path.write_bytes(spoiled)
        try:
            from_onnx.adopt(path, images[:2], TOLERANCE)
            taken += 1
        except (ConversionError, ParityError) as error:
            refused.append(str(error))
    assert taken + len(refused) == 100
    assert taken, "a changed weight is a net all the same"
    assert refused
    assert [line for line in refused if "\n" in line or not line.strip()] == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConversionError, match=r"there is no file .*none.onnx; put it there"):
        from_onnx.describe(tmp_path / "none.onnx")


def test_weights_of_2_gb_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(onnx_read.LIMIT_BYTES)  # sparse: takes no room
    expected = r"has 2,147,483,648 bytes; slipway takes models with weights below 2 GB"
    with pytest.raises(ConversionError, match=expected):
        from_onnx.describe(path)


@pytest.fixture
def external(make_onnx):
    """Write a model whose weights are in a file beside it."""

    def make(location="weights.bin", **more):
        path = make_onnx()
        model = onnx.load(path)
        values = {t.name: t for t in model.graph.initializer}
        content = values["w"].raw_data
        values["w"].ClearField("raw_data")
        values["w"].data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": "16", "length": str(len(content)), **more}
        for key, value in entries.items():
            values["w"].external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        (path.parent / "weights.bin").write_bytes(bytes(16) + content)
        return path

    return make


def test_weights_beside_the_file_are_taken_in(external, make_onnx, images):
    whole = from_onnx.adopt(make_onnx(), images, TOLERANCE).content
    path = external()
    assert from_onnx.adopt(path, images, TOLERANCE).content == whole
    inlined = from_onnx.inlined(path)
    (path.parent / "weights.bin").unlink()
    path.write_bytes(inlined)
    assert from_onnx.adopt(path, images, TOLERANCE).content == whole


def test_a_file_without_external_weights_keeps_its_bytes(make_onnx):
    path = make_onnx()
    assert from_onnx.inlined(path) == path.read_bytes()


def test_missing_weights_are_named(external, images):
    path = external()
    (path.parent / "weights.bin").unlink()
    expected = r"external data of 'w' is missing: there is no file .*weights.bin; put it beside"
    with pytest.raises(ConversionError, match=expected):
        from_onnx.adopt(path, images, TOLERANCE)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "", "a\\b"])
def test_weights_elsewhere_are_refused(external, images, location):
    path = external(location)
    (path.parent.parent / "secret").write_bytes(bytes(1000))
    with pytest.raises(ConversionError, match=r"external data of 'w' is at .*, outside of the"):
        from_onnx.adopt(path, images, TOLERANCE)


def test_a_link_out_of_the_folder_is_refused(external, images, tmp_path_factory):
    path = external()
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_bytes(bytes(1000))
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to(secret)
    with pytest.raises(ConversionError, match=r"outside of the model's folder"):
        from_onnx.adopt(path, images, TOLERANCE)


def test_weights_cut_short_are_refused(external, images):
    path = external(length="500")
    with pytest.raises(ConversionError, match=r"is cut short: .* has 448 bytes, not 516; copy"):
        from_onnx.adopt(path, images, TOLERANCE)


def test_external_weights_of_2_gb_are_refused_before_they_are_read(external, images):
    path = external(length=str(onnx_read.LIMIT_BYTES))
    with (path.parent / "weights.bin").open("wb") as file:
        file.truncate(onnx_read.LIMIT_BYTES + 16)
    with pytest.raises(ConversionError, match=r"and its weights have 2,147,4.* below 2 GB"):
        from_onnx.adopt(path, images, TOLERANCE)


def test_a_file_that_computes_something_else_is_refused(make_onnx, images, monkeypatch):
    """The opset converter is trusted with nothing: here it changes a weight."""

    def spoil(model, version):
        made = convert(model, version)
        for tensor in made.graph.initializer:
            if tensor.name == "b":
                tensor.CopyFrom(numpy_helper.from_array(np.full(4, 9, np.float32), "b"))
        return made

    convert = onnx.version_converter.convert_version
    monkeypatch.setattr(onnx.version_converter, "convert_version", spoil)
    expected = r"outputs differ from the user's by 0\.\d+, allowed 1e-05 \(export.max_abs_error\)"
    with pytest.raises(ParityError, match=expected):
        from_onnx.adopt(make_onnx(11), images, TOLERANCE)


def test_what_init_prints(make_onnx):
    described = from_onnx.describe(make_onnx())
    # 8x8 positions of 4 channels, each a sum of 3x3x3; and 4 by 2
    assert described.macs == 64 * 4 * 27 + 8
    assert described.parameters == 108 + 4 + 8
    assert described.line() == (
        "opset 13, input image[N,3,8,8] float32, output scores[N,2]; 6.92 k MACs, 120 parameters"
    )


def test_open_axes_leave_macs_unknown(make_onnx):
    assert "MACs unknown" in from_onnx.describe(make_onnx(size="side")).line()


SHARED = {  # side and largest value of its images, what init prints
    "pretrainedResnet": (32, 255, "Identity[1,10]; 12.5 M MACs, 77.7 k parameters"),
    "vww_96_float": (96, 1, "Identity[1,2]; 7.49 M MACs, 211 k parameters"),
}


@pytest.mark.parametrize(("name", "about"), SHARED.items(), ids=SHARED)
def test_the_shared_files_are_adopted_and_quantized(data_path, tmp_path, name, about):
    """Parity with the user's file is exact; int8 keeps its answers within a few percent."""
    size, largest, line = about
    path = data_path / "mlperf-tiny" / "models" / "onnx" / f"{name}.onnx"
    line = f"opset 11, input input_1[1,3,{size},{size}] float32, output {line}"
    assert from_onnx.describe(path).line() == line
    draw = np.random.default_rng(0)  # blocks of colour: noise says nothing to these nets
    small = draw.random((24, 3, size // 8, size // 8), np.float32)
    samples = small.repeat(8, axis=2).repeat(8, axis=3) * np.float32(largest)
    adopted = from_onnx.adopt(path, samples, TOLERANCE)
    assert adopted.opset == 13
    assert adopted.max_abs_error <= 1e-6
    file = tmp_path / "adopted" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(adopted.content)
    (file.parent / "manifest.json").write_text("{}")
    variant = Variant("plain", file, None, Manifest(model="m", stage="adopt"))
    cfg = params.Convert(precisions=("fp32", "int8-dynamic", "int8-static"), num_calibration=16)
    outcomes = to_onnxruntime.convert(variant, cfg.precisions, samples, cfg, tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["built"] * 3
    found = [
        np.concatenate([run_first(outcome.path, sample[None]) for sample in samples])
        for outcome in outcomes
    ]
    assert np.abs(found[0] - found[2]).mean() <= 0.03
    assert outcomes[2].path.stat().st_size < outcomes[0].path.stat().st_size / 1.9


def run_first(path, sample):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: sample})[0]
