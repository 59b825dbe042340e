"""How far an artifact's outputs are from the reference's, on identical inputs.

Outputs are float arrays [N samples, ...], or a structured array [N] with a field for each output of
a net that has several. A prediction is the class of the largest value of the first output, the
first of equals.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ParityError
from pipeline.measurement import Agreement
from pipeline.runtimes import structured

Outputs = NDArray[Any]


def agreement(outputs: Outputs, reference_outputs: Outputs) -> Agreement:
    """Compare outputs: largest absolute difference, signal to error in dB, share of equal classes.

    The first two are over all outputs. ``sqnr_db`` = 10 log10(sum r^2 / sum (r - o)^2), None where
    no difference is or no signal. ``top1_agreement`` is 0..1, None where there is but one value.

    Raises:
        ParityError: the outputs have other names or shapes than the reference's.
    """
    outputs = aligned(outputs, reference_outputs)
    max_abs_error = signal = noise = 0.0
    pairs = zip(structured.parts(reference_outputs), structured.parts(outputs), strict=True)
    for expected, found in pairs:
        reference = np.asarray(expected, np.float64)
        error = reference - np.asarray(found, np.float64)
        max_abs_error = max(max_abs_error, float(np.max(np.abs(error))))
        signal += float(np.sum(reference**2))
        noise += float(np.sum(error**2))
    same = predictions(outputs) == predictions(reference_outputs)
    return Agreement(
        max_abs_error=max_abs_error,
        sqnr_db=10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None,
        top1_agreement=float(np.mean(same)) if num_values(outputs) > 1 else None,
    )


class Across(msgspec.Struct, frozen=True, kw_only=True):
    """How two places agree on the same model, sample by sample; there is no time in it.

    Over ``n`` samples: ``bit_exact_ratio`` of them have equal values throughout, in ``num_changed``
    the class differs (None where there are no classes), and values differ by ``max_abs_error`` at
    most; ``max_step`` is that in steps of quantized outputs, None where these are not of one scale.
    """

    n: int
    bit_exact_ratio: float
    max_abs_error: float
    max_step: int | None
    num_changed: int | None

    @property
    def changed_ratio(self) -> float | None:
        """The share of samples whose class differs, 0..1."""
        return None if self.num_changed is None else self.num_changed / self.n


def across(
    outputs: Outputs,
    reference_outputs: Outputs,
    scales: Sequence[float | None] = (None,),
    *,
    has_classes: bool = True,
) -> Across:
    """Compare outputs of one model from two places on identical inputs.

    Args:
        outputs: decoded to floats, [N, ...] or structured [N].
        reference_outputs: of as many samples.
        scales: of each of the reference's outputs the scale in which both places quantize it.
        has_classes: the largest value of the first output means something.

    Raises:
        ParityError: the outputs have other names or shapes than the reference's.
    """
    outputs = aligned(outputs, reference_outputs)
    same = np.ones(len(outputs), np.bool_)
    errors = []
    for one, other in zip(
        structured.parts(outputs), structured.parts(reference_outputs), strict=True
    ):
        same &= (one == other).all(axis=tuple(range(1, one.ndim)))
        errors.append(float(np.max(np.abs(one.astype(np.float64) - other))))
    steps = [round(e / s) for e, s in zip(errors, scales, strict=False) if s is not None]
    changed = predictions(outputs) != predictions(reference_outputs)
    return Across(
        n=len(outputs),
        bit_exact_ratio=float(np.mean(same)),
        max_abs_error=max(errors),
        max_step=max(steps) if len(steps) == len(errors) else None,
        num_changed=int(changed.sum()) if has_classes and num_values(outputs) > 1 else None,
    )


def aligned(outputs: Outputs, reference_outputs: Outputs) -> Outputs:
    """Return the outputs in the order of the reference's: formats list several in their own.

    Raises:
        ParityError: they have other names or shapes than the reference's.
    """
    names = reference_outputs.dtype.names
    if names is not None and set(names) == set(outputs.dtype.names or ()):
        outputs = outputs[list(names)]
    found, expected = layout(outputs), layout(reference_outputs)
    if found != expected:
        raise ParityError(
            f"outputs have shape {found}, the reference's {expected}; mend the converter, which "
            "must keep names and shapes"
        )
    return outputs


def predictions(outputs: Outputs) -> NDArray[np.int64]:
    """Return each sample's class [N]."""
    first = structured.parts(outputs)[0]
    classes: NDArray[np.int64] = np.argmax(first.reshape(len(first), -1), axis=1)
    return classes


def num_values(outputs: Outputs) -> int:
    """Return how many values a sample has in the first output."""
    return math.prod(structured.parts(outputs)[0].shape[1:])


def layout(outputs: Outputs) -> str:
    """Say the shape, or names and shapes: ``[8, 10]``, or ``boxes [8, 4], scores [8, 10]``."""
    names = outputs.dtype.names
    shapes = [list(part.shape) for part in structured.parts(outputs)]
    if names is None:
        return str(shapes[0])
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
