"""What is the build bundle's own; engines are in tests/systems/test_tensorrt.py."""

import json

import onnx
import pytest

from pipeline import compatibility, params
from pipeline.conversion import onnx_qdq, to_tensorrt_bundle
from pipeline.errors import ConversionError

ALL = compatibility.PRECISIONS["to_tensorrt_bundle"]
ORIN = params.TensorRT(compute_capability="8.7", version="10.3")


def convert(variant, samples, out, precisions=ALL, num_calibration=8):
    cfg = params.Convert(precisions=precisions, num_calibration=num_calibration, tensorrt=ORIN)
    return to_tensorrt_bundle.convert(variant, precisions, samples, cfg, out)


@pytest.fixture
def plain(make_variant):
    return make_variant("plain", export=True)


def test_a_bundle_is_an_onnx_file_and_a_recipe(plain, samples, tmp_path):
    for outcome in convert(plain, samples, tmp_path / "out"):
        assert (outcome.status, outcome.format) == ("built", "onnx")
        assert sorted(p.name for p in outcome.path.parent.iterdir()) == ["build.json", "model.onnx"]
        assert [t.shape for t in outcome.signature.inputs] == [(1, 1, 8, 8)]
        assert [t.shape for t in outcome.signature.outputs] == [(1, 3)]


def test_the_recipe_says_all_that_the_device_needs(plain, samples, tmp_path):
    *_, outcome = convert(plain, samples, tmp_path / "out")
    recipe = json.loads((outcome.path.parent / "build.json").read_bytes())
    assert recipe == {
        "schema_version": 1,
        "precision": "int8-static",
        "compute_capability": "8.7",
        "versions": ["10.3", "10.4"],
        "shapes": {"input": [1, 1, 8, 8]},
        "network_flags": ["STRONGLY_TYPED"],
        "cleared_flags": ["TF32"],
        "workspace_bytes": 1 << 30,
        "timing_cache": "sm87-tensorrt10.3.timing-cache",
    }
    assert outcome.settings["tensorrt"]["compute_capability"] == "8.7"


def test_the_file_is_in_the_precision_that_it_is_called(plain, samples, tmp_path):
    fp32, fp16, int8 = convert(plain, samples, tmp_path / "out")
    assert fp32.path.read_bytes() == plain.onnx.read_bytes()
    kinds = {t.data_type for t in onnx.load(fp16.path).graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    onnx_qdq.check_symmetric(onnx.load(int8.path))


def test_two_folders_give_the_same_bytes(plain, samples, tmp_path):
    one, other = (convert(plain, samples, tmp_path / name) for name in ("one", "other"))
    for first, second in zip(one, other, strict=True):
        assert first.path != second.path
        for name in ("model.onnx", "build.json"):
            content = (first.path.parent / name).read_bytes()
            assert content == (second.path.parent / name).read_bytes()
            assert str(tmp_path).encode() not in content


def test_a_fixed_batch_is_refused_with_both_shapes(make_variant, samples, tmp_path):
    variant = make_variant("plain", export=True)
    model = onnx.load(variant.onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, variant.onnx)
    for outcome in convert(variant, samples, tmp_path / "out"):
        assert outcome.status == "not_built"
        assert "'input' takes [2, 1, 8, 8], one sample is [1, 1, 8, 8]" in outcome.reason


def test_one_refused_precision_leaves_the_others(make_variant, samples, tmp_path):
    fp32, _, int8 = convert(make_variant("bare", export=True), samples, tmp_path / "out")
    assert (fp32.status, int8.status) == ("built", "not_built")
    assert "no operator to quantize" in int8.reason
    assert not (tmp_path / "out/bare-int8-static").exists()


def test_a_precision_that_is_not_made_is_refused(plain, samples, tmp_path):
    with pytest.raises(ConversionError, match=r"makes fp32, fp16, int8-static, got 'bf16'; mend"):
        convert(plain, samples, tmp_path, ("fp32", "bf16"))


def test_too_few_calibration_samples_are_refused(plain, samples, tmp_path):
    with pytest.raises(ConversionError, match="asks for 32 samples, the calibration set has 16"):
        convert(plain, samples, tmp_path, num_calibration=32)
