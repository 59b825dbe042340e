"""TensorRT: engines built without a GPU by TensorRT-RTX, and what may be said of them.

No engine runs here; on a machine with the GPU the adapter's tests would.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from typer.testing import CliRunner

from pipeline import cli, compatibility, manifest, measurement, params
from pipeline.chain import certify, convert, profile, register, select
from pipeline.conversion import (
    candidates,
    tensorrt_engine,
    to_tensorrt,
    to_tensorrt_bundle,
)
from pipeline.conversion.candidates import Variant
from pipeline.conversion.to_onnx import to_onnx
from pipeline.conversion.to_onnx_on_grids import to_onnx_on_grids
from pipeline.data import splits
from pipeline.device import build as device_build
from pipeline.errors import ConversionError, DeviceError, RegistryError
from pipeline.nets import factory, fold, on_grids, ranges
from pipeline.profiling import workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.registry import lock, resolve
from pipeline.registry import publish as publishing
from pipeline.registry.store import DirectoryStore
from pipeline.runtimes import cuda
from pipeline.targets import device as devices

ROOT = Path(__file__).parents[2]
SHAPE, LABELS = (1, 8, 8), ("a", "b", "c", "d")
ALL = compatibility.PRECISIONS["to_tensorrt"]
ADA = params.TensorRT(compute_capability="8.9")
VERSION = ".".join(tensorrt_rtx.__version__.split(".")[:2])


def cfg_of(tensorrt=ADA, precisions=ALL):
    return params.Convert(precisions=precisions, num_calibration=16, tensorrt=tensorrt)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The outs of export in miniature: one variant, a ResNet-8 for 8x8 images."""
    root = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    net = factory.build(params.Net(name="resnet8"), SHAPE, len(LABELS)).eval()
    (root / "dense").mkdir()
    to_onnx(net, torch.zeros(1, *SHAPE), root / "dense/model.onnx", 20)
    common = {"model": "tiny", "stage": "export", "labels": LABELS}
    manifest.write(root / "dense", variant="dense", **common)
    manifest.write(root, **common)
    return root


@pytest.fixture(scope="module")
def variant(exported):
    folder = exported / "dense"
    return Variant("dense", folder / "model.onnx", None, manifest.read(folder))


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).standard_normal((16, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def built(variant, samples, tmp_path_factory):
    """Outcomes by precision, of two folders."""
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-place") / "deeper"
    made = [to_tensorrt.convert(variant, ALL, samples, cfg_of(), folder) for folder in folders]
    return {one.precision: (one, other) for one, other in zip(*made, strict=True)}


@pytest.fixture
def without_gpu():
    found = cuda.find()
    if not isinstance(found, str):
        pytest.skip(f"{found.name} is here")
    return found


@pytest.mark.parametrize("precision", ALL)
class TestEngine:
    def test_is_built_for_a_gpu_that_is_not_here(self, built, precision):
        outcome, _ = built[precision]
        assert (outcome.status, outcome.reason, outcome.format) == ("built", None, "engine")
        assert outcome.path.name == "model.engine"
        assert outcome.path.read_bytes().startswith(b"vtrt")
        assert [t.shape for t in outcome.signature.inputs] == [(1, *SHAPE)]
        assert [t.shape for t in outcome.signature.outputs] == [(1, len(LABELS))]
        assert outcome.tools["tensorrt-rtx"] == tensorrt_rtx.__version__
        assert outcome.settings["tensorrt"]["compute_capability"] == "8.9"

    def test_two_folders_give_the_same_bytes(self, built, precision):
        one, other = built[precision]
        assert one.path != other.path
        assert one.path.read_bytes() == other.path.read_bytes()

    def test_no_folder_is_named_in_the_file(self, built, precision):
        one, other = built[precision]
        content = one.path.read_bytes()
        for place in (one.path.parent, other.path.parent, ROOT, Path.home(), Path("/tmp")):
            assert f"{place}/".encode() not in content


def test_another_process_gives_the_same_bytes(built, variant, samples, tmp_path):
    np.save(tmp_path / "samples.npy", samples)
    code = f"""if True:
        import numpy, pathlib
        from pipeline import manifest, params
        from pipeline.conversion import to_tensorrt
        from pipeline.conversion.candidates import Variant
        onnx = pathlib.Path({str(variant.onnx)!r})
        cfg = params.Convert(precisions={ALL!r}, num_calibration=16,
                             tensorrt=params.TensorRT(compute_capability="8.9"))
        to_tensorrt.convert(Variant("dense", onnx, None, manifest.read(onnx.parent)),
                            {ALL!r}, numpy.load("samples.npy"), cfg, pathlib.Path("out"))
    """
    env = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=300)
    for precision, (outcome, _) in built.items():
        content = (tmp_path / f"out/dense-{precision}/model.engine").read_bytes()
        assert (
            hashlib.sha256(content).digest() == hashlib.sha256(outcome.path.read_bytes()).digest()
        )


def test_each_precision_and_each_gpu_has_an_engine_of_its_own(built, variant, samples, tmp_path):
    contents = {outcome.path.read_bytes() for outcome, _ in built.values()}
    blackwell = cfg_of(params.TensorRT(compute_capability="12.0"), ("fp32",))
    (other,) = to_tensorrt.convert(variant, ("fp32",), samples, blackwell, tmp_path)
    assert len(contents | {other.path.read_bytes()}) == 4


def test_tf32_is_off_so_fp32_is_fp32(built, variant):
    outcome, _ = built["fp32"]
    recipe = msgspec.convert(outcome.settings["tensorrt"], tensorrt_engine.Recipe)
    loose = msgspec.structs.replace(recipe, cleared_flags=())
    with_tf32 = tensorrt_engine.build(variant.onnx.read_bytes(), loose, tensorrt_rtx).engine
    assert with_tf32 != outcome.path.read_bytes()


def test_a_gpu_that_it_does_not_build_for_is_refused_with_those_that_it_does(
    variant, samples, tmp_path
):
    orin = cfg_of(params.TensorRT(compute_capability="8.7"), ("fp32",))
    (outcome,) = to_tensorrt.convert(variant, ("fp32",), samples, orin, tmp_path)
    assert outcome.status == "not_built"
    assert "builds for compute capability 7.5, 8.0, 8.6, 8.9" in outcome.reason
    assert "got 8.7; mend convert.tensorrt.compute_capability" in outcome.reason
    assert not list(tmp_path.iterdir())


def test_another_version_than_asked_for_is_refused(variant, samples, tmp_path):
    asked = cfg_of(params.TensorRT(compute_capability="8.9", version="10.3"), ("fp32",))
    (outcome,) = to_tensorrt.convert(variant, ("fp32",), samples, asked, tmp_path)
    assert f"tensorrt_rtx {tensorrt_rtx.__version__} is installed, the recipe is" in outcome.reason


def recipe_of(shape, name="input"):
    return tensorrt_engine.Recipe(
        precision="fp32", compute_capability="8.9", shapes={name: (1, *shape)}
    )


def test_an_operator_that_tensorrt_lacks_is_named_with_its_layer():
    graph = helper.make_graph(
        [helper.make_node("Det", ["input"], ["output"], name="head/determinant")],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    words = (
        r"tensorrt_rtx .* not support operator Det \(layer head/determinant\); replace the layer"
    )
    with pytest.raises(ConversionError, match=words) as raised:
        tensorrt_engine.build(model.SerializeToString(), recipe_of((4, 4)), tensorrt_rtx)
    assert "\n" not in str(raised.value)


def test_a_quantized_bias_is_refused_by_the_library_too(variant, samples, tmp_path):
    """The reason for `onnx_qdq`: onnxruntime's own static output is not for TensorRT."""

    class Feed:
        left = iter(samples)

        def get_next(self):
            sample = next(self.left, None)
            return None if sample is None else {"input": sample[None]}

    path = tmp_path / "default.onnx"
    quantize_static(
        variant.onnx, path, Feed(), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True},
    )  # fmt: skip
    with pytest.raises(ConversionError, match=r"operator DequantizeLinear \(layer .*bias.*Int32"):
        tensorrt_engine.build(path.read_bytes(), recipe_of(SHAPE), tensorrt_rtx)


@pytest.mark.parametrize("content", [b"", b"abc" * 30], ids=["empty", "nonsense"])
def test_what_is_no_onnx_file_is_refused(content):
    with pytest.raises(ConversionError, match=r"^tensorrt_rtx|^the file has the inputs none"):
        tensorrt_engine.build(content, recipe_of(SHAPE), tensorrt_rtx)


def test_ranges_that_training_learned_reach_the_engine(variant, samples, tmp_path):
    torch.manual_seed(0)
    net = factory.build(params.Net(name="resnet8"), SHAPE, len(LABELS)).eval()
    example = torch.from_numpy(samples)
    found = []
    for name, layer in fold.folded(net, example[:1]).named_modules():
        if isinstance(layer, on_grids.QUANTIZABLE):
            weight = layer.weight.detach()
            amax = tuple(weight.abs().flatten(1).amax(1).tolist())
            found.append(ranges.Range(name, 4.0, -4.0, amax, float(weight.norm())))
    (tmp_path / "model.onnx").write_bytes(variant.onnx.read_bytes())
    rounded = on_grids.fake_quantized(net, example[:1], found)
    to_onnx_on_grids(rounded, example[:1], tmp_path / candidates.QDQ_NAME)
    learned = Variant("dense", tmp_path / "model.onnx", None, variant.manifest)
    (tmp_path / "manifest.json").write_bytes((variant.onnx.parent / "manifest.json").read_bytes())
    engines = [
        to_tensorrt.convert(each, ("int8-static",), samples, cfg_of(), tmp_path / name)[0]
        for name, each in (("learned", learned), ("calibrated", variant))
    ]
    assert [(engine.status, engine.reason) for engine in engines] == [("built", None)] * 2
    assert engines[0].path.read_bytes() != engines[1].path.read_bytes()


def test_a_flag_of_another_tensorrt_is_refused(variant):
    recipe = msgspec.structs.replace(recipe_of(SHAPE), cleared_flags=("FP7",))
    with pytest.raises(ConversionError, match="has no BuilderFlag 'FP7'; convert it again"):
        tensorrt_engine.build(variant.onnx.read_bytes(), recipe, tensorrt_rtx)


def test_a_timing_cache_goes_in_and_comes_out(variant):
    """TensorRT-RTX keeps the calls and does nothing in them; TensorRT fills what comes out."""
    with pytest.warns(DeprecationWarning, match="Timing cache"):
        made = tensorrt_engine.build(
            variant.onnx.read_bytes(), recipe_of(SHAPE), tensorrt_rtx, timing_cache=b""
        )
    assert made.timing_cache


def test_without_a_gpu_a_worker_says_so_in_one_line(built, tmp_path, without_gpu):
    outcome, _ = built["int8-static"]
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.engine").write_bytes(outcome.path.read_bytes())
    manifest.write(folder, model="tiny", stage="convert")
    np.savez(tmp_path / "inputs.npz", inputs=np.zeros((1, *SHAPE), np.float32))
    job = workers.job_of(folder, tmp_path / "inputs.npz", target_of())
    with pytest.raises(ModelRefusedError) as raised:
        workers.outputs(job, tmp_path / "outputs.npz")
    assert without_gpu in str(raised.value)
    assert "\n" not in str(raised.value)


def target_of(converter="to_tensorrt", tensorrt=ADA, **budget):
    return params.Target(
        converter=converter,
        runtime="tensorrt",
        convert=cfg_of(tensorrt),
        profile=params.Profile(),
        select=params.Select(**budget),
    )


# -- the device's own build --------------------------------------------------------------------


@pytest.fixture
def bundle(variant, samples, tmp_path):
    """A bundle for what is here: TensorRT-RTX in place of a device's TensorRT."""
    here = params.TensorRT(compute_capability="8.9", version=VERSION)
    outcome = to_tensorrt_bundle.convert(variant, ALL, samples, cfg_of(here), tmp_path / "out")[-1]
    folder = outcome.path.parent
    manifest.write(
        folder, model="tiny", stage="convert", variant="dense", precision="int8-static",
        format="onnx", target="box", signature=outcome.signature, labels=LABELS,
    )  # fmt: skip
    return folder


HERE = device_build.Here(tensorrt_rtx, cuda.Device("a GPU", "8.9"))


def test_a_bundle_becomes_an_engine_that_says_what_it_was_made_from(bundle, tmp_path):
    written = device_build.build(bundle, tmp_path / "made", caches=tmp_path / "c", here=HERE)
    assert (tmp_path / "made/model.engine").read_bytes().startswith(b"vtrt")
    assert written.tools == {"tensorrt_rtx": tensorrt_rtx.__version__}
    assert (written.format, written.precision, written.labels) == ("engine", "int8-static", LABELS)
    assert written.params["tensorrt"]["compute_capability"] == "8.9"
    assert [i.path for i in written.inputs] == ["bundle"]
    assert manifest.read(tmp_path / "made").files == written.files
    found = measurement.read(tmp_path / "made/measurement.json")
    assert (found.kind, found.candidate) == ("built", "dense-int8-static")
    assert found.quality is None


def test_building_again_gives_the_same_engine(bundle, tmp_path):
    for name in ("one", "other"):
        device_build.build(bundle, tmp_path / name, caches=tmp_path / "c", here=HERE)
    one, other = ((tmp_path / n / "model.engine").read_bytes() for n in ("one", "other"))
    assert one == other


def test_a_refused_build_leaves_nothing(bundle, tmp_path):
    (bundle / "model.onnx").write_bytes(b"abc" * 30)
    described = msgspec.structs.asdict(manifest.read(bundle))
    described.pop("files")
    (bundle / "manifest.json").unlink()
    manifest.write(bundle, **described)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ConversionError):
        device_build.build(bundle, tmp_path / "made", caches=tmp_path / "c", here=HERE)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_another_compute_capability_is_refused_here_as_on_a_device(bundle, tmp_path):
    other = device_build.Here(tensorrt_rtx, cuda.Device("a GPU", "12.0"))
    with pytest.raises(DeviceError, match=r"a GPU has compute capability 12\.0, .* is for 8\.9"):
        device_build.build(bundle, tmp_path / "made", caches=tmp_path / "c", here=other)


def test_the_command_says_in_one_line_that_this_is_no_device(bundle, tmp_path):
    command = ["device", "build", str(bundle), "--to", str(tmp_path / "made")]
    done = CliRunner().invoke(cli.app, command)
    assert isinstance(done.exception, DeviceError)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "made").exists()


# -- what `built` means in the chain -----------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(exported, tmp_path_factory):
    """The chain's inputs: splits, tools, this machine, and params with two targets."""
    root = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    for name in ("validation", "calibration", "test"):
        inputs = rng.standard_normal((40, *SHAPE)).astype(np.float32)
        labels = np.arange(40, dtype=np.int64) % len(LABELS)
        splits.write(root / f"{name}.npz", splits.Split(inputs, labels, LABELS, ()))
    machine = devices.describe()
    machine["fingerprint"] = devices.fingerprint(machine)
    (root / "device.json").write_text(json.dumps(machine))
    # a bundle is said to be built on machines without any TensorRT
    tools = {"onnx": "1", "onnxruntime": "1", "tensorrt-rtx": "1"}
    (root / "rtx.json").write_text(json.dumps(tools))
    (root / "orin.json").write_text(json.dumps(tools | {"tensorrt-rtx": "absent"}))
    p = params.load(ROOT / "params.yaml")
    targets = {
        "rtx": target_of(),
        "orin": target_of(
            "to_tensorrt_bundle", params.TensorRT(compute_capability="8.7", version="10.3")
        ),
    }
    recipe = params.Recipe(prune="skip", factorize="skip", distill="skip", quantize="int8")
    return SimpleNamespace(
        root=root,
        exported=exported,
        p=msgspec.structs.replace(p, model="tiny", recipes={"dense": recipe}, targets=targets),
    )


@pytest.fixture(scope="module")
def profiled(workspace):
    """Stages convert and profile of both targets."""
    w = workspace
    for target in w.p.targets:
        tools = w.root / f"{target}.json"
        convert.run(
            w.exported, None, w.root / "calibration.npz", tools,
            w.root / "converted" / target, w.p, target,
        )  # fmt: skip
        profile.run(
            w.root / "converted" / target, w.root / "validation.npz", tools,
            w.root / "device.json", w.root / "profiled" / target, w.p, target,
        )  # fmt: skip
    return w


@pytest.fixture
def finish(profiled, tmp_path):
    """Run select, certify and register of a target with a budget."""

    def run(target, **budget):
        w = profiled
        cfg = msgspec.structs.replace(w.p.targets[target], select=params.Select(**budget))
        p = msgspec.structs.replace(w.p, targets={target: cfg})
        selected, certified, released = (tmp_path / n for n in ("selected", "certified", "release"))
        select.run(w.root / "converted" / target, w.root / "profiled" / target, selected, p, target)
        certify.run(selected, w.root / "test.npz", certified, p, target)
        register.run(selected, certified, released, "tiny", target)
        return released

    return run


@pytest.mark.parametrize("target", ["rtx", "orin"])
def test_every_candidate_is_of_kind_built_until_a_gpu_measures_it(profiled, target, without_gpu):
    folders = sorted((profiled.root / "profiled" / target).glob("dense-*"))
    assert [folder.name for folder in folders] == ["dense-fp16", "dense-fp32", "dense-int8-static"]
    for folder in folders:
        found = measurement.read(folder / "measurement.json")
        wanted = without_gpu if target == "rtx" else "slipway device build"
        assert (found.kind, wanted in found.reason) == ("built", True)
        assert (found.quality, found.latency_ms.p50) == (None, None)
        assert [path.name for path in folder.iterdir()] == ["measurement.json"]


@pytest.mark.parametrize("target", ["rtx", "orin"])
def test_by_default_nothing_ships_that_was_only_built(finish, target, without_gpu):
    assert without_gpu
    released = json.loads((finish(target) / "release.json").read_bytes())
    assert released["shipped"] is False
    assert "evidence is built, accept is measured" in released["reason"]


@pytest.mark.parametrize("target", ["rtx", "orin"])
def test_with_accept_built_the_wanted_precision_ships_without_figures(finish, target, without_gpu):
    assert without_gpu
    out = finish(target, accept="built", precision="int8-static")
    released = json.loads((out / "release.json").read_bytes())
    assert (released["shipped"], released["candidate"]) == (True, "dense-int8-static")
    assert not (out / "golden.npz").exists()
    found = measurement.read(out / "measurement.json")
    assert (found.kind, found.quality, found.drop) == ("built", None, None)


def test_it_is_published_as_unproven_and_pulled_when_told_so(finish, tmp_path, without_gpu):
    released = finish("orin", accept="built", precision="fp16")
    project = tmp_path / "project"
    project.mkdir()
    (project / "models/release").mkdir(parents=True)
    released.rename(project / "models/release/orin")
    write_lock(project, "orin")
    store = DirectoryStore(tmp_path / "registry")
    done = publishing.publish(project, store, None, {"orin": project / "models/release/orin"})
    part = done.targets["orin"]
    assert (part.kind, part.unproven, part.precision) == ("built", True, "fp16")
    with pytest.raises(RegistryError, match="is unproven: built, and never run on its hardware"):
        resolve.pull(store, "tiny", "orin", None, tmp_path / "pulled")
    resolve.pull(store, "tiny", "orin", None, tmp_path / "pulled", accept_unproven=True)
    np.savez(tmp_path / "inputs.npz", inputs=np.zeros((1, *SHAPE), np.float32))
    command = ["run", str(tmp_path / "pulled"), str(tmp_path / "inputs.npz")]
    ran = CliRunner().invoke(cli.app, command)
    assert "is a build bundle, of which tensorrt reads the engine; slipway device build" in str(
        ran.exception
    )
    assert without_gpu


def write_lock(project, target):
    (project / "params.yaml").write_text("model: tiny\n", encoding="utf-8")
    path = f"models/release/{target}"
    stages = {
        f"register@{target}": {
            "cmd": "x",
            "outs": [{"path": path, "hash": "md5", "md5": lock.md5(project / path)}],
        }
    }
    text = json.dumps({"schema": "2.0", "stages": stages})  # which is YAML too
    (project / "dvc.lock").write_text(text, encoding="utf-8")


def test_an_engine_runs_nowhere_here_and_says_so_in_one_line(bundle, tmp_path, without_gpu):
    device_build.build(bundle, tmp_path / "made", caches=tmp_path / "c", here=HERE)
    np.savez(tmp_path / "inputs.npz", inputs=np.zeros((1, *SHAPE), np.float32))
    command = ["run", str(tmp_path / "made"), str(tmp_path / "inputs.npz")]
    done = CliRunner().invoke(cli.app, command)
    assert without_gpu in str(done.exception)
    assert "\n" not in str(done.exception)
    onnx.checker.check_model(onnx.load(bundle / "model.onnx"))
