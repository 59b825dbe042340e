"""PyTorch to ONNX by torch's dynamo exporter: one input, one output, the batch left symbolic."""

from pathlib import Path

import onnx
import torch
from torch import nn

from pipeline.conversion import candidates, onnx_file
from pipeline.errors import ConversionError
from pipeline.manifest import Signature

FILE_NAME = "model.onnx"
INPUT, OUTPUT, BATCH = "input", "output", "batch"
TOOLS = ("onnx", "onnx-ir", "onnxscript", "torch")


def to_onnx(net: nn.Module, example: torch.Tensor, path: Path, opset: int) -> Signature:
    """Write the net as one self-contained ONNX file that names neither sources nor machine.

    Args:
        net: in eval mode; the exporter folds batch norm into the convolution before it.
        example: [N, ...] float32, of which only shape and dtype matter.
        path: the file to write. Same net, same tools: same bytes.
        opset: version of the standard operator set.

    Returns:
        Input ``input`` and output ``output``, first axis ``batch``.

    Raises:
        ConversionError: an operator has no ONNX form, or the net fixes its batch size.
    """
    assert not net.training
    model = _export(net, example, opset)
    signature = onnx_file.signature(model)
    shapes = [tensor.shape for tensor in (*signature.inputs, *signature.outputs)]
    if len(shapes) != 2 or any(shape[0] != BATCH for shape in shapes):
        raise ConversionError(
            "onnx: the net must map one input [batch, ...] to one output [batch, ...], "
            f"got {shapes}; do not write the batch size into a reshape"
        )
    path.write_bytes(onnx_file.canonical_bytes(model))
    return signature


def _export(net: nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto:
    # two samples: torch.export takes an axis of length one for a constant
    pair = torch.zeros((2, *example.shape[1:]), dtype=example.dtype)
    with candidates.refusals("onnx", torch.onnx.errors.OnnxExporterError):
        program = torch.onnx.export(
            net,
            (pair,),
            None,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto
