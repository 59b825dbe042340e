"""PyTorch to LiteRT (.tflite) in every precision that LiteRT runs.

Shapes: N samples. The net is rebuilt from its own directory, not from ONNX: litert-torch lowers
torch.export's graph. The batch is fixed at 1.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import params
from pipeline.conversion import candidates, litert_file
from pipeline.conversion.candidates import Outcome, Variant
from pipeline.errors import ConversionError, DependencyError
from pipeline.nets import store
from pipeline.targets.tools import CONVERTER_TOOLS

INPUT, OUTPUT = "input", "output"
FILE_NAME = "model.tflite"
TOOLS = CONVERTER_TOOLS["to_litert"]
FP32_TOOLS = tuple(name for name in TOOLS if not name.startswith("ai-edge"))  # lowering alone


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[np.float32],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.tflite`` for each precision; only int8-static has integer I/O.

    Args:
        variant: its net directory is lowered once for all precisions.
        precisions: of fp32, fp16-weights, int8-dynamic, int8-static.
        calibration: [N, ...] preprocessed; int8-static takes ranges (min-max) from the first
            ``cfg.num_calibration``.
        cfg: ``activation_dtype`` None is int8, the only one that LiteRT's kernels take.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
        DependencyError: litert-torch or ai-edge-quantizer is not installed.
        NetError: the net directory cannot be read.
    """
    candidates.check_precisions("to_litert", precisions)
    samples = calibration[:0]
    if "int8-static" in precisions:
        samples = candidates.choose_samples(calibration, cfg)
    try:
        lowered = _lower(store.load(variant.net))
    except ConversionError as error:
        return [candidates.not_built(variant.name, p, str(error)) for p in precisions]
    return [
        candidates.attempt(
            variant,
            precision,
            out / candidates.candidate_id(variant.name, precision) / FILE_NAME,
            partial(litert_file.make, lowered, precision, samples),
            litert_file.describe,
            tools=candidates.versions(FP32_TOOLS if precision == "fp32" else TOOLS),
            sources={
                "net": variant.net / store.DESCRIPTION_NAME,
                "weights": variant.net / store.WEIGHTS_NAME,
            },
        )
        for precision in precisions
    ]


class _Named(nn.Module):
    """Gives the signature's input and output the names that they have in every format."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002 - it is the name
        return {OUTPUT: self.net(input)}


def _lower(stored: store.StoredNet) -> bytes:
    """Lower the net at batch 1, float32."""
    try:
        import litert_torch
    except ImportError as error:
        raise DependencyError("litert-torch", "build") from error
    example = torch.zeros(1, *stored.input_shape)
    with candidates.refusals("litert-torch"):
        model = litert_torch.convert(_Named(stored.net).eval(), sample_kwargs={INPUT: example})
    return bytes(model.model_content())
