"""Fixed splits: train, validation, test, and a calibration set drawn from train.

Each sample has a key, the SHA-256 of the seed and its raw bytes. In each class the samples stand in
the order of their keys and are cut by the ratios. So a split depends on the samples and the seed
alone, neither on the rows' order nor on a random generator's version, and equal samples, having
equal keys, stay together.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import files, params, preprocessing
from pipeline.data import npz
from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.runtimes.errors import RunnerError

NAMES = ("train", "validation", "test", "calibration")
ARRAYS = ("inputs", "labels", "label_names", "preprocessing")


@dataclass(frozen=True, eq=False)
class Split:
    """Raw ``inputs`` [N, ...], ``labels`` [N], and how raw inputs become tensors."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    preprocessing: tuple[dict[str, Any], ...]

    def tensors(self) -> NDArray[np.float32]:
        """Return the preprocessed inputs [N, ...] as the net sees them.

        Raises:
            DataError: the steps do not fit the raw inputs, or give NaN or inf.
        """
        try:
            # what overflows is inf, refused below
            with np.errstate(over="ignore", invalid="ignore"):
                tensors: NDArray[np.float32] = preprocessing.apply(self.preprocessing, self.inputs)
        except RunnerError as error:
            raise DataError(str(error)) from error
        if not np.isfinite(tensors).all():
            raise DataError("data.preprocessing gives NaN or inf; mend its factors")
        return tensors


def make(samples: Samples, cfg: params.Data) -> dict[str, Split]:
    """Split the samples, stratified by class, into NAMES; equal samples never straddle two.

    Without equal samples each class has its ratio of a split to within 2 samples, and the totals
    are exact to rounding. Samples stand in the order of their keys, so any prefix of a split is a
    random sample of it; calibration is such a prefix of train.

    Raises:
        DataError: a split would lack a class, or train is smaller than the calibration set.
    """
    assert cfg.train_ratio is not None  # rules ask for the ratios
    assert cfg.validation_ratio is not None
    keys = _keys(samples.inputs, cfg.seed)
    rows: dict[str, list[int]] = {name: [] for name in NAMES[:3]}
    num_before = 0
    for members in _by_class(samples.labels, keys):
        num_after = num_before + len(members)
        cuts = [
            round(ratio * num_after) - round(ratio * num_before)
            for ratio in (cfg.train_ratio, cfg.train_ratio + cfg.validation_ratio)
        ]
        start = 0
        for _, group in groupby(members, key=lambda row: keys[row]):
            equal = list(group)
            middle = start + len(equal) / 2
            rows[NAMES[sum(middle >= cut for cut in cuts)]] += equal
            start += len(equal)
        num_before = num_after
    _check_classes(rows, samples)
    if cfg.num_calibration > len(rows["train"]):
        raise DataError(
            f"data.num_calibration is {cfg.num_calibration}, but train has {len(rows['train'])} "
            "samples; lower it, or raise data.train_ratio"
        )
    ordered = {
        name: sorted(found, key=lambda row: (keys[row], samples.labels[row]))
        for name, found in rows.items()
    }
    ordered["calibration"] = ordered["train"][: cfg.num_calibration]
    steps = tuple(msgspec.to_builtins(cfg.preprocessing))
    return {
        name: Split(samples.inputs[chosen], samples.labels[chosen], samples.label_names, steps)
        for name, chosen in ordered.items()
    }


def write(path: Path, split: Split) -> None:
    """Write one split as .npz, atomically: the same split gives the same bytes, no pickle."""
    arrays = {
        "inputs": split.inputs,
        "labels": split.labels,
        "label_names": np.array(split.label_names, dtype=np.str_),
        "preprocessing": np.array(json.dumps(split.preprocessing, sort_keys=True)),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ARRAYS:
            array = io.BytesIO()
            np.lib.format.write_array(array, arrays[name], version=(1, 0), allow_pickle=False)
            # a ZipInfo of our own has the date 1980-01-01, and not now
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    files.write_atomic(path, content.getvalue())


def read(path: Path) -> Split:
    """Read one split.

    Raises:
        DataError: the file is missing, unreadable, or no split.
    """
    arrays = npz.read_arrays(path)
    if set(arrays) != set(ARRAYS):
        raise DataError(
            f"{path} holds {sorted(arrays)}, a split holds {sorted(ARRAYS)}; run dvc repro prepare"
        )
    return Split(
        inputs=arrays["inputs"],
        labels=arrays["labels"],
        label_names=tuple(str(name) for name in arrays["label_names"]),
        preprocessing=tuple(json.loads(str(arrays["preprocessing"]))),
    )


def _keys(inputs: NDArray[Any], seed: int) -> list[bytes]:
    if inputs.dtype.kind == "f":
        inputs = inputs + 0  # -0.0 equals 0.0 and must have its bytes
    prefix = f"{seed}:".encode()
    return [hashlib.sha256(prefix + row.tobytes()).digest() for row in inputs]


def _by_class(labels: NDArray[np.int64], keys: list[bytes]) -> list[list[int]]:
    """Return each class's rows ordered by key; equal samples go by the lowest of their labels."""
    rows = sorted(range(len(keys)), key=lambda row: (keys[row], labels[row]))
    members: dict[int, list[int]] = {}
    for _, group in groupby(rows, key=lambda row: keys[row]):
        equal = list(group)
        members.setdefault(int(labels[equal[0]]), []).extend(equal)
    return [members[label] for label in sorted(members)]


def _check_classes(rows: dict[str, list[int]], samples: Samples) -> None:
    for name, found in rows.items():
        present = set(samples.labels[found].tolist())
        for label, label_name in enumerate(samples.label_names):
            if label not in present:
                raise DataError(
                    f"split {name} has no sample of class {label_name!r}: the ratio is too small, "
                    "or too many of its samples are equal; change the data ratios, or add samples"
                )
