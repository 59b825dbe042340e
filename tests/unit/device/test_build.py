"""What is refused before TensorRT is asked; real builds are in tests/systems/test_tensorrt.py."""

from types import SimpleNamespace

import msgspec
import pytest

from pipeline import files, manifest
from pipeline.conversion.tensorrt_engine import Recipe
from pipeline.device import build
from pipeline.errors import DeviceError, ManifestError
from pipeline.runtimes import cuda

RECIPE = Recipe(
    precision="fp32",
    compute_capability="8.7",
    shapes={"input": (1, 4)},
    versions=("10.3", "10.4"),
    timing_cache="sm87-tensorrt10.3.timing-cache",
)


def here(version="10.3.0", gpu=cuda.Device("Orin", "8.7")):  # noqa: B008 - a plain tuple
    """The facts of a device; nothing of TensorRT is reached before they are judged."""
    return build.Here(SimpleNamespace(__name__="tensorrt", __version__=version), gpu)


@pytest.fixture
def make_bundle(tmp_path):
    def make(recipe=RECIPE, name="bundle"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"no model, and nobody reads it")
        (folder / "build.json").write_bytes(files.encode_json(recipe))
        manifest.write(folder, model="m", stage="convert", variant="dense", precision="fp32")
        return folder

    return make


REFUSED = {
    "another GPU": (
        here(gpu=cuda.Device("Orin Nano of tomorrow", "10.1")),
        r"bundle: Orin Nano of tomorrow has compute capability 10\.1, the recipe is for 8\.7; pull",
    ),
    "an older TensorRT": (
        here("8.6.2"),
        r"bundle: tensorrt 8\.6\.2 is installed, the recipe is for 10\.3 up to but without 10\.4",
    ),
    "a newer TensorRT": (here("10.4.0"), r"tensorrt 10\.4\.0 is installed, the recipe is for 10"),
    "a TensorRT of two digits": (here("10.30.1"), r"tensorrt 10\.30\.1 is installed, the recipe"),
    "no GPU": (
        here(gpu="no CUDA device: libcuda.so.1 is absent; install it"),
        r"bundle is built on its device: no CUDA device: libcuda\.so\.1 is absent",
    ),
}


@pytest.mark.parametrize(("facts", "words"), REFUSED.values(), ids=REFUSED)
def test_a_device_that_is_not_the_recipes_is_refused(make_bundle, tmp_path, facts, words):
    bundle = make_bundle()
    with pytest.raises(DeviceError, match=words) as raised:
        build.build(bundle, tmp_path / "out", caches=tmp_path / "caches", here=facts)
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_without_tensorrt_it_says_where_to_run(make_bundle, tmp_path):
    if build.importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(DeviceError, match="TensorRT is not installed here; slipway device build"):
        build.build(make_bundle(), tmp_path / "out", caches=tmp_path / "caches")


def test_what_is_no_bundle_is_refused(tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x")
    manifest.write(folder, model="m", stage="convert")
    with pytest.raises(DeviceError, match=r"holds no build\.json, so it is no build bundle"):
        build.build(folder, tmp_path / "out", caches=tmp_path, here=here())


def test_changed_bytes_are_refused(make_bundle, tmp_path):
    bundle = make_bundle()
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(DeviceError, match=r"model\.onnx is not what its manifest says; pull"):
        build.build(bundle, tmp_path / "out", caches=tmp_path, here=here())


def test_a_recipe_of_another_version_is_refused(make_bundle, tmp_path):
    bundle = make_bundle(msgspec.structs.replace(RECIPE, schema_version=2))
    with pytest.raises(ManifestError, match="has schema_version 2, this slipway reads 1"):
        build.build(bundle, tmp_path / "out", caches=tmp_path, here=here())


def test_a_timing_cache_outside_its_folder_is_refused(make_bundle, tmp_path):
    bundle = make_bundle(msgspec.structs.replace(RECIPE, timing_cache="../../etc/passwd"))
    with pytest.raises(DeviceError, match=r"'\.\./\.\./etc/passwd', which leaves its directory"):
        build.build(bundle, tmp_path / "out", caches=tmp_path, here=here())


def test_a_destination_in_use_is_refused_before_anything_is_built(make_bundle, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(DeviceError, match="exists already; remove it, or build to a new directory"):
        build.build(make_bundle(), tmp_path / "out", caches=tmp_path, here=here("8.6"))
    assert (tmp_path / "out/mine").exists()
