"""Agreement of an exported file with the net it came from. Shapes: N samples, C outputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ParityError

CHUNK = 128  # samples at once: bounds memory
# Two programs that round differ where a value lies between two steps; a wrong grid costs more.
MIN_ROUNDED_SQNR_DB = 30.0


@dataclass(frozen=True)
class Parity:
    """The largest absolute difference, and the ratio of samples with the same best output."""

    max_abs_error: float
    top1_agreement_ratio: float


def check(
    path: Path, net: nn.Module, inputs: NDArray[np.float32], max_abs_error: float, what: str
) -> Parity:
    """Compare an ONNX file, run by ONNX Runtime on the CPU, with its net in PyTorch.

    Args:
        path: the file; its first sample also runs alone, since targets run batch 1.
        net: in eval mode.
        inputs: [N, ...].
        max_abs_error: the largest difference allowed of any output.
        what: begins the error's line.

    Raises:
        ParityError: with both numbers; also for outputs that are not finite.
    """
    expected, found = _run_torch(net, inputs), _run_onnx(path, inputs)
    alone = _run_onnx(path, inputs[:1])
    error = max(_distance(expected, found), _distance(expected[:1], alone))
    if not error <= max_abs_error:  # NaN too
        raise ParityError(
            f"{what}: ONNX outputs differ from PyTorch's by {error:.3g}, allowed {max_abs_error:g} "
            "(export.max_abs_error); raise it, or find the operator that differs"
        )
    return Parity(error, float((expected.argmax(1) == found.argmax(1)).mean()))


def check_rounded(path: Path, net: nn.Module, inputs: NDArray[np.float32], what: str) -> float:
    """Compare an ONNX file with a net that both round to grids; return signal to error in dB.

    Raises:
        ParityError: it is below `MIN_ROUNDED_SQNR_DB`; also for outputs that are not finite.
    """
    expected = _run_torch(net, inputs).astype(np.float64)
    noise = float(np.square(expected - _run_onnx(path, inputs)).sum())
    signal = max(float(np.square(expected).sum()), np.finfo(np.float64).tiny)
    sqnr_db = float(10 * np.log10(signal / max(noise, np.finfo(np.float64).tiny)))
    if not sqnr_db >= MIN_ROUNDED_SQNR_DB:  # NaN too
        raise ParityError(
            f"{what}: the ONNX file with learned ranges gives outputs {sqnr_db:.1f} dB from the "
            f"net's on its grids, {MIN_ROUNDED_SQNR_DB:g} are needed; run quantize again, or let "
            "the recipe skip qat"
        )
    return sqnr_db


def _distance(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    assert expected.shape == found.shape, (expected.shape, found.shape)
    return float(np.abs(expected.astype(np.float64) - found).max())


def _run_torch(net: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        pieces = [net(torch.from_numpy(piece)).numpy() for piece in _chunks(inputs)]
    return np.concatenate(pieces)


def _run_onnx(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: piece})[0] for piece in _chunks(inputs)])


def _chunks(inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
