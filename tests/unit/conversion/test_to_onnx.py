from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.conversion.to_onnx import to_onnx
from pipeline.errors import ConversionError
from pipeline.manifest import Signature, Tensor


@pytest.fixture
def exported(make_net, samples, tmp_path):
    net, _ = make_net("plain")
    path = tmp_path / "model.onnx"
    return net, path, to_onnx(net, torch.from_numpy(samples[:1]), path, 20)


def test_signature_is_fixed(exported):
    assert exported[2] == Signature(
        inputs=(Tensor("input", "float32", ("batch", 1, 8, 8), layout="NCHW"),),
        outputs=(Tensor("output", "float32", ("batch", 3)),),
    )


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_outputs_are_the_nets_at_any_batch_size(exported, samples, num_samples):
    net, path, _ = exported
    session = onnxruntime.InferenceSession(path)
    (outputs,) = session.run(["output"], {"input": samples[:num_samples]})
    expected = net(torch.from_numpy(samples[:num_samples])).detach().numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-6)  # some float32 steps at size 1


def test_file_is_alone_and_names_no_source(exported):
    _, path, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "metadata_props" not in str(model)
    for trace in ("conversion_nets", str(path.parent), str(Path(__file__).parent), "torch"):
        assert trace.encode() not in path.read_bytes()
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_again_elsewhere_gives_the_same_bytes(exported, make_net, tmp_path):
    net, _ = make_net("plain")
    other = tmp_path / "elsewhere" / "model.onnx"
    other.parent.mkdir()
    to_onnx(net, torch.zeros(7, 1, 8, 8), other, 20)
    assert other.read_bytes() == exported[1].read_bytes()


def test_operator_without_onnx_form_is_named(make_net, tmp_path):
    net, _ = make_net("inverse error")
    with pytest.raises(ConversionError, match=r"onnx does not support operator prims.erf_inv"):
        to_onnx(net, torch.zeros(1, 1, 8, 8), tmp_path / "model.onnx", 20)
    assert not (tmp_path / "model.onnx").exists()


def test_fixed_batch_is_refused(make_net, tmp_path):
    net, _ = make_net("fixed batch")
    with pytest.raises(ConversionError, match=r"onnx.*batch"):
        to_onnx(net, torch.zeros(1, 1, 8, 8), tmp_path / "model.onnx", 20)
    assert not (tmp_path / "model.onnx").exists()
