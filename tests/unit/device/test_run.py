import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline import manifest, measurement
from pipeline.device import run
from pipeline.errors import DeviceError
from pipeline.measurement import Measurement


@pytest.fixture
def artifact(tmp_path):
    """A pulled artifact: scores = 2 x the scaled input, labels a, b, c."""
    directory = tmp_path / "model"
    directory.mkdir()
    twice = helper.make_node("Mul", ["input", "two"], ["output"])
    graph = helper.make_graph(
        [twice], "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])],
    )  # fmt: skip
    opset = helper.make_opsetid("", 20)
    onnx.save(
        helper.make_model(graph, opset_imports=[opset], ir_version=10), directory / "model.onnx"
    )
    manifest.write(
        directory, model="m", stage="convert", format="onnx", precision="fp32",
        labels=("a", "b", "c"), preprocessing=({"step": "scale", "factor": 0.5},),
    )  # fmt: skip
    measured = Measurement(
        artifact="sha256:0", candidate="dense-fp32", target="t", kind="measured", time="",
        runtime="onnxruntime", size_bytes=1,
    )  # fmt: skip
    measurement.write(directory / measurement.FILE_NAME, measured)
    return directory


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "samples.npz", **arrays)
    return tmp_path / "samples.npz"


def test_it_preprocesses_runs_and_names_the_classes(artifact, tmp_path):
    samples = saved(tmp_path, inputs=np.array([[0, 8, 0], [4, 0, 2]], np.float32))
    first, second = run.classify(artifact, samples)
    assert [label for label, _ in first] == ["b", "a", "c"]
    assert [label for label, _ in second] == ["a", "c", "b"]
    expected = np.exp([4, 0, 2]) / np.exp([4, 0, 2]).sum()
    assert second[0][1] == pytest.approx(expected[0], abs=1e-6)


def test_one_flipped_byte_is_not_run(artifact, tmp_path):
    path = artifact / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DeviceError, match=r"model\.onnx is not what its manifest says; pull"):
        list(run.classify(artifact, saved(tmp_path, inputs=np.zeros((1, 3), np.float32))))


REFUSED = {
    "another array": ({"x": np.zeros(3)}, r"samples\.npz is not an npz file with `inputs`"),
    "text": ({"inputs": np.array([["a"]])}, r"inputs have dtype <U1"),
    "no sample": ({"inputs": np.zeros((0, 3))}, r"shape \[0, 3\]; give real numbers"),
    "NaN": ({"inputs": np.full((1, 3), np.nan)}, r"inputs hold NaN or inf"),
    "another shape": (
        {"inputs": np.zeros((1, 4), np.float32)},
        r"takes shape .*3.*the preprocessed",
    ),
}


@pytest.mark.parametrize(("arrays", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_input_is_one_line(artifact, tmp_path, arrays, words):
    with pytest.raises(DeviceError, match=words):
        list(run.classify(artifact, saved(tmp_path, **arrays)))


def test_a_truncated_npz_is_one_line(artifact, tmp_path):
    samples = saved(tmp_path, inputs=np.zeros((9, 3)))
    samples.write_bytes(samples.read_bytes()[:-40])
    with pytest.raises(DeviceError, match="is not an npz file with `inputs`"):
        list(run.classify(artifact, samples))


def test_an_artifact_without_its_manifest_is_to_be_pulled_again(artifact, tmp_path):
    (artifact / "manifest.json").unlink()
    with pytest.raises(DeviceError, match=r"has no manifest\.json; pull the artifact again"):
        list(run.classify(artifact, saved(tmp_path, inputs=np.zeros((1, 3)))))


def test_an_unknown_runtime_lists_the_known(artifact, tmp_path):
    with pytest.raises(DeviceError, match="'tvm' is not known; known: onnxruntime, litert"):
        list(run.classify(artifact, saved(tmp_path, inputs=np.zeros((1, 3))), "tvm"))


def test_an_absent_runtime_names_its_extra(artifact, tmp_path):
    """tflite-runtime is never in this environment: it needs numpy below 2."""
    (artifact / "model.onnx").rename(artifact / "model.tflite")
    labels = manifest.read(artifact).labels
    manifest.write(artifact, model="m", stage="convert", labels=labels)
    with pytest.raises(DeviceError, match=r"pip install 'slipway\[device-tflite\]'"):
        list(run.classify(artifact, saved(tmp_path, inputs=np.zeros((1, 3))), "tflite_runtime"))


def test_a_runtime_that_does_not_read_the_format_is_refused(artifact, tmp_path):
    with pytest.raises(DeviceError, match=r"litert does not read model\.onnx; use --runtime onnx"):
        list(run.classify(artifact, saved(tmp_path, inputs=np.zeros((1, 3))), "litert"))
