"""What is OpenVINO's own: the precision that runs, its statement, its refusals, its two files.

What it shares with the other converters is in test_converters.py. The oracle is the fp32 net in
PyTorch, or numpy; the artifact runs in OpenVINO, one sample at a time.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from typer.testing import CliRunner

from pipeline import cli, compatibility, manifest, measurement, params
from pipeline.conversion import to_openvino
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.device import run
from pipeline.errors import DeviceError
from pipeline.nets import factory, store
from pipeline.profiling import layers as profiled
from pipeline.profiling import measure, workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.runtimes import openvino as adapter
from pipeline.runtimes import session
from pipeline.runtimes.errors import RunnerError

openvino = adapter.openvino  # imported before the adapter it would report to its vendor
ROOT = Path(__file__).parents[2]
SHAPE, NUM_CLASSES, NUM_CALIBRATION = (1, 8, 8), 4, 32
ALL = compatibility.PRECISIONS["to_openvino"]
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
MADE = [p for p in ALL if p != "bf16" or HAS_BF16]
# Least signal-to-quantization-noise ratio in dB: see tests/contract/test_converters.py.
MIN_SQNR_DB = {"fp32": 100.0, "bf16": 30.0, "fp16-weights": 52.0, "int8-static": 17.0}
LEARNED = "model.qdq.onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A ResNet-8 for 8x8 images whose batch norms have seen data: its variant, and the net."""
    folder = tmp_path_factory.mktemp("variant")
    cfg = params.Net(name="resnet8")
    torch.manual_seed(0)
    net = factory.build(cfg, SHAPE, NUM_CLASSES)
    for _ in range(20):
        net(torch.randn(32, *SHAPE))
    net.eval()
    store.save(folder / "net", net, cfg=cfg, input_shape=SHAPE, num_classes=NUM_CLASSES)
    path = folder / "onnx" / "model.onnx"
    path.parent.mkdir()
    to_onnx(net, torch.zeros(1, *SHAPE), path, 20)
    return variant_of(path), net


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(exported, samples):
    with torch.no_grad():
        return exported[1](torch.from_numpy(samples)).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module")
def built(exported, samples, folder):
    """Outcomes by precision."""
    return {outcome.precision: outcome for outcome in convert(exported[0], samples, folder)}


def variant_of(path):
    return Variant(path.stem, path, None, manifest.write(path.parent, model="m", stage="export"))


def convert(variant, samples, out, precisions=ALL, num_calibration=NUM_CALIBRATION):
    cfg = params.Convert(precisions=precisions, num_calibration=num_calibration)
    return to_openvino.convert(variant, precisions, samples, cfg, out)


def outputs_of(outcome, samples):
    loaded = adapter.load(str(outcome.path), 1)
    return np.concatenate([loaded.run([sample[None]])[0] for sample in samples])


def sqnr_db(reference, outputs):
    noise = ((reference.astype(np.float64) - outputs) ** 2).sum() + 1e-30
    return 10 * np.log10(((reference - reference.mean(0)).astype(np.float64) ** 2).sum() / noise)


def content(outcome):
    return {path.name: path.read_bytes() for path in sorted(outcome.path.parent.iterdir())}


@pytest.mark.parametrize("precision", MADE)
def test_outcome_is_complete(built, precision, folder):
    outcome = built[precision]
    assert (outcome.status, outcome.reason) == ("built", None)
    assert outcome.path == folder / f"model-{precision}" / "model.xml"
    assert sorted(content(outcome)) == ["model.bin", "model.xml"]
    assert outcome.format == "xml"
    used = {"nncf", "openvino"} if precision == "int8-static" else {"openvino"}
    assert set(outcome.tools) == used
    assert all(manifest.inputs_of(**outcome.sources))


@pytest.mark.parametrize("precision", MADE)
def test_signature_is_of_batch_one_and_matches_the_file(built, precision):
    outcome = built[precision]
    loaded = adapter.load(str(outcome.path), 1)
    stated = outcome.signature
    assert [(t.name, t.dtype, t.shape) for t in stated.inputs] == [
        (t.name, t.dtype, t.shape) for t in loaded.inputs
    ]
    assert [(t.name, t.dtype, t.shape, t.layout) for t in (*stated.inputs, *stated.outputs)] == [
        ("input", "float32", (1, *SHAPE), "NCHW"),
        ("output", "float32", (1, NUM_CLASSES), None),
    ]


@pytest.mark.parametrize("precision", MADE)
def test_no_folder_and_no_source_is_named_in_the_files(built, precision, folder):
    homes = (folder, ROOT, Path.home(), Path("/tmp"))
    for text in (*map(str, homes), "site-packages", ".py", "conversion_parameters", 'onnx"'):
        assert all(text.encode() not in found for found in content(built[precision]).values())


def test_bf16_is_built_only_where_the_cpu_has_it(built):
    """Elsewhere the plugin would imitate bfloat16, which is no candidate of anyone."""
    outcome = built["bf16"]
    if HAS_BF16:
        facts = adapter.load(str(outcome.path), 1).facts
        assert facts["executed_precisions"]["bf16"] > 0
        assert facts["inference_precision"] == "bf16"
    else:
        assert outcome.status == "not_built"
        assert outcome.reason == (
            "the model states bf16, and this CPU has no bfloat16 instructions (AVX512-BF16 or "
            "AMX); use the fp32 candidate"
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16-weights"])
def test_float_candidates_compute_in_fp32_and_nothing_else(built, precision):
    facts = adapter.load(str(built[precision].path), 1).facts
    assert facts["inference_precision"] == "f32"
    assert set(facts["executed_precisions"]) == {"f32"}


def test_fp16_weights_are_the_weights_rounded_to_half(built, exported, samples, tmp_path):
    """Whatever the plugin calls it, outputs are those of fp32 arithmetic on rounded weights."""
    model = onnx.load(exported[0].onnx)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            half = value.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    (tmp_path / "rounded").mkdir()
    onnx.save(model, tmp_path / "rounded" / "model.onnx")
    rounded = variant_of(tmp_path / "rounded" / "model.onnx")
    (oracle,) = convert(rounded, samples, tmp_path, ["fp32"])
    found = outputs_of(built["fp16-weights"], samples)
    assert sqnr_db(outputs_of(oracle, samples), found) >= MIN_SQNR_DB["fp32"]


def test_every_weighted_layer_of_int8_runs_in_int8(built):
    facts = adapter.load(str(built["int8-static"].path), 1).facts
    kernels = facts["kernels"]
    weighted = {k: n for k, n in kernels.items() if k.startswith(("Convolution", "FullyC"))}
    assert sum(weighted.values()) == 10  # 9 convolutions, 1 linear
    assert all(name.lower().endswith("_i8") for name in weighted)
    assert facts["executed_precisions"]["i8"] >= 10


def test_layers_have_their_names_times_and_kernels(built, samples):
    rows = {
        precision: adapter.layers(str(built[precision].path), 1, [samples[:1]], 10)
        for precision in ("fp32", "int8-static")
    }
    convolutions = {
        precision: [row for row in found if row["operator"] == "Convolution"]
        for precision, found in rows.items()
    }
    assert [len(found) for found in convolutions.values()] == [9, 9]
    for precision, suffix in (("fp32", "f32"), ("int8-static", "I8")):
        assert all(row["provider"].endswith(suffix) for row in convolutions[precision])
        assert all(isinstance(row["time_ns"], int) for row in rows[precision])
        assert sum(row["time_ns"] for row in rows[precision]) > 0
    pairs = profiled.match(*(profiled.of_rows(found) for found in rows.values()))
    by = [pair.by for pair in pairs if pair.first and pair.first.operator == "Convolution"]
    assert by == ["name"] * 9, "the IR keeps ONNX's names"


def test_facts_count_what_was_fused(built):
    facts = adapter.load(str(built["fp32"].path), 1).facts
    assert facts["num_executed_nodes"] == sum(facts["kernels"].values()) == 11
    # 9 biases with 7 activations and 3 additions, and the linear's bias
    assert facts["num_fused_operators"] >= 9 + 7 + 3


EXECUTED = {
    "fp32 that runs bf16": ("fp32", {"bf16": 9, "f32": 2}, True),
    "fp32": ("fp32", {"f32": 11}, False),
    "fp16 weights computed in half": ("fp16-weights", {"f16": 9}, True),
    "int8 of which nothing runs int8": ("int8-static", {"f32": 11}, True),
    "int8 with bf16 beside it": ("int8-static", {"i8": 9, "bf16": 2}, True),
    "int8 with fp32 beside it": ("int8-static", {"i8": 9, "f32": 2}, False),
    "bf16 that runs fp32": ("bf16", {"f32": 11}, True),
    "bf16": ("bf16", {"bf16": 9, "f32": 2}, False),
}


@pytest.mark.parametrize(("precision", "counts", "refused"), EXECUTED.values(), ids=EXECUTED)
def test_what_runs_must_be_what_is_stated(precision, counts, refused):
    if refused:
        with pytest.raises(RunnerError, match=rf"the model states {precision}, but .* nodes in"):
            adapter.check_executed(precision, counts)
    else:
        adapter.check_executed(precision, counts)


def test_a_plan_in_bfloat16_is_seen_as_one(built):
    """With the other hint the same fp32 file no longer passes for fp32."""
    path = built["fp32"].path
    for hint, stated, other in (("f32", "fp32", "bf16"), ("bf16", "bf16", "fp32")):
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        counts = adapter.executed(compiled)["executed_precisions"]
        adapter.check_executed(stated, counts)
        with pytest.raises(RunnerError, match=f"states {other}"):
            adapter.check_executed(other, counts)


def restated(outcome, folder, old, new):
    folder.mkdir()
    for name, found in content(outcome).items():
        (folder / name).write_bytes(found.replace(old.encode(), new.encode()))
    return folder / "model.xml"


STATEMENTS = {
    "int8 of an fp32 file": ('precision value="fp32"', 'precision value="int8-static"', "11 f32"),
    "unknown": ('precision value="fp32"', 'precision value="fp4"', "states precision fp4 in f32"),
    "none": ("inference_precision", "whatever", "states no inference_precision in its rt_info"),
}


@pytest.mark.parametrize(("old", "new", "words"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_false_statement_is_refused(built, tmp_path, old, new, words):
    with pytest.raises(RunnerError, match=words):
        adapter.load(str(restated(built["fp32"], tmp_path / "false", old, new)), 1)


def saved(folder, nodes, axes=("batch", 1, 8, 8), **initializers):
    values = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, axes),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, None),
    ]
    arrays = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], arrays)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    return variant_of(folder / "model.onnx")


NODE = helper.make_node
UNSUPPORTED = {
    "an operator of the user's": (
        [NODE("Relu", ["input"], ["r"]), NODE("Foo", ["r"], ["output"], "second", domain="mine")],
        "openvino does not support operator mine.Foo, node 'second'; replace the layer",
    ),
    "a standard one, of a node without a name": (
        [NODE("Det", ["input"], ["d"]), NODE("Relu", ["d"], ["output"], "last")],
        "openvino does not support operator Det, node 'd'; replace the layer",
    ),
}


@pytest.mark.parametrize(("nodes", "reason"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_an_unsupported_operator_is_named_with_its_node(nodes, reason, samples, tmp_path):
    variant = saved(tmp_path / "odd", nodes)
    outcomes = convert(variant, samples, tmp_path / "out")
    assert [(o.status, o.reason) for o in outcomes] == [("not_built", reason)] * len(ALL)
    assert not (tmp_path / "out").exists()


def test_nothing_to_quantize_is_not_called_int8(samples, tmp_path):
    variant = saved(tmp_path / "bare", [NODE("Sin", ["input"], ["output"])])
    floats, integers = convert(variant, samples, tmp_path / "out", ["fp32", "int8-static"])
    assert floats.status == "built"
    assert integers.reason == "nncf finds no operator to quantize; leave it fp32"


def test_another_dynamic_axis_than_the_batch_is_refused(samples, tmp_path):
    variant = saved(tmp_path / "a", [NODE("Relu", ["input"], ["output"])], ("n", 1, "height", 8))
    (outcome,) = convert(variant, samples, tmp_path / "out", ["fp32"])
    assert "input 'input' has shape [?,1,?,8], and only its first axis" in outcome.reason


def test_a_net_that_only_runs_another_batch_is_refused(samples, tmp_path):
    nodes = [NODE("Reshape", ["input", "shape"], ["output"])]
    shape = np.array([2, -1, 8, 8])
    variant = saved(tmp_path / "fixed", nodes, (2, 1, 8, 8), shape=shape)
    (outcome,) = convert(variant, samples, tmp_path / "out", ["fp32"])
    assert outcome.reason.startswith("openvino refuses the model: While validating node")


@pytest.fixture(scope="module")
def learned(exported, samples, tmp_path_factory):
    """The variant with a Q/DQ file beside it, symmetric, as quantization-aware training leaves."""
    folder = tmp_path_factory.mktemp("learned")
    prepared, path = folder / "prepared.onnx", folder / "model.onnx"
    path.write_bytes(exported[0].onnx.read_bytes())
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    feeds = iter([{"input": sample[None]} for sample in samples])
    reader = type("Feeds", (), {"get_next": lambda _self: next(feeds, None)})()
    quantize_static(
        prepared, folder / LEARNED, reader, quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True,
                       "AddQDQPairToWeight": True, "QuantizeBias": False},
    )  # fmt: skip
    prepared.unlink()
    return variant_of(path)


def test_learned_ranges_are_read_and_not_calibrated_again(
    learned, built, samples, expected, tmp_path
):
    (outcome,) = convert(learned, samples[:0], tmp_path, ["int8-static"])  # no sample is needed
    assert (outcome.status, set(outcome.tools)) == ("built", {"openvino"})
    facts = adapter.load(str(outcome.path), 1).facts
    assert facts["executed_precisions"]["i8"] >= 10
    assert sqnr_db(expected, outputs_of(outcome, samples)) >= MIN_SQNR_DB["int8-static"]
    assert content(outcome) != content(built["int8-static"])
    sizes = [o.path.with_suffix(".bin").stat().st_size for o in (outcome, built["fp32"])]
    assert sizes[0] <= 0.3 * sizes[1]


@pytest.fixture
def two_inputs(tmp_path):
    """[left | right] times one weight each, summed and bent: two outputs, of which one raw."""
    left, right = (np.random.default_rng(i).standard_normal((6, 5)).astype("f4") for i in (0, 1))
    nodes = [
        NODE("MatMul", ["left", "wl"], ["a"]), NODE("MatMul", ["right", "wr"], ["b"]),
        NODE("Add", ["a", "b"], ["sum"]), NODE("Relu", ["sum"], ["bent"]),
    ]  # fmt: skip
    info = helper.make_tensor_value_info
    values = [info(name, TensorProto.FLOAT, ["batch", 6]) for name in ("left", "right")]
    given = [info(name, TensorProto.FLOAT, ["batch", 5]) for name in ("bent", "sum")]
    weights = [numpy_helper.from_array(w, n) for w, n in ((left, "wl"), (right, "wr"))]
    graph = helper.make_graph(nodes, "g", values, given, weights)
    opset = [helper.make_opsetid("", 20)]
    (tmp_path / "two").mkdir()
    path = tmp_path / "two" / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return variant_of(path), lambda s: s["left"] @ left + s["right"] @ right


@pytest.mark.parametrize("precision", ["fp32", "int8-static"])
def test_a_net_of_two_inputs_and_outputs_is_fed_and_read_by_name(two_inputs, tmp_path, precision):
    variant, oracle = two_inputs
    raw = np.zeros(40, [("right", "f4", (6,)), ("left", "f4", (6,))])  # not the file's order
    for name in raw.dtype.names:
        raw[name] = np.random.default_rng(len(name)).standard_normal((40, 6))
    (outcome,) = convert(variant, raw, tmp_path / "out", [precision])
    assert outcome.reason is None
    loaded = adapter.load(str(outcome.path), 1)
    assert [t.name for t in (*loaded.inputs, *loaded.outputs)] == ["left", "right", "bent", "sum"]
    found = np.concatenate([
        session.decode_all(loaded.run(session.encode_all(one, loaded.inputs)), loaded.outputs)
        for one in (raw[i : i + 1] for i in range(len(raw)))
    ])  # fmt: skip
    least = MIN_SQNR_DB[precision]
    assert sqnr_db(oracle(raw), found["sum"]) >= least
    assert sqnr_db(np.maximum(oracle(raw), 0), found["bent"]) >= least


def target(num_threads=1):
    return params.Target(
        converter="to_openvino", runtime="openvino", convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(num_threads=num_threads), select=params.Select(),
    )  # fmt: skip


@pytest.fixture
def artifact(built, tmp_path):
    """The fp32 candidate as an artifact of two files, as it is pulled."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name, found in content(built["fp32"]).items():
        (folder / name).write_bytes(found)
    manifest.write(
        folder, model="m", stage="convert", format="xml", precision="fp32", labels=tuple("abcd"),
        preprocessing=({"step": "scale", "factor": 0.5},),
    )  # fmt: skip
    return folder


@pytest.fixture
def images(samples, tmp_path):
    np.savez(tmp_path / "images.npz", inputs=samples * 2)  # scale halves them again
    return tmp_path / "images.npz"


def test_the_worker_runs_an_artifact_of_two_files(artifact, images, expected):
    found = measure.outputs(artifact, images, target())
    assert sqnr_db(expected, found) >= MIN_SQNR_DB["fp32"]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_facts_say_what_runs(artifact, images, num_threads):
    job = workers.job_of(artifact, images, target(num_threads))
    plan = {"warmup_ns": 0, "timed_ns": 0, "min_samples": 4}
    found = workers.call(job, "latency", plan=plan)
    facts = found["facts"]
    assert (facts["runtime"], facts["provider"], facts["num_threads"]) == (
        "openvino", "CPU", num_threads,
    )  # fmt: skip
    assert facts["version"] == openvino.__version__.split("-")[0]
    assert len(found["samples_ns"]) == 4


def test_slipway_run_prints_the_classes_of_an_artifact_of_two_files(artifact, images, expected):
    measured = measurement.Measurement(
        artifact="sha256:0", candidate="dense-fp32", target="t", kind="measured", time="",
        runtime="openvino", size_bytes=1,
    )  # fmt: skip
    measurement.write(artifact / measurement.FILE_NAME, measured)
    rows = list(run.classify(artifact, images))
    assert [row[0][0] for row in rows] == ["abcd"[best] for best in expected.argmax(1)]
    shown = CliRunner().invoke(cli.app, ["run", str(artifact), str(images)])
    assert shown.exit_code == 0, shown.output
    assert rows[0][0][0] in shown.output.splitlines()[0]
    (artifact / "model.bin").unlink()
    with pytest.raises(DeviceError, match=r"model\.bin is not what its manifest says"):
        list(run.classify(artifact, images))


BROKEN = {
    "random bytes": lambda f: (f / "model.xml").write_bytes(b"this is not a model" * 10),
    "no weights": lambda f: (f / "model.bin").unlink(),
    "half the weights": lambda f: (f / "model.bin").write_bytes(
        (f / "model.bin").read_bytes()[:999]
    ),
    "half the graph": lambda f: (f / "model.xml").write_bytes(
        (f / "model.xml").read_bytes()[:9999]
    ),
}


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line(artifact, images, break_it):
    break_it(artifact)
    manifest.write(artifact, model="m", stage="convert")
    with pytest.raises(ModelRefusedError, match=r"OpenVINO .* refuses the model: ") as refused:
        measure.outputs(artifact, images, target())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [np.zeros((1, 1, 1, 1), "f4"), np.zeros((1, *SHAPE), "f8")])
def test_an_input_of_another_shape_or_type_is_not_stretched_to_fit(artifact, value):
    loaded = adapter.load(str(artifact / "model.xml"), 1)
    with pytest.raises(RunnerError, match="OpenVINO input 'input' takes float32"):
        loaded.run([value])


@pytest.mark.parametrize("precision", MADE)
def test_a_batch_says_what_its_samples_say_alone(built, samples, precision):
    loaded = adapter.load(str(built[precision].path), 1, 8)
    assert (loaded.inputs[0].shape, loaded.outputs[0].shape) == ((8, *SHAPE), (8, NUM_CLASSES))
    (together,) = loaded.run([samples[:8]])
    alone = outputs_of(built[precision], samples[:8])
    assert sqnr_db(alone, together) >= MIN_SQNR_DB[precision]
    with pytest.raises(RunnerError, match="takes float32"):
        loaded.run([samples[:1]])


def test_an_ir_that_fixes_its_batch_is_refused_in_one_line(built, tmp_path):
    ir = openvino.Core().read_model(built["fp32"].path)
    (result,) = ir.get_results()
    op = openvino.opset8.reshape(result.input_value(0), np.array([1, NUM_CLASSES, 1]), False)
    fixed = openvino.Model([openvino.opset8.result(op)], ir.get_parameters(), "net")
    for key in (adapter.PRECISION, adapter.HINT):
        stated = ir.get_rt_info([adapter.STATEMENT, key]).astype(str)
        fixed.set_rt_info(stated, [adapter.STATEMENT, key])
    openvino.save_model(fixed, tmp_path / "model.xml", compress_to_fp16=False)
    adapter.load(str(tmp_path / "model.xml"), 1)
    with pytest.raises(RunnerError, match="refuses a batch of 8 of the model: ") as refused:
        adapter.load(str(tmp_path / "model.xml"), 1, 8)
    assert "\n" not in str(refused.value)


def test_a_session_pins_no_thread_where_another_would_be_pinned_too(artifact, samples):
    """Left alone, OpenVINO 2026.4 pins what runs to the first core while it runs."""
    loaded = adapter.load(str(artifact / "model.xml"), 1)
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core alone")
    stop, seen = threading.Event(), set()

    def runs():
        while not stop.is_set():
            loaded.run([samples[:1]])

    thread = threading.Thread(target=runs)
    thread.start()
    for _ in range(2000):
        seen.add(frozenset(os.sched_getaffinity(thread.native_id)))
    stop.set()
    thread.join()
    assert seen == {frozenset(allowed)}


def test_outputs_are_the_callers_own(artifact, samples):
    loaded = adapter.load(str(artifact / "model.xml"), 1)
    (first,) = loaded.run([samples[:1]])
    kept = first.copy()
    loaded.run([samples[1:2]])
    assert (first == kept).all()


def test_torch_can_be_imported_after_the_quantizer_was_without_it():
    code = (
        "from pipeline.conversion.to_openvino import _without_torch\n"
        "import sys\n"
        "with _without_torch():\n"
        "    import nncf\n"
        "print('torch' in sys.modules)\n"
        "import torch; print(float(torch.ones(2).sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "2.0"]


def test_neither_adapter_nor_quantizer_reports_to_the_vendor(tmp_path):
    """openvino 2026.4 writes a client id into the home folder when it is imported."""
    code = (
        "import sys, json\n"
        "from pipeline.conversion import to_openvino\n"
        "import nncf, openvino\n"
        "print(json.dumps(sys.modules['openvino_telemetry']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) is None
    assert not list(tmp_path.glob("intel*"))
