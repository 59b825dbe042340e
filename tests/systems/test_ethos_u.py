"""Ethos-U: Vela, tflite-micro and what can be said without the chip, on real files.

The oracle is the fp32 net in PyTorch; published figures of MLPerf Tiny's files are in facts.md and
targets.md of the design.
"""

import csv
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
import yaml
from ai_edge_litert import schema_py_generated as schema

from pipeline import check, files, manifest, measurement, params
from pipeline.chain import certify, convert, profile, select
from pipeline.conversion import tflite_graph, to_ethos_u, vela
from pipeline.conversion.candidates import Variant
from pipeline.data import splits
from pipeline.errors import ConversionError
from pipeline.nets import factory, store
from pipeline.planning import selection
from pipeline.profiling import estimate, workers
from pipeline.profiling.bench import PRESETS, Bench, Candidate
from pipeline.profiling.workers import ModelRefusedError
from pipeline.reporting import answer, words
from pipeline.runtimes import litert, session
from pipeline.runtimes import tflite_micro as adapter
from pipeline.runtimes.errors import RunnerError
from pipeline.targets import device as devices
from pipeline.targets import ethos_u
from pipeline.targets import tools as toolchain

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data/mlperf-tiny"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
SHAPE, LABELS, NUM_CALIBRATION, TARGET = (1, 8, 8), ("a", "b", "c", "d"), 32, "cortex-m55"
MIN_SQNR_DB = {"fp32": 100.0, "int8-static": 17.0}  # see tests/contract/test_converters.py
# XNNPACK rounds with float scales, the reference kernels in fixed point; over 9 layers 2 were seen
MAX_STEPS = 3
SETTINGS = params.Vela(
    accelerator_config="ethos-u55-128",
    system_config="Ethos_U55_High_End_Embedded",
    memory_mode="Shared_Sram",
)
CFG = params.Convert(
    precisions=("fp32", "int8-static"), num_calibration=NUM_CALIBRATION, vela=SETTINGS
)
FILES = {
    "fp32": {"model.tflite", "vela.json"},
    "int8-static": {"model.tflite", "uncompiled.tflite", "vela.json"},
}
# settings that Vela would not know, or worse, take: key, value, what is listed
UNKNOWN = (
    ("accelerator_config", "ethos-u55-100", "ethos-u55-32, .*, got 'ethos-u55-100'"),
    ("system_config", "Nope", "Ethos_U55_Deep_Embedded, .* for ethos-u55-128, got 'Nope'"),
    ("system_config", "Ethos_U65_High_End", ".* for ethos-u55-128, got 'Ethos_U65_High_End'"),
    ("memory_mode", "internal-default", "Sram_Only, Shared_Sram, .*, got 'internal-default'"),
)
# MLPerf Tiny's int8 files: arena (bytes / 1000) in tflite-micro, Vela's estimate (ms)
PUBLISHED = {
    "kws_ref_model": (24.3, 0.180),
    "pretrainedResnet_quant": (56.0, 0.403),
    "vww_96_int8": (103.7, 0.442),
    "ad01_int8": (4.0, 0.402),
}


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """A ResNet-8 for 8x8 images whose batch norms have seen data, stored."""
    folder = tmp_path_factory.mktemp("variant")
    cfg = params.Net(name="resnet8")
    torch.manual_seed(0)
    net = factory.build(cfg, SHAPE, len(LABELS))
    for _ in range(20):
        net(torch.randn(32, *SHAPE))
    net.eval()
    store.save(folder / "quantized/dense", net, cfg=cfg, input_shape=SHAPE, num_classes=len(LABELS))
    (folder / "exported/dense").mkdir(parents=True)
    written = manifest.write(folder / "exported/dense", model="tiny", stage="export")
    return Variant("dense", folder / "exported/dense/x.onnx", folder / "quantized/dense", written)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(variant, samples):
    with torch.no_grad():
        return store.load(variant.net).net(torch.from_numpy(samples)).numpy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-place") / "deeper"


@pytest.fixture(scope="module")
def built(variant, samples, folders):
    """Outcomes by precision, of both folders."""
    made = (to_ethos_u.convert(variant, CFG.precisions, samples, CFG, f) for f in folders)
    return {o.precision: (o, again) for o, again in zip(*made, strict=True)}


@pytest.fixture(params=CFG.precisions)
def precision(request):
    return request.param


def outputs_of(path, samples):
    loaded = adapter.load(str(path), 1)
    taken, given = loaded.inputs, loaded.outputs
    found = [
        session.decode_all(loaded.run(session.encode_all(sample[None], taken)), given)
        for sample in samples
    ]
    return np.concatenate(found)


class TestConverter:
    """What all converters promise, and what is this one's own."""

    def test_an_artifact_holds_what_ships_what_runs_here_and_the_estimate(self, built, precision):
        outcome, _ = built[precision]
        assert (outcome.status, outcome.reason, outcome.format) == ("built", None, "tflite")
        assert {path.name for path in outcome.path.parent.iterdir()} == FILES[precision]
        assert outcome.tools["ethos-u-vela"]
        assert outcome.settings == {"vela": msgspec.to_builtins(SETTINGS)}
        assert set(outcome.sources) == {"net", "weights"}

    def test_only_int8_has_integer_inputs_and_outputs(self, built, precision):
        signature = built[precision][0].signature
        (taken,), (given,) = signature.inputs, signature.outputs
        assert (taken.name, taken.shape, taken.layout) == ("input", (1, *SHAPE), "NCHW")
        assert (given.name, given.shape) == ("output", (1, len(LABELS)))
        dtype = {"fp32": "float32", "int8-static": "int8"}[precision]
        assert {taken.dtype, given.dtype} == {dtype}
        assert (taken.quantization is None) == (precision == "fp32")

    def test_the_adapter_reads_the_same_signature(self, built, precision):
        outcome, _ = built[precision]
        loaded = adapter.load(str(outcome.path), 1)
        for stated, found in (
            (outcome.signature.inputs[0], loaded.inputs[0]),
            (outcome.signature.outputs[0], loaded.outputs[0]),
        ):
            quantization = stated.quantization
            assert found == session.Tensor(
                stated.name,
                stated.dtype,
                stated.shape,
                quantization and quantization.scale[0],
                quantization and quantization.zero_point[0],
            )

    def test_outputs_agree_with_the_net(self, built, precision, samples, expected):
        outputs = outputs_of(built[precision][0].path, samples)
        noise = ((expected.astype(np.float64) - outputs) ** 2).sum()
        signal = ((expected - expected.mean(0)).astype(np.float64) ** 2).sum()
        assert 10 * np.log10(signal / noise) >= MIN_SQNR_DB[precision]

    def test_two_folders_give_the_same_bytes_and_none_is_named(self, built, precision, folders):
        outcome, again = built[precision]
        for name in FILES[precision]:
            content = (outcome.path.parent / name).read_bytes()
            assert content == (again.path.parent / name).read_bytes()
            for path in (*map(str, folders), str(ROOT), str(Path.home()), "/tmp", "site-packages"):
                assert path.encode() not in content

    def test_all_of_int8_is_on_the_npu(self, built):
        outcome, _ = built["int8-static"]
        estimate = ethos_u.read(outcome.path.parent)
        uncompiled = tflite_graph.read((outcome.path.parent / "uncompiled.tflite").read_bytes())
        compiled = tflite_graph.read(outcome.path.read_bytes())
        assert tflite_graph.operators(compiled) == ["ethos-u"]
        assert estimate.placement.num_accelerated == len(tflite_graph.operators(uncompiled))
        assert (estimate.placement.num_fallback, estimate.fallback_reasons) == (0, {})
        assert estimate.cycles.total == round(estimate.inference_ms / 1e3 * estimate.clock_hz)

    def test_nothing_of_fp32_is_on_the_npu_and_it_claims_no_latency(self, built):
        estimate = ethos_u.read(built["fp32"][0].path.parent)
        assert estimate.placement.accelerated_ratio == 0
        assert "CONV_2D" in estimate.placement.fallback_operators
        assert "unsupported DataType Float32" in estimate.fallback_reasons["CONV_2D"]
        assert (estimate.inference_ms, estimate.cycles) == (None, None)

    @pytest.mark.parametrize(("key", "value", "line"), UNKNOWN)
    def test_settings_that_vela_does_not_know_are_listed(
        self, variant, samples, tmp_path, key, value, line
    ):
        cfg = msgspec.structs.replace(CFG, vela=msgspec.structs.replace(SETTINGS, **{key: value}))
        with pytest.raises(
            ConversionError, match=rf"^convert\.vela\.{key} must be one of {line}; mend"
        ):
            to_ethos_u.convert(variant, cfg.precisions, samples, cfg, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_memory_mode_of_another_accelerator_is_refused_in_one_line(self, built):
        settings = msgspec.structs.replace(SETTINGS, memory_mode="Dedicated_Sram")
        content = (built["int8-static"][0].path.parent / "uncompiled.tflite").read_bytes()
        with pytest.raises(ConversionError, match=r"^Vela refuses .*Dedicated_Sram\): .*Sram or"):
            vela.compile_file(content, settings)

    def test_more_than_256_kib_of_weights_stay_where_tflite_micro_reads_them(self, tmp_path):
        cfg, task = params.Net(name="autoencoder"), {"input_shape": (640,), "num_classes": 640}
        torch.manual_seed(0)
        net = factory.build(cfg, *task.values())
        for _ in range(10):
            net(torch.randn(32, 640))
        store.save(tmp_path / "net", net.eval(), cfg=cfg, **task)
        written = manifest.write(tmp_path / "net", model="tiny", stage="export")
        variant = Variant("dense", tmp_path / "x.onnx", tmp_path / "net", written)
        samples = np.random.default_rng(0).standard_normal((NUM_CALIBRATION, 640), np.float32)
        (outcome,) = to_ethos_u.convert(variant, ["int8-static"], samples, CFG, tmp_path / "out")
        assert (outcome.path.with_name("uncompiled.tflite")).stat().st_size > 256 * 1024
        with torch.no_grad():
            expected = net(torch.from_numpy(samples)).numpy()
        outputs = outputs_of(outcome.path, samples)
        assert np.abs(outputs - expected).max() < 0.1 * np.abs(expected).max()

    def test_a_precision_that_is_not_made_is_refused(self, variant, samples, tmp_path):
        with pytest.raises(ConversionError, match="to_ethos_u makes fp32, int8-static, got 'fp16'"):
            to_ethos_u.convert(variant, ["fp32", "fp16"], samples, CFG, tmp_path)


def with_custom_operator(content, name):
    """Turn the file's first operator into a custom one, as edgetpu_compiler leaves it."""
    model = tflite_graph.read(content)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name
    model.operatorCodes.append(code)
    operator = model.subgraphs[0].operators[0]
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.builtinOptions, operator.builtinOptionsType = None, 0
    return tflite_graph.write(model)


@pytest.fixture(scope="module")
def damaged(built):
    """Files that no tool should crash on, by name."""
    content = (built["int8-static"][0].path.parent / "uncompiled.tflite").read_bytes()
    random = np.random.default_rng(0)
    return {
        "edge tpu": with_custom_operator(content, "edgetpu-custom-op"),
        "unknown operator": with_custom_operator(content, "acme-op"),
        "cut off": content[: len(content) // 2],
        "random": random.bytes(4096),
        "empty": b"",
    }


REFUSED = {
    "edge tpu": (
        r"^the \.tflite file is compiled already \(operator edgetpu-custom-op\); give the file",
        r"^model\.tflite is compiled for a Coral Edge TPU \(operator edgetpu-custom-op\); give",
    ),
    "cut off": (
        r"^the \.tflite file is damaged or cut off: .*; restore it",
        r"^model\.tflite is damaged or cut off: .*; restore it",
    ),
    "random": (r"^the file is no \.tflite file; give one", r"^model\.tflite is no \.tflite file; "),
    "empty": (r"^the file is no \.tflite file; give one", r"^model\.tflite is no \.tflite file; "),
}


def with_weights_behind(content):
    """Put the first weights behind the flatbuffer, as ai-edge-quantizer does with many."""
    model = tflite_graph.read(content)
    buffer = max(model.buffers, key=lambda each: 0 if each.data is None else len(each.data))
    data = bytes(bytearray(buffer.data))
    buffer.data, buffer.offset, buffer.size = None, 1, len(data)
    start = -len(tflite_graph.write(model)) % 16 + len(tflite_graph.write(model))
    buffer.offset = start
    return tflite_graph.write(model).ljust(start, b"\0") + data


class TestDamagedFiles:
    """One clear line each, from the converter's compiler, the adapters and a worker."""

    @pytest.mark.parametrize("kind", REFUSED)
    def test_vela_is_not_given_it(self, damaged, kind):
        with pytest.raises(ConversionError, match=REFUSED[kind][0]) as caught:
            vela.compile_file(damaged[kind], SETTINGS)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", REFUSED)
    def test_tflite_micro_is_not_given_it(self, damaged, kind, tmp_path):
        (tmp_path / "model.tflite").write_bytes(damaged[kind])
        with pytest.raises(RunnerError, match=REFUSED[kind][1]) as caught:
            adapter.load(str(tmp_path / "model.tflite"), 1)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", ["edge tpu", "random"])
    @pytest.mark.parametrize("runtime", ["litert", "tflite_micro"])
    def test_a_worker_refuses_it_in_one_line(self, damaged, kind, runtime, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/model.tflite").write_bytes(damaged[kind])
        manifest.write(tmp_path / "a", model="tiny", stage="convert")
        np.savez(tmp_path / "inputs.npz", inputs=np.zeros((1, *SHAPE), np.float32))
        target = params.Target(
            converter="to_ethos_u",
            runtime=runtime,
            convert=CFG,
            profile=params.Profile(),
            select=params.Select(),
        )
        job = workers.job_of(tmp_path / "a", tmp_path / "inputs.npz", target)
        with pytest.raises(ModelRefusedError) as caught:
            workers.outputs(job, tmp_path / "outputs.npz")
        line = str(caught.value)
        assert "\n" not in line
        assert kind == "random" or "edgetpu-custom-op" in line

    def test_a_compiled_file_is_not_compiled_again(self, built):
        content = built["int8-static"][0].path.read_bytes()
        with pytest.raises(ConversionError, match=r"compiled already \(operator ethos-u\); give"):
            vela.compile_file(content, SETTINGS)

    def test_weights_that_tflite_micro_would_not_read_are_refused(self, built, tmp_path):
        content = (built["int8-static"][0].path.parent / "uncompiled.tflite").read_bytes()
        path = tmp_path / "model.tflite"
        path.write_bytes(with_weights_behind(content))
        with pytest.raises(RunnerError, match=r"weights behind the flatbuffer, which tflite-micro"):
            adapter.load(str(path), 1)
        path.write_bytes(tflite_graph.inlined(path.read_bytes()))
        assert adapter.load(str(path), 1).facts["executed_file"] == "model.tflite"

    def test_a_compiled_file_without_the_one_beside_it_is_refused(self, built, tmp_path):
        path = tmp_path / "model.tflite"
        path.write_bytes(built["int8-static"][0].path.read_bytes())
        with pytest.raises(
            RunnerError, match=r"compiled for Ethos-U, .* uncompiled\.tflite is not"
        ):
            adapter.load(str(path), 1)


class TestAdapter:
    """tflite-micro as a session."""

    def test_of_a_compiled_artifact_it_runs_the_uncompiled_file(self, built):
        facts = adapter.load(str(built["int8-static"][0].path), 1).facts
        assert facts["executed_file"] == "uncompiled.tflite"
        assert facts["kernel_library"] == "reference"

    def test_its_integers_are_those_of_litert_within_a_few_steps(self, built, samples):
        folder = built["int8-static"][0].path.parent
        ours = adapter.load(str(folder / "model.tflite"), 1)
        theirs = litert.load(str(folder / "uncompiled.tflite"), 1)
        for sample in samples[:16]:
            encoded = session.encode_all(sample[None], ours.inputs)
            ((one,), (other,)) = ours.run(encoded), theirs.run(encoded)
            assert np.abs(one.astype(int) - other).max() <= MAX_STEPS

    def test_an_operator_that_it_does_not_know_is_named(self, damaged, tmp_path):
        (tmp_path / "model.tflite").write_bytes(damaged["unknown operator"])
        with pytest.raises(
            RunnerError, match=r"does not know custom operator acme-op: .*; replace"
        ):
            adapter.load(str(tmp_path / "model.tflite"), 1)

    def test_an_operator_without_a_kernel_is_named(self, built, tmp_path):
        model = tflite_graph.read(built["fp32"][0].path.read_bytes())
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.ATAN2
        model.operatorCodes[0].deprecatedBuiltinCode = 127
        (tmp_path / "model.tflite").write_bytes(tflite_graph.write(model))
        with pytest.raises(RunnerError, match=r"has no kernel for operator ATAN2: .*; replace"):
            adapter.load(str(tmp_path / "model.tflite"), 1)

    def test_more_than_one_thread_is_refused(self, built):
        with pytest.raises(RunnerError, match=r"runs in one thread, profile\.num_threads is 4"):
            adapter.load(str(built["fp32"][0].path), 4)

    def test_a_batch_is_refused(self, built):
        with pytest.raises(RunnerError, match=r"^tflite-micro takes no batch of 8: .*at 1$"):
            adapter.load(str(built["fp32"][0].path), 1, 8)

    def test_a_request_of_another_type_is_refused(self, built):
        loaded = adapter.load(str(built["int8-static"][0].path), 1)
        with pytest.raises(RunnerError, match="tflite-micro refuses the request: "):
            loaded.run([np.zeros((1, *SHAPE), np.float32)])

    @needs_data
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_the_arena_of_mlperf_tinys_files_is_as_published(self, name):
        facts = adapter.load(str(DATA / f"models/{name}.tflite"), 1).facts
        assert round(facts["arena_bytes"] / 1000, 1) == PUBLISHED[name][0]

    @needs_data
    def test_a_file_whose_weights_alone_are_integers_is_refused_naming_the_operator(self):
        with pytest.raises(RunnerError, match=r"refuses operator CONV_2D: .*Hybrid models are not"):
            adapter.load(str(DATA / "models/kws_ref_model_float32.tflite"), 1)

    @needs_data
    def test_keyword_spotting_is_right_on_90_1_percent_of_the_official_set(self, keywords):
        loaded = adapter.load(str(DATA / "models/kws_ref_model.tflite"), 1)
        raw, labels = keywords
        scores = [loaded.run([each.reshape(loaded.inputs[0].shape)])[0] for each in raw]
        num_right = (np.concatenate(scores).argmax(axis=1) == labels).sum()
        assert (len(raw), num_right) == (1000, 901)


@pytest.fixture(scope="module")
def keywords():
    """The official keyword-spotting set: int8 inputs [1000, 490] and their classes."""
    rows = csv.reader(io.StringIO((DATA / "kws01/y_labels.csv").read_text()))
    classes = {name.strip(): int(label) for name, _, label in rows}
    with tarfile.open(DATA / "kws01/kws01_inputs.tar") as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        raw = [np.frombuffer(archive.extractfile(m).read(), np.int8) for m in members]
    return np.stack(raw), np.array([classes[Path(m.name).name] for m in members])


@needs_data
def test_a_reference_that_tflite_micro_lacks_kernels_for_runs_in_litert(keywords, tmp_path):
    candidates = []
    for name, file in (
        ("dense-fp32", "kws_ref_model_float32"),
        ("dense-int8-static", "kws_ref_model"),
        ("pruned-fp32", "kws_ref_model_float32"),
    ):
        content = (DATA / f"models/{file}.tflite").read_bytes()
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.tflite").write_bytes(content)
        said = vela.compile_file(content, SETTINGS).estimate
        (folder / "vela.json").write_bytes(files.encode_json(said))
        manifest.write(folder, model="kws", stage="convert")
        candidates.append(Candidate(name, folder))
    raw, labels = keywords
    floats = (raw.reshape(-1, 49, 10, 1).astype(np.float32) - 83) * np.float32(0.5847029)
    np.savez(tmp_path / "inputs.npz", inputs=floats)
    target = params.Target(
        converter="to_ethos_u",
        runtime="tflite_micro",
        convert=CFG,
        profile=params.Profile(),
        select=params.Select(accept="estimated"),
    )
    bench = Bench(TARGET, target, {}, tmp_path / "inputs.npz", labels, PRESETS["quick"])
    reference, int8, pruned = (
        found.measurement for found in estimate.measure(candidates, "dense-fp32", bench)
    )
    assert (reference.runtime, reference.flags) == ("litert", ("reference_by_litert",))
    assert reference.peak_memory_bytes is None
    assert (int8.runtime, int8.flags) == ("tflite_micro", ())
    assert sum(layer.num_cycles for layer in int8.layers) == int8.num_cycles
    assert {layer.num_cycles for layer in reference.layers} == {None}, "it is on the CPU"
    assert [m.quality.value for m in (reference, int8)] == pytest.approx([90.0, 90.1])
    assert int8.drop.value == pytest.approx(-0.1)
    assert (pruned.kind, pruned.quality) == ("not_measured", None)
    assert "refuses operator CONV_2D" in pruned.reason


@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_vela_estimates_mlperf_tinys_files_as_published(name):
    content = (DATA / f"models/{name}.tflite").read_bytes()
    estimate = vela.compile_file(content, SETTINGS).estimate
    assert estimate.inference_ms == pytest.approx(PUBLISHED[name][1], rel=0.01)
    assert estimate.placement.accelerated_ratio == 1
    assert sum(layer.num_cycles for layer in estimate.layers) == estimate.cycles.total
    assert sum(layer.num_macs for layer in estimate.layers) == estimate.num_macs
    num_accelerated = estimate.placement.num_accelerated
    assert num_accelerated - 1 <= len(estimate.layers) <= num_accelerated, "a reshape may be none"


@pytest.fixture(scope="module")
def chain(variant, tmp_path_factory):
    """Stages convert and profile run; the labels are what the fp32 net says."""
    root = tmp_path_factory.mktemp("chain")
    steps = ({"step": "channels_first"},)
    random = np.random.default_rng(2)
    for name, num_samples in (("validation", 300), ("calibration", 64), ("test", 200)):
        raw = random.standard_normal((num_samples, 8, 8, 1)).astype(np.float32)
        with torch.no_grad():
            scores = store.load(variant.net).net(torch.from_numpy(raw.transpose(0, 3, 1, 2)))
        labels = scores.numpy().argmax(axis=1).astype(np.int64)
        splits.write(root / f"{name}.npz", splits.Split(raw, labels, LABELS, steps))
    exported, quantized = variant.onnx.parents[1], variant.net.parent
    for folder, stage in ((exported, "export"), (quantized, "quantize")):
        manifest.write(folder, model="tiny", stage=stage, labels=LABELS, preprocessing=steps)
    target = params.Target(
        converter="to_ethos_u",
        runtime="tflite_micro",
        convert=CFG,
        profile=params.Profile(),
        select=params.Select(accept="estimated", max_quality_drop=50.0),
    )
    plain = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="int8")
    p = msgspec.structs.replace(
        params.load(ROOT / "params.yaml"),
        model="tiny",
        recipes={"dense": plain},
        targets={TARGET: target},
    )
    tools = toolchain.versions(target, root)
    (root / "tools.json").write_text(json.dumps(tools))
    machine = devices.describe()
    machine["fingerprint"] = devices.fingerprint(machine)
    (root / "device.json").write_text(json.dumps(machine))
    convert.run(
        exported, quantized, root / "calibration.npz", root / "tools.json", root / "converted", p,
        TARGET,
    )  # fmt: skip
    profile.run(
        root / "converted", root / "validation.npz", root / "tools.json", root / "device.json",
        root / "profiled", p, TARGET,
    )  # fmt: skip
    return SimpleNamespace(root=root, p=p)


def choose(chain, tmp_path, **budget):
    """Run stage select with another budget and return what it chose."""
    target = chain.p.targets[TARGET]
    changed = msgspec.structs.replace(
        target, select=msgspec.structs.replace(target.select, **budget)
    )
    p = msgspec.structs.replace(chain.p, targets={TARGET: changed})
    select.run(chain.root / "converted", chain.root / "profiled", tmp_path / "s", p, TARGET)
    chosen = json.loads((tmp_path / "s" / selection.FILE_NAME).read_bytes())
    return SimpleNamespace(**chosen, path=tmp_path / "s", p=p)


class TestChain:
    """From a net to the answer for a board that is not here."""

    def test_int8_has_estimated_latency_measured_arena_and_quality(self, chain):
        folder = chain.root / "converted/dense-int8-static"
        m = measurement.read(chain.root / "profiled/dense-int8-static/measurement.json")
        estimate = ethos_u.read(folder)
        assert (m.kind, m.runtime, m.num_samples) == ("estimated", "tflite_micro", 0)
        assert m.latency_ms == measurement.Latency(p50=estimate.inference_ms)
        assert (m.latency_ratio, m.throughput_per_s) == (None, None)
        assert m.num_cycles == estimate.cycles.total
        assert m.placement == estimate.placement
        assert m.peak_memory_bytes == m.host["facts"]["arena_bytes"] > 1000
        assert "tflite-micro records" in m.host["memory_meter"]
        assert m.host["latency_meter"].startswith("Vela 5.")
        assert "ethos-u55-128 at 500 MHz" in m.host["latency_meter"]
        assert m.quality.n == m.drop.n == 300
        assert m.agreement.top1_agreement > 0.8
        assert m.size_bytes == (folder / "model.tflite").stat().st_size
        assert m.flags == ()

    def test_fp32_is_the_reference_and_has_no_latency(self, chain):
        m = measurement.read(chain.root / "profiled/dense-fp32/measurement.json")
        assert (m.kind, m.runtime, m.drop, m.num_cycles) == (
            "estimated",
            "tflite_micro",
            None,
            None,
        )
        assert m.latency_ms == measurement.Latency()
        assert m.placement.accelerated_ratio == 0
        assert m.quality.value == pytest.approx(100, abs=0.5)

    def test_golden_outputs_are_those_of_tflite_micro(self, chain):
        folder = chain.root / "profiled/dense-int8-static"
        with np.load(folder / "golden.npz") as golden, np.load(folder / "outputs.npz") as outputs:
            np.testing.assert_array_equal(golden["outputs"], outputs["outputs"][:8])
            raw = golden["inputs"].transpose(0, 3, 1, 2)
        again = outputs_of(chain.root / "converted/dense-int8-static/model.tflite", raw)
        with np.load(folder / "golden.npz") as golden:
            np.testing.assert_array_equal(golden["outputs"], again)

    def test_vela_settings_are_in_the_candidates_manifest(self, chain):
        described = manifest.verify(chain.root / "converted/dense-int8-static")
        assert described.params["vela"] == msgspec.to_builtins(SETTINGS)
        assert described.tools["ethos-u-vela"]

    def test_an_estimate_ships_only_where_it_is_accepted(self, chain, tmp_path):
        chosen = choose(chain, tmp_path, accept="measured")
        assert chosen.chosen is None
        reasons = {each["candidate"]: each["reason"] for each in chosen.rejected}
        assert reasons["dense-int8-static"] == "evidence is estimated, accept is measured"

    def test_int8_ships_and_an_fp32_file_is_refused_in_one_line(self, chain, tmp_path):
        chosen = choose(chain, tmp_path)
        assert chosen.chosen == "dense-int8-static"
        (rejected,) = chosen.rejected
        assert rejected["candidate"] == "dense-fp32"
        assert rejected["reason"].startswith(
            "0% of operators on the accelerator, min_accelerated_ratio is 100%; on the CPU: "
        )
        assert "CONV_2D" in rejected["reason"]
        assert "\n" not in rejected["reason"]

    def test_an_arena_over_the_limit_is_refused(self, chain, tmp_path):
        chosen = choose(chain, tmp_path, max_memory_bytes=1000)
        assert chosen.chosen is None
        assert any(r["reason"].startswith("memory ") for r in chosen.rejected)

    def test_the_answer_says_estimated_and_never_measured_or_an_interval(self, chain, tmp_path):
        chosen = choose(chain, tmp_path)
        out = tmp_path / "certified"
        certify.run(chosen.path, chain.root / "test.npz", out, chosen.p, TARGET)
        given = answer.gather(TARGET, chosen.path, out, chain.root / "profiled")
        assert given.artifact.quality.n == given.artifact.drop.n == 200
        headline, why, following, _, evidence, *_ = words.explain(given)
        assert ", estimated; " in headline
        assert "[" not in headline.split(" lost")[0].split(";")[0]
        assert "(2 estimated)" in why
        assert following == "Next best: none, no other candidate meets the budget."
        assert evidence.startswith("Evidence: latency estimated, not measured, by Vela 5.")
        for line in (headline, why):
            assert "p50" not in line
            assert "measured" not in line


def test_what_a_compiler_does_not_know_is_found_before_anything_runs(tmp_path, monkeypatch):
    presets = yaml.safe_load((ROOT / "pipeline/project/presets.yaml").read_text())
    board = presets["cortex-m55-ethos-u55"]
    board["convert"]["vela"]["system_config"] = "Ethos_U55_Nonsense"
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["targets"]["board"] = board
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    (line,) = check.examine(tmp_path / "params.yaml", ROOT / ".venvs").problems
    assert line.startswith(
        "targets.board.convert.vela.system_config: Arm Ethos-U55-128 takes Ethos_U55_"
    )
    assert "got Ethos_U55_Nonsense" in line
    del board["hardware"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (line,) = check.examine(tmp_path / "params.yaml", ROOT / ".venvs").problems
    assert line.startswith("targets.board: convert.vela.system_config must be one of Ethos_U55_")
    assert "'Ethos_U55_Nonsense'" in line
