"""What happens on this side of the TensorFlow process; the other is in tests/systems."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pipeline.conversion import from_onnx, onnx_file, onnx_to_tflite, to_litert
from pipeline.conversion.candidates import Variant
from pipeline.conversion.onnx_to_tflite import AS_IS, CHANNELS_FIRST, CHANNELS_LAST
from pipeline.errors import TargetError
from pipeline.manifest import Manifest
from pipeline.runtimes import structured


def test_images_are_laid_out_with_their_channels_last(images):
    found = onnx_to_tflite.arranged(images[:, :, :, :5], {"image": CHANNELS_LAST})
    assert found.shape == (20, 8, 5, 3)
    assert np.array_equal(found[1, 2, 4], images[1, :, 2, 4])
    for layout in (CHANNELS_FIRST, AS_IS):
        assert np.array_equal(onnx_to_tflite.arranged(images, {"image": layout}), images)


def test_each_of_several_inputs_has_its_own_layout(images):
    samples = structured.join({"image": images, "extra": images[:, 0]})
    found = onnx_to_tflite.arranged(samples, {"image": CHANNELS_LAST, "extra": AS_IS})
    assert found["image"].shape == (20, 8, 8, 3)
    assert np.array_equal(found["extra"], images[:, 0])


STEPS = {
    "what turned the image is left out": (
        ({"step": "scale", "factor": 0.5}, {"step": "channels_first"}),
        ({"step": "scale", "factor": 0.5},),
    ),
    "an image that came turned is turned back": ((), ({"step": "channels_last"},)),
}


@pytest.mark.parametrize(("steps", "expected"), STEPS.values(), ids=STEPS)
def test_preprocessing_ends_with_the_channels_last(steps, expected):
    assert to_litert.preprocessing_of(steps, ["image"]) == expected
    several = {"image": steps, "extra": steps}
    assert to_litert.preprocessing_of(several, ["image"]) == {"image": expected, "extra": steps}


def tries_of(shape, nodes):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]))
    return [layouts["x"] for layouts in onnx_to_tflite._tries(model)]


def test_layouts_are_tried_from_the_one_that_litert_profits_from():
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    turned = [helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])]
    assert tries_of((1, 3, 8, 8), relu) == [CHANNELS_LAST, CHANNELS_FIRST, AS_IS]
    assert tries_of((1, 8, 8, 3), turned) == [AS_IS, CHANNELS_FIRST]
    assert tries_of((1, 3, 8), relu) == [CHANNELS_FIRST, AS_IS]
    assert tries_of((1, 3), relu) == [AS_IS]


def test_names_become_numbers_and_the_nodes_can_be_named_again(make_onnx, images):
    model = onnx.load_from_string(from_onnx.adopt(make_onnx(), images, 1e-5).content)
    before = onnxruntime.InferenceSession(model.SerializeToString())
    found = onnx_file.number_names(model)
    assert found["node_0000"] == "first"
    assert {node.name for node in model.graph.node} == found.keys()
    assert [value.name for value in model.graph.input] == ["value_0001"]
    after = onnxruntime.InferenceSession(model.SerializeToString())
    expected = before.run(None, {"image": images})[0]
    assert np.array_equal(after.run(None, {"value_0001": images})[0], expected)


def test_a_missing_environment_names_the_remedy(make_onnx, images, monkeypatch, tmp_path):
    monkeypatch.setenv("SLIPWAY_ENVIRONMENTS", str(tmp_path))
    path = tmp_path / "adopted.onnx"
    path.write_bytes(from_onnx.adopt(make_onnx(), images, 1e-5).content)
    described = Manifest(model="m", stage="adopt", params={"export": {"max_abs_error": 1e-5}})
    expected = r"convert-tensorflow has no interpreter .*; run make setup"
    with pytest.raises(TargetError, match=expected):
        to_litert.lower(Variant("plain", path, None, described), images)
