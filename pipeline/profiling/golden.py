"""Golden inputs: 8 raw samples, the artifact's own outputs to them, and how far those may move.

A device runs them before it activates an artifact, CI before it publishes one.
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline import params
from pipeline.errors import ManifestError, ParityError
from pipeline.profiling import agreement, measure
from pipeline.profiling.agreement import Outputs
from pipeline.runtimes import mapped, structured

NUM_GOLDEN = 8
KEYS = {"inputs", "outputs", "tolerance", "reason"}

# By precision: the part of the largest golden output by which an output may differ, and why so
# much.
TOLERANCES: dict[params.Precision, tuple[float, str]] = {
    "fp32": (1e-4, "another CPU of the target adds the same products in another order"),
    "bf16": (
        0.03,
        "a product keeps 8 bits, so 2^-8 of it is lost; layers differ in which sums they widen",
    ),
    "fp16": (
        0.005,
        "a product keeps 11 bits, so 2^-11 of it is lost; kernels add in another order at 11 bits",
    ),
    "fp16-weights": (1e-4, "weights are widened before use; the sums are those of fp32"),
    "int8-dynamic": (
        0.03,
        "a sum's last digits can move an activation by one step of 1/127; a few add up",
    ),
    "int8-static": (
        0.03,
        "kernels round halves differently; one step is 1/127 of the range and a few add up",
    ),
}


def make_golden(
    path: Path,
    inputs: NDArray[Any],
    outputs: Outputs,
    precision: params.Precision,
) -> None:
    """Write golden.npz: the first 8 inputs, raw, and what the artifact said to them on its target.

    Validation samples stand in the order of a seeded hash, so the first 8 are a random draw by that
    seed (`pipeline.data.splits`).

    Args:
        path: the file to write; equal arguments give equal bytes.
        inputs: raw samples [N, ...].
        outputs: the artifact's own outputs [N, ...] to them, from a worker on the target.
        precision: of the artifact; sets the absolute tolerance, that of each output if several.
    """
    ratio, reason = TOLERANCES[precision]
    kept = outputs[:NUM_GOLDEN]
    tolerances = [ratio * max(1.0, float(np.max(np.abs(p)))) for p in structured.parts(kept)]
    np.savez(
        path,
        inputs=inputs[:NUM_GOLDEN],
        outputs=kept,
        tolerance=np.array(tolerances if kept.dtype.names else tolerances[0], np.float64),
        reason=np.array(reason),
    )


def check_golden(
    artifact: Path, golden: Path, target: params.Target, environments: Path | None = None
) -> float:
    """Run the golden inputs on the target and return the largest absolute difference.

    Raises:
        ParityError: an output moved further than the tolerance; names both numbers.
        TargetError: the target cannot run the artifact.
        ManifestError: the file is not what `make_golden` writes.
    """
    expected, tolerances = _read(golden)
    found = measure.outputs(artifact, golden, target, environments)
    try:
        found = agreement.aligned(found, expected)
    except ParityError as error:
        raise ParityError(
            f"golden outputs of {artifact} have shape {agreement.layout(found)}, "
            f"{agreement.layout(expected)} is recorded; this is another model: profile it again"
        ) from error
    largest = 0.0
    pairs = zip(structured.parts(found), structured.parts(expected), tolerances, strict=True)
    for one, other, tolerance in pairs:
        difference = float(np.max(np.abs(one.astype(np.float64) - other)))
        if not difference <= tolerance:  # NaN is not within it
            raise ParityError(
                f"golden outputs of {artifact} differ by {difference:.3g} on {target.runtime}, "
                f"allowed {tolerance:.3g}; do not ship it: the target or the bytes are not those "
                "profiled"
            )
        largest = max(largest, difference)
    return largest


def _read(path: Path) -> tuple[Outputs, list[float]]:
    try:
        with mapped.loaded(path) as arrays:
            if set(arrays.files) == KEYS:
                return arrays["outputs"], np.atleast_1d(arrays["tolerance"]).tolist()
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ManifestError(f"{path} cannot be read: {error}; profile it again") from error
    raise ManifestError(f"{path} does not hold {sorted(KEYS)}; profile it again")
