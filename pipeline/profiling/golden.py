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
from pipeline.profiling import measure

NUM_GOLDEN = 8
KEYS = {"inputs", "outputs", "tolerance", "reason"}

# By precision: the part of the largest golden output by which an output may differ, and why so
# much.
TOLERANCES: dict[params.Precision, tuple[float, str]] = {
    "fp32": (1e-4, "another CPU of the target adds the same products in another order"),
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
    outputs: NDArray[np.float32],
    precision: params.Precision,
) -> None:
    """Write golden.npz: the first 8 inputs, raw, and what the artifact said to them on its target.

    Validation samples stand in the order of a seeded hash, so the first 8 are a random draw by that
    seed (`pipeline.data.splits`).

    Args:
        path: the file to write; equal arguments give equal bytes.
        inputs: raw samples [N, ...].
        outputs: the artifact's own outputs [N, ...] to them, from a worker on the target.
        precision: of the artifact; sets the absolute tolerance.
    """
    ratio, reason = TOLERANCES[precision]
    kept = outputs[:NUM_GOLDEN]
    tolerance = ratio * max(1.0, float(np.max(np.abs(kept))))
    np.savez(
        path,
        inputs=inputs[:NUM_GOLDEN],
        outputs=kept,
        tolerance=np.float64(tolerance),
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
    expected, tolerance = _read(golden)
    found = measure.outputs(artifact, golden, target, environments)
    if found.shape != expected.shape:
        raise ParityError(
            f"golden outputs of {artifact} have shape {list(found.shape)}, "
            f"{list(expected.shape)} is recorded; this is another model: profile it again"
        )
    error = float(np.max(np.abs(found.astype(np.float64) - expected)))
    if not error <= tolerance:  # NaN is not within it
        raise ParityError(
            f"golden outputs of {artifact} differ by {error:.3g} on {target.runtime}, allowed "
            f"{tolerance:.3g}; do not ship it: the target or the bytes are not those profiled"
        )
    return error


def _read(path: Path) -> tuple[NDArray[np.float32], float]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) == KEYS:
                return arrays["outputs"], float(arrays["tolerance"])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ManifestError(f"{path} cannot be read: {error}; profile it again") from error
    raise ManifestError(f"{path} does not hold {sorted(KEYS)}; profile it again")
