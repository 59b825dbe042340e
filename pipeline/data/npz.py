"""The user's own samples: a .npz of ``inputs`` [N, ...], ``labels``, maybe ``label_names``."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.runtimes import structured

Kind = Literal["classification", "regression", "anomaly", "agreement"]

PREFIX = "inputs."  # of the arrays of a net with several
MIN_SAMPLES_PER_CLASS = 8  # fewer cannot stand in three splits and decide anything
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,  # an encrypted or unknown compression
    zipfile.BadZipFile,
    zlib.error,
)


def read(path: Path, label_names: tuple[str, ...] = (), kind: Kind = "classification") -> Samples:
    """Read and check the samples; nothing is unpickled.

    Args:
        path: the .npz file. A net with several inputs has an array ``inputs.NAME`` for each, all
            with as many samples, in place of ``inputs``.
        label_names: data.labels of params.yaml, which goes before the file's own; with neither, the
            labels' numbers are their names.
        kind: of task. ``regression`` takes labels [N] or [N, K] of numbers; ``agreement`` needs
            none, and leaves any in the file alone.

    Raises:
        DataError: one line naming the first thing that is wrong, and its row.
    """
    arrays = read_arrays(path)
    inputs = _inputs(path, arrays)
    names = arrays.get("label_names", np.array([], np.str_))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: label_names have dtype {names.dtype} and shape {names.shape}; "
            "give one list of strings"
        )
    if label_names and kind in ("regression", "agreement"):
        raise DataError(
            f"data.labels name classes {list(label_names)}, task.kind {kind} has none; "
            "leave them out"
        )
    if kind == "agreement":
        return Samples(inputs, np.zeros(len(inputs), np.int64), ())
    if "labels" not in arrays:
        raise _lacks(path, "labels", arrays)
    if kind == "regression":
        return Samples(inputs, _checked_values(path, arrays["labels"], len(inputs)), ())
    defaults = ("normal", "anomaly") if kind == "anomaly" else ()
    chosen_names = label_names or tuple(str(name) for name in names) or defaults
    labels = _checked_labels(path, arrays["labels"], len(inputs))
    return Samples(inputs, labels, _checked_names(path, labels, chosen_names))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of a .npz into memory."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} is one array (.npy); write a .npz with numpy.savez")
            found = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} holds an array of Python objects (ragged shapes?); "
                "give all inputs one shape and a numeric dtype"
            ) from error
        # numpy's own words for a foreign file advise unpickling it
        said = "it has another format" if "pickle" in str(error) else str(error)
        raise DataError(f"{path} is not a readable .npz: {said}; write it again") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # numpy hands out foreign members as bytes
            raise DataError(f"{path}: {name} is no numpy array; write the file with numpy.savez")
    return found


def _lacks(path: Path, name: str, arrays: Mapping[str, Any]) -> DataError:
    return DataError(
        f"{path} has no array {name!r}, only {sorted(arrays)}; write it by "
        "numpy.savez(path, inputs=inputs, labels=labels)"
    )


def _inputs(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return ``inputs``, or every ``inputs.NAME`` as a field of one structured array."""
    named = {
        name.removeprefix(PREFIX): array
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    if not named:
        if "inputs" not in arrays:
            raise _lacks(path, "inputs", arrays)
        return _checked_inputs(path, "inputs", arrays["inputs"])
    if "inputs" in arrays:
        raise DataError(
            f"{path} has both inputs and {PREFIX}{next(iter(named))}; give one input as inputs, "
            "several as inputs.NAME each"
        )
    for name in named:
        if not name or not name.isascii() or not name.isprintable():
            raise DataError(f"{path}: {PREFIX + name!r} names no input; use printable ASCII")
    checked = {
        name: _checked_inputs(path, f"{PREFIX}{name}", array) for name, array in named.items()
    }
    sizes = {name: len(array) for name, array in checked.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{path}: inputs have {sizes} samples; give each input as many")
    return structured.join(checked)


def _checked_inputs(path: Path, name: str, inputs: NDArray[Any]) -> NDArray[Any]:
    if inputs.dtype.kind not in "biuf":
        raise DataError(f"{path}: {name} have dtype {inputs.dtype}; give integers or floats")
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise DataError(
            f"{path}: {name} have shape {inputs.shape}; give at least one sample on the first axis "
            "and its values behind it"
        )
    return _finite(path, name, inputs)


def _finite(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Refuse values [N, ...] that are not finite, once those of 8 bytes and more are float32."""
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # what overflows is inf, refused below
            values = values.astype(np.float32)
    broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if broken.any():
        raise DataError(
            f"{path}: {name} have NaN or inf (as float32) in {broken.sum()} samples, first in row "
            f"{broken.argmax()}; mend or leave out these samples"
        )
    return values


def _checked_values(path: Path, labels: NDArray[Any], num_inputs: int) -> NDArray[np.float32]:
    if labels.dtype.kind not in "iuf":
        raise DataError(f"{path}: labels have dtype {labels.dtype}; give numbers for a regression")
    if labels.ndim not in (1, 2) or len(labels) != num_inputs or 0 in labels.shape:
        raise DataError(
            f"{path}: labels have shape {labels.shape} beside {num_inputs} inputs; "
            "give one label a sample, [N], or K of them, [N, K]"
        )
    return _finite(path, "labels", labels).astype(np.float32)


def _checked_labels(path: Path, labels: NDArray[Any], num_inputs: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels have dtype {labels.dtype}; give integers from 0")
    if labels.shape != (num_inputs,):
        raise DataError(
            f"{path}: labels have shape {labels.shape} beside {num_inputs} inputs; "
            "give one label a sample"
        )
    return labels.astype(np.int64)


def _checked_names(
    path: Path, labels: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[str, ...]:
    """Hold the labels against the classes and return the classes' names."""
    if len(set(names)) != len(names):
        raise DataError(f"{path}: label names {list(names)} are not distinct; rename one")
    # each class needs some samples, so more classes than samples can only be a wrong label
    num_classes = len(names) or min(int(labels.max()) + 1, len(labels))
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"{path}: label {labels[row]} in row {row} is outside 0..{num_classes - 1}; "
            "mend the labels, or data.labels in params.yaml"
        )
    names = names or tuple(str(label) for label in range(num_classes))
    counts = np.bincount(labels, minlength=num_classes)
    if num_classes < 2:
        raise DataError(f"{path}: there is one class only, {names[0]!r}; give two at least")
    fewest = int(counts.argmin())
    if counts[fewest] < MIN_SAMPLES_PER_CLASS:
        raise DataError(
            f"{path}: class {names[fewest]!r} has {counts[fewest]} samples; "
            f"give at least {MIN_SAMPLES_PER_CLASS}, or leave the class out"
        )
    return names
