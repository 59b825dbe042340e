from pathlib import Path

import msgspec
import pytest
import yaml

from pipeline import files, inputs, params
from pipeline.errors import InputsError, ParamsError
from pipeline.project import settings

ROOT = Path(__file__).parents[2]
DEFAULT = (ROOT / params.FILE_NAME).read_text(encoding="utf-8")


def edited(tmp_path, *changes):
    text = DEFAULT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = tmp_path / params.FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_file_is_valid():
    loaded = params.load(ROOT / params.FILE_NAME)
    assert set(loaded.targets) == {
        "x86-onnxruntime", "x86-litert", "linux-tflite-runtime", "raspberry-pi-5-tflite",
    }  # fmt: skip
    assert params.reference_candidate(loaded) == "dense-fp32"


EMULATED = ("      environment: device-tflite\n", "      environment: emulated-aarch64\n")
REFUSED = {
    "a value out of range": (
        ("ratio: 0.5\n", "ratio: 1.5\n"),
        r"prune\.half\.ratio must be float < 1\.0, got 1\.5 \(params\.yaml:\d+\)",
    ),
    "an unknown key": (
        ("  epochs:", "  epoch:"),
        r"train\.epoch is not known; allowed: epochs, .*",
    ),
    "a member outside a closed set": (
        ("optimizer: adamw", "optimizer: adam"),
        r"train\.optimizer must be one of adamw, sgd, got 'adam'",
    ),
    "a precision nobody makes": (
        ("[fp32, int8-dynamic, int8-static]", "[fp32, int4]"),
        r"convert\.precisions\[1\] must be one of fp32, .*, got 'int4'",
    ),
    "a precision this converter does not make": (
        ("[fp32, int8-dynamic, int8-static]", "[fp32, fp16-weights]"),
        r"to_onnxruntime makes fp32, int8-dynamic, int8-static, got fp16-weights",
    ),
    "a target without the reference precision": (
        ("[fp32, int8-dynamic, int8-static]", "[int8-static]"),
        r"precisions: must hold fp32, the reference, got \['int8-static'\]",
    ),
    "a runtime that cannot read the converter's files": (
        ("runtime: onnxruntime", "runtime: litert"),
        r"files of to_onnxruntime run in onnxruntime, got litert",
    ),
    "a target id that is no id": (
        ("  x86-litert:", "  X86_litert:"),
        r"an id must match .*, got 'X86_litert'",
    ),
    "a recipe that names no settings": (
        ("prune: half", "prune: most"),
        r"recipes\.pruned\.prune must be one of skip, half, got 'most'",
    ),
    "a step whose stage does not exist yet": (
        ("factorize: skip", "factorize: low-rank"),
        r"recipes\.dense\.factorize must be one of skip, got 'low-rank'",
    ),
    "no reference recipe": (
        ("    prune: skip", "    prune: half"),
        r"recipes needs exactly one that skips prune and distill, as the reference, got none",
    ),
    "splits that leave no test": (
        ("validation_ratio: 0.303", "validation_ratio: 0.7"),
        r"must be below 1 to leave a test split, got 1\.006",
    ),
    "npz without a path": (
        ("source: digits", "source: npz"),
        r"data\.source npz needs one of data\.path and data\.url, got None and None",
    ),
    "a factory beside a name": (
        ("  name: resnet8", "  name: resnet8\n  factory: a.b:c"),
        r"net needs one of name, factory and onnx, got \['name', 'factory'\]",
    ),
    "a checkpoint that is not pinned": (
        ("train:\n", "train:\n  checkpoint: w.safetensors\n"),
        r"train\.checkpoint_digest must pin w\.safetensors; run slipway inputs lock",
    ),
    "a number that is not finite": (
        ("    select: {}", "    select: {max_quality_drop: .inf}"),
        r"max_quality_drop must be a finite number, got inf",
    ),
    "a NaN inside a list": (
        ("factor: 0.0625", "factor: .nan"),
        r"data\.preprocessing must hold finite",
    ),
    "a step's setting out of its range": (
        ("- {step: resize, height: 32", "- {step: resize, height: -4"),
        r"data\.preprocessing\[\d\]\.height must be int >= 1, got -4",
    ),
    "a step that is not known": (
        ("- {step: resize,", "- {step: shrink,"),
        r"preprocessing\[\d\]\.step must be one of scale, normalize, resize, add_channel, ch",
    ),
    "a step without its setting": (
        ("- {step: resize, height: 32,", "- {step: resize,"),
        r"data\.preprocessing\[\d\]: missing required field height, got \{'step': 'resize'",
    ),
    "a precision twice": (
        ("[fp32, int8-dynamic, int8-static]", "[fp32, fp32]"),
        r"convert\.precisions: names one twice, got \['fp32', 'fp32'\]",
    ),
    "more calibration samples than there are": (
        ("num_samples: 64", "num_samples: 6400"),
        r"quantize\.int8\.num_samples must be at most data\.num_calibration 128, got 6400",
    ),
    "a server in batches": (
        (
            "    profile: {}",
            "    profile: {scenarios: [{scenario: Server, queries_per_s: 5.0, batch_size: 2}]}",
        ),
        r"profile\.scenarios: a query of Server is one sample, .* must be 1, got 2",
    ),
    "batches that do not fill a query": (
        ("    profile: {}", "    profile: {scenarios: [{scenario: MultiStream, batch_size: 3}]}"),
        r"samples_per_query must be a multiple of batch_size 3, got 8",
    ),
    "a key that stands twice": (
        ("model: digits", "model: digits\nmodel: other"),
        r"model stands twice",
    ),
    "a name that YAML takes for a number": (
        ("  pruned:\n", "  1:\n"),
        r"recipes\.1 must be text as a name \(params\.yaml:\d+\)",
    ),
    "a number that YAML takes for text": (
        ("max_abs_error: 0.0001", "max_abs_error: 1e-4"),
        r"max_abs_error must be float, got str, got '1e-4'; .* text, write 1\.0e-4",
    ),
    "a section that is no mapping": (
        ("export:\n  opset: 20\n  max_abs_error: 0.0001\n", "export: 20\n"),
        r"export must be a mapping of opset, max_abs_error, got 20",
    ),
    "a missing section": (
        ("export:\n  opset: 20\n  max_abs_error: 0.0001\n", ""),
        r"export is missing",
    ),
    "an ONNX file that is to be trained": (
        ("  name: resnet8", "  onnx: m.onnx"),
        r"an ONNX file is trained already, got net\.onnx and a train",
    ),
    "digits with a path": (
        ("source: digits", "source: digits\n  path: mine.npz"),
        r"data\.source digits is embedded, and takes no data\.path or data\.url, got 'mine\.npz'",
    ),
    "ratios for a set that is split by speaker": (
        ("source: digits", "source: fsdd\n  path: a.tar.gz"),
        r"data\.train_ratio does not go with fsdd, which is split by speaker",
    ),
    "no ratios": (
        ("  train_ratio: 0.306", "  #"),
        r"data\.train_ratio and data\.validation_ratio split digits, got None and 0\.303",
    ),
    "a metric that is not the kind's": (
        ("metric: accuracy", "metric: mae"),
        r"task\.metric of classification must be accuracy or your own module:function, got 'mae'",
    ),
    "a metric of one's own without a direction": (
        ("metric: accuracy", f"metric: a:b\n  metric_digest: sha256:{'0' * 64}"),
        r"task\.direction must say which a:b is better: higher or lower",
    ),
    "a direction for a known metric": (
        ("metric: accuracy", "metric: accuracy\n  direction: lower"),
        r"task\.direction and task\.unit go with a metric of your own, accuracy has its own",
    ),
    "a micro-NPU without its compiler's settings": (
        (
            (
                "to_onnxruntime\n    runtime: onnxruntime\n    convert:\n"
                "      precisions: [fp32, int8-dynamic, int8-static]"
            ),
            "to_ethos_u\n    runtime: tflite_micro\n    convert:\n      precisions: [fp32]",
        ),
        r"convert\.vela: goes with to_ethos_u, and .*, got to_ethos_u and no section",
    ),
    "TensorRT settings where there is no TensorRT": (
        (
            "      precisions: [fp32, int8-dynamic, int8-static]",
            "      precisions: [fp32]\n      tensorrt: {compute_capability: '8.9'}",
        ),
        r"convert\.tensorrt: goes with to_tensorrt and .*, got to_onnxruntime and a section",
    ),
    "an activation type that the kernels do not take": (
        (
            "      precisions: [fp32, fp16-weights, int8-dynamic, int8-static]",
            "      precisions: [fp32]\n      activation_dtype: uint8",
        ),
        r"activation_dtype: kernels for to_litert take int8, got uint8",
    ),
    "a Server without its arrivals": (
        ("    profile: {}", "    profile: {scenarios: [{scenario: Server}]}"),
        r"profile\.scenarios: queries_per_s goes with Server, and is req.*, got Server and none",
    ),
    "arrivals that nobody waits for": (
        ("    profile: {}", "    profile: {scenarios: [{scenario: Offline, queries_per_s: 5}]}"),
        r"queries_per_s goes with Server, and is required there, got Offline and 5",
    ),
    "a query of many samples where one is a query": (
        (
            "    profile: {}",
            (
                "    profile:\n      scenarios:\n"
                "        - {scenario: Server, queries_per_s: 9, samples_per_query: 4}"
            ),
        ),
        r"scenarios: samples_per_query is of MultiStream, got Server and 4 \(params\.yaml:\d+\)",
    ),
    "an objective that nothing measures": (
        ("    select: {}", "    select: {objective: energy}"),
        r"select\.objective: energy needs profile\.energy, which names the meter, got none",
    ),
    "a serial meter without its port": (
        ("    profile: {}", "    profile: {energy: {meter: serial}}"),
        r"energy\.port: port goes with meter serial, and is .*, got serial and no port",
    ),
    "a port of a meter that has none": (
        ("    profile: {}", "    profile: {energy: {meter: rapl, port: /dev/ttyUSB0}}"),
        r"energy\.port: port goes with meter serial, and .*, got rapl and /dev/ttyUSB0",
    ),
    "a model of the energy of no hardware": (
        ("    profile: {}", "    profile: {energy: {meter: modelled}}"),
        r"energy\.meter: modelled takes the power of the catalogue's hardware, got no hardware",
    ),
    "the GPU's meter for the processor": (
        ("    profile: {}", "    profile: {energy: {meter: nvml}}"),
        r"energy\.meter: nvml reads a GPU, and onnxruntime runs on the processor, got nvml",
    ),
    "a window that tells nothing": (
        ("    profile: {}", "    profile: {energy: {meter: rapl, window_s: 5}}"),
        r"profile\.energy\.window_s must be float >= 10\.0, got 5",
    ),
    "latency of an emulator": (
        ("environment: device-tflite", "environment: emulated-aarch64"),
        r"objective: emulated-aarch64 tells no latency and no energy; set objective: size, or give",
    ),
    "measurements by an emulator": (
        (f"{EMULATED[0]}    select: {{}}", f"{EMULATED[1]}    select: {{objective: size}}"),
        r"accept: nothing is measured in emulated-aarch64; set accept: emulated, or give a connec",
    ),
    "text that is not YAML": (("model: digits", "model: [digits"), r"params\.yaml is not YAML"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_line(tmp_path, change, words):
    with pytest.raises(ParamsError, match=words) as caught:
        params.load(edited(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_every_problem_is_listed_at_once_with_its_line(tmp_path):
    path = edited(tmp_path, ("ratio: 0.5\n", "ratio: 1.5\n"), ("optimizer: adamw", "optimizer: x"))
    _, problems = params.parse(path)
    lines = path.read_text().splitlines()
    assert len(problems) == 2
    assert f"params.yaml:{lines.index('    ratio: 1.5') + 1}" in "".join(problems)


def test_a_file_that_is_absent_is_one_line(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read: No such file"):
        params.load(tmp_path / "params.yaml")


def test_sections_survive_a_round_trip():
    loaded = params.load(ROOT / params.FILE_NAME)
    assert msgspec.convert(msgspec.to_builtins(loaded), params.Params) == loaded


def test_inputs_lock_pins_and_repins_and_touches_nothing_else(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"one")
    path = edited(tmp_path, ("train:\n", "train:\n  checkpoint: w.safetensors   # ours\n"))
    before = path.read_text()
    assert inputs.lock(path) == {"train.checkpoint_digest": files.digest_bytes(b"one")}
    assert params.load(path).train.checkpoint_digest == files.digest_bytes(b"one")
    (tmp_path / "w.safetensors").write_bytes(b"two")
    inputs.lock(path)
    assert params.load(path).train.checkpoint_digest == files.digest_bytes(b"two")
    pin = f"\n  checkpoint_digest: {files.digest_bytes(b'two')}"
    assert path.read_text().replace(pin, "", 1) == before


def test_inputs_lock_fills_an_empty_pin(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"one")
    lines = "train:\n  checkpoint_digest:\n  checkpoint: w.safetensors\n"
    path = edited(tmp_path, ("train:\n", lines))
    inputs.lock(path)
    assert params.load(path).train.checkpoint_digest == files.digest_bytes(b"one")


def test_inputs_lock_names_what_is_missing(tmp_path):
    path = edited(tmp_path, ("train:\n", "train:\n  checkpoint: gone.safetensors\n"))
    with pytest.raises(InputsError, match=r"train\.checkpoint: gone\.safetensors is missing"):
        inputs.lock(path)


def test_steps_by_input_are_refused_for_a_net_that_is_trained_here(tmp_path):
    start, end = DEFAULT.index("  preprocessing:"), DEFAULT.index("task:")
    steps = "  preprocessing:\n    left: []\n    right: [{step: scale, factor: 2}]\n\n"
    words = r"data\.preprocessing: steps by input go with net\.onnx: .* got left, right"
    with pytest.raises(ParamsError, match=words):
        params.load(edited(tmp_path, (DEFAULT[start:end], steps)))


def emulated(tmp_path, profile="", select="objective: size, accept: emulated", connection=""):
    """The last target under an emulator."""
    old = f"{EMULATED[0]}    select: {{}}"
    new = f"{EMULATED[1]}{profile}    select: {{{select}}}\n{connection}"
    return edited(tmp_path, (old, new))


def test_outputs_and_sizes_can_be_had_of_an_emulator(tmp_path):
    assert params.parse(emulated(tmp_path))[1] == []


OF_AN_EMULATOR = {
    "profile.energy": {"profile": "      energy: {meter: serial, port: /dev/ttyUSB0}\n"},
    "profile.layers": {"profile": "      layers: true\n"},
    "profile.scenarios": {"profile": "      scenarios: [{scenario: Offline}]\n"},
    "profile.sweep": {"profile": "      sweep: {batch_size: [1, 8]}\n"},
    "select.max_latency_ms": {"select": "objective: size, accept: emulated, max_latency_ms: 3"},
    "select.max_memory_bytes": {"select": "objective: size, accept: emulated, max_memory_bytes: 9"},
}


@pytest.mark.parametrize("key", OF_AN_EMULATOR)
def test_times_and_memory_cannot(tmp_path, key):
    (line,) = params.parse(emulated(tmp_path, **OF_AN_EMULATOR[key]))[1]
    words = f"targets.linux-tflite-runtime.{key}: times and memory in emulated-aarch64 are the"
    assert line.startswith(words)
    assert "leave it out, or give a connection (params.yaml:" in line


def test_a_connection_makes_it_a_board(tmp_path):
    profile = "      energy: {meter: ina}\n      layers: true\n"
    ssh = "    connection: {transport: ssh, host: pi}\n"
    path = emulated(tmp_path, profile, "objective: energy, max_latency_ms: 3", ssh)
    assert params.parse(path)[1] == []


@pytest.mark.parametrize("key", ["python", "runner", "folder"])
@pytest.mark.parametrize("kind", ["ssh, host: pi", "adb, serial: x"])
def test_a_path_on_a_device_has_no_sign_of_the_home(tmp_path, key, kind):
    settings = f"    connection: {{transport: {kind}, {key}: ~/mine}}\n"
    path = emulated(tmp_path, "", "objective: size", settings)
    (line,) = params.parse(path)[1]
    assert f"connection.{key}: no shell there sees its ~; start at /, or leave ~/ out" in line
    assert "got ~/mine" in line


SSH = {"transport": "ssh", "host": "board"}
COMPILED = {
    "an estimate's energy is not metered": (
        "cortex-m55-ethos-u55",
        {"profile": {"energy": {"meter": "ina"}}},
        ["profile.energy.meter: latency of to_ethos_u is estimated, so its energy can only be mod"],
    ),
    "it may be modelled": (
        "cortex-m55-ethos-u55",
        {"hardware": "raspberry-pi-5", "profile": {"energy": {"meter": "modelled"}}},
        [],
    ),
    "an estimate needs no device": (
        "cortex-m55-ethos-u55",
        {"connection": SSH},
        ["connection: figures of to_ethos_u are its compiler's, which needs no device; leave it"],
    ),
    "a GPU has its meter": ("rtx-4090", {"profile": {"energy": {"meter": "nvml"}}}, []),
    "the processor's is not the GPU's": (
        "rtx-4090",
        {"profile": {"energy": {"meter": "rapl"}}},
        ["profile.energy.meter: rapl reads the processor, and tensorrt runs on a GPU, got rapl"],
    ),
    "a bundle takes no energy here": (
        "jetson-orin",
        {"profile": {"energy": {"meter": "ina"}}},
        ["profile.energy.meter: a bundle becomes an engine on its device; leave energy out, got"],
    ),
    "no load is run on an estimate, which has layers": (
        "cortex-m55-ethos-u55",
        {"profile": {"sweep": {}, "scenarios": [{"scenario": "Offline"}], "layers": True}},
        [
            "profile.scenarios: no load is run on what to_ethos_u makes; leave it out",
            "profile.sweep: no load is run on what to_ethos_u makes; leave it out",
        ],
    ),
    "nothing is run of a bundle": (
        "jetson-orin",
        {"profile": {"sweep": {}, "scenarios": [{"scenario": "Offline"}], "layers": True}},
        [
            f"profile.{key}: a bundle becomes an engine on its device, and is not run here; leave"
            for key in ("scenarios", "sweep", "layers")
        ],
    ),
    "an engine of this machine's GPU takes loads": (
        "rtx-4090",
        {"profile": {"sweep": {}, "scenarios": [{"scenario": "Offline"}]}},
        [],
    ),
    "an engine is not run over a connection": (
        "jetson-orin",
        {"connection": SSH},
        ["connection: what to_tensorrt_bundle makes is not run over a connection yet; leave"],
    ),
}


@pytest.mark.parametrize(("preset", "change", "expected"), COMPILED.values(), ids=COMPILED)
def test_of_what_is_compiled_elsewhere(tmp_path, preset, change, expected):
    values = yaml.safe_load(DEFAULT)
    values["targets"] = {"t": {**settings.presets()[preset], **change}}
    path = tmp_path / params.FILE_NAME
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    found = params.parse(path)[1]
    assert [line.removeprefix("targets.t.")[: len(words)] for line, words in zip(
        found, expected, strict=True
    )] == expected  # fmt: skip
