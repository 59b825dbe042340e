import io
import wave

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from pipeline import manifest, measurement
from pipeline.measurement import Measurement


@pytest.fixture
def make_artifact(tmp_path):
    """Make a pulled artifact whose scores are the sums of each input over all axes but one.

    ``axis`` of the input [batch, ...] is the one that is kept; ``raw`` is one golden raw sample.
    """

    def make(inputs, raw, steps, labels=(), axis=1):
        directory = tmp_path / "model"
        directory.mkdir()
        nodes, axes = [], []
        for name, shape in inputs.items():
            others = [number for number in range(1, len(shape) + 1) if number != axis]
            tensor = helper.make_tensor(f"{name}_axes", TensorProto.INT64, [len(others)], others)
            axes.append(tensor)
            reads, options = [name, tensor.name], {"keepdims": 0, "noop_with_empty_axes": 1}
            nodes.append(helper.make_node("ReduceSum", reads, [f"{name}_sum"], **options))
        sums = [node.output[0] for node in nodes]
        floats = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
            for name, shape in inputs.items()
        ]
        scores = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", None])
        graph = helper.make_graph(
            [*nodes, helper.make_node("Sum", sums, ["output"])], "g", floats, [scores], axes
        )
        opset = helper.make_opsetid("", 20)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.save(model, directory / "model.onnx")
        manifest.write(
            directory, model="m", stage="convert", format="onnx", precision="fp32",
            labels=labels, preprocessing=steps,
        )  # fmt: skip
        np.savez(directory / "golden.npz", inputs=raw[np.newaxis])
        measured = Measurement(
            artifact="sha256:0", candidate="dense-fp32", target="t", kind="measured", time="",
            runtime="onnxruntime", size_bytes=1,
        )  # fmt: skip
        measurement.write(directory / measurement.FILE_NAME, measured)
        return directory

    return make


@pytest.fixture
def wav(tmp_path):
    def write(samples, rate=8000):
        path = tmp_path / "said.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(np.asarray(samples, np.int16).tobytes())
        return path

    return write


@pytest.fixture
def image(tmp_path):
    def write(pixels, name="seen.png"):
        content = io.BytesIO()
        kind = {"jpg": "JPEG"}.get(name.rpartition(".")[2], "PNG")
        Image.fromarray(np.asarray(pixels, np.uint8)).save(content, kind)
        (tmp_path / name).write_bytes(content.getvalue())
        return tmp_path / name

    return write
