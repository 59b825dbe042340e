"""Fixed splits: train, validation, test, and a calibration set drawn from train.

Each sample has a key, the SHA-256 of the seed and its raw bytes. In each class the samples stand in
the order of their keys and are cut by the ratios; or they go where their speaker goes. So a split
depends on the samples and the seed alone, neither on the rows' order nor on a random generator's
version, and equal samples, having equal keys, stay together.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import files, params, preprocessing
from pipeline.data import rows
from pipeline.data.rows import Rows
from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.manifest import Preprocessing
from pipeline.runtimes import mapped, structured
from pipeline.runtimes.errors import RunnerError

NAMES = ("train", "validation", "test", "calibration")
ARRAYS = ("inputs", "labels", "label_names", "preprocessing")
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Split:
    """Raw ``inputs`` [N, ...], ``labels`` [N, ...], and how raw inputs become tensors.

    Of a net with several inputs ``inputs`` is structured, and ``preprocessing`` has steps for each.
    """

    inputs: NDArray[Any] | Rows
    labels: NDArray[Any]
    label_names: tuple[str, ...]
    preprocessing: Preprocessing

    def tensors(self, chosen: Any = None) -> NDArray[Any]:
        """Return the preprocessed inputs as the net sees them: all [N, ...], or some by number.

        Raises:
            DataError: the steps do not fit the raw inputs, or give NaN or inf.
        """
        raw = self.inputs
        if isinstance(raw, Rows):
            raw = (raw if chosen is None else raw.select(chosen)).load()
        elif chosen is not None:
            raw = raw[chosen]
        try:
            # what overflows is inf, refused below
            with np.errstate(over="ignore", invalid="ignore"):
                tensors: NDArray[Any] = preprocessing.apply_all(self.preprocessing, raw)
        except RunnerError as error:
            raise DataError(str(error)) from error
        if not structured.finite_rows(tensors).all():
            raise DataError("data.preprocessing gives NaN or inf; mend its factors")
        return tensors

    def check(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """Preprocess every sample, a few at once; return the shape of one, or of each input of one.

        Raises:
            DataError: as `tensors`.
        """
        shape: tuple[int, ...] | dict[str, tuple[int, ...]] = ()
        for chosen in rows.chunks(self.inputs):
            found = self.tensors(chosen)
            shape = found.shape[1:]
            if found.dtype.names is not None:
                shape = {name: found[name].shape[1:] for name in found.dtype.names}
        return shape


def make(samples: Samples, cfg: params.Data) -> dict[str, Split]:
    """Split the samples, by class and ratio or by speaker, into NAMES.

    Equal samples never straddle two. Without equal samples each class has its ratio of a split to
    within 2 samples, and the totals are exact to rounding. Samples stand in the order of their
    keys, so any prefix of a split is a random sample of it; calibration is such a prefix of train.

    Raises:
        DataError: a split would lack a class, train is smaller than the calibration set, or there
            is no such speaker.
    """
    keys = _keys(samples.inputs, cfg.seed)
    labels = samples.labels
    # of equal samples the order is that of their labels; numbers to regress have their bytes
    ties = labels.tolist() if labels.dtype.kind in "iu" else [row.tobytes() for row in labels]
    order = sorted(range(len(keys)), key=lambda row: (keys[row], ties[row]))
    groups = [list(group) for _, group in groupby(order, key=lambda row: keys[row])]
    if cfg.test_speakers:
        found = _by_speaker(groups, samples.groups, cfg)
    else:
        found = _by_ratio(groups, labels, cfg)
    _check_classes(found, samples)
    if cfg.num_calibration > len(found["train"]):
        raise DataError(
            f"data.num_calibration is {cfg.num_calibration}, but train has {len(found['train'])} "
            "samples; lower it, or give train more"
        )
    place = {row: position for position, row in enumerate(order)}
    ordered = {name: sorted(chosen, key=place.__getitem__) for name, chosen in found.items()}
    ordered["calibration"] = ordered["train"][: cfg.num_calibration]
    steps = _steps(msgspec.to_builtins(cfg.preprocessing))
    return {
        name: Split(_take(samples.inputs, chosen), labels[chosen], samples.label_names, steps)
        for name, chosen in ordered.items()
    }


def write(path: Path, split: Split) -> None:
    """Write one split as .npz, atomically: the same split gives the same bytes, no pickle.

    Samples that wait on disk go from there to here in pieces.
    """
    arrays = {
        "inputs": split.inputs,
        "labels": split.labels,
        "label_names": np.array(split.label_names, dtype=np.str_),
        "preprocessing": np.array(json.dumps(split.preprocessing, sort_keys=True)),
    }
    with files.writing_atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in ARRAYS:
            # a ZipInfo of our own has the date 1980-01-01, and not now
            info = zipfile.ZipInfo(f"{name}.npy")
            # it will be a little more: zipfile decides by it about a header for large files
            info.file_size = arrays[name].nbytes
            with archive.open(info, "w") as member:
                _write_array(member, arrays[name])


def read(path: Path) -> Split:
    """Map one split: inputs are read from the file as they are used, and cannot be changed.

    Raises:
        DataError: the file is missing, unreadable, or no split.
    """
    try:
        arrays = mapped.arrays(str(path))
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable .npz: {error}; run dvc repro prepare") from error
    if set(arrays) != set(ARRAYS):
        raise DataError(
            f"{path} holds {sorted(arrays)}, a split holds {sorted(ARRAYS)}; run dvc repro prepare"
        )
    return Split(
        inputs=arrays["inputs"],
        labels=np.array(arrays["labels"]),
        label_names=tuple(str(name) for name in arrays["label_names"]),
        preprocessing=_steps(json.loads(str(arrays["preprocessing"]))),
    )


def _steps(found: Any) -> Preprocessing:
    if isinstance(found, Mapping):
        return {name: tuple(steps) for name, steps in found.items()}
    return tuple(found)


def _take(inputs: NDArray[Any] | Rows, chosen: list[int]) -> NDArray[Any] | Rows:
    return inputs.select(chosen) if isinstance(inputs, Rows) else inputs[chosen]


def _write_array(member: IO[bytes], array: NDArray[Any] | Rows) -> None:
    if not isinstance(array, Rows):
        np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        return
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(member, header)
    for sample in array:
        member.write(sample.tobytes())


def _keys(inputs: NDArray[Any] | Rows, seed: int) -> list[bytes]:
    prefix = f"{seed}:".encode()
    return [hashlib.sha256(prefix + b"".join(_content(row))).digest() for row in inputs]


def _content(row: Any) -> Iterator[bytes]:
    """Give the bytes of each input; -0.0 equals 0.0 and must have its bytes."""
    for part in [row] if row.dtype.names is None else [row[name] for name in row.dtype.names]:
        yield (part + 0 if part.dtype.kind == "f" else part).tobytes()


def _by_ratio(
    groups: list[list[int]], labels: NDArray[Any], cfg: params.Data
) -> dict[str, list[int]]:
    """Cut each class by the ratios; equal samples go by the lowest of their labels."""
    assert cfg.train_ratio is not None  # rules ask for the ratios
    assert cfg.validation_ratio is not None
    classes: dict[int, list[list[int]]] = {}
    for equal in groups:
        label = int(labels[equal[0]]) if labels.dtype.kind in "iu" else 0
        classes.setdefault(label, []).append(equal)
    found: dict[str, list[int]] = {name: [] for name in NAMES[:3]}
    num_before = 0
    for label in sorted(classes):
        num_after = num_before + sum(len(equal) for equal in classes[label])
        cuts = [
            round(ratio * num_after) - round(ratio * num_before)
            for ratio in (cfg.train_ratio, cfg.train_ratio + cfg.validation_ratio)
        ]
        start = 0
        for equal in classes[label]:
            middle = start + len(equal) / 2
            found[NAMES[sum(middle >= cut for cut in cuts)]] += equal
            start += len(equal)
        num_before = num_after
    return found


def _by_speaker(
    groups: list[list[int]], speakers: tuple[str, ...], cfg: params.Data
) -> dict[str, list[int]]:
    """Hold out whole speakers; samples that several share go to the split that is held out most."""
    known = sorted(set(speakers))
    for key in ("test_speakers", "validation_speakers"):
        for name in getattr(cfg, key):
            if name not in known:
                raise DataError(
                    f"data.{key}: there is no speaker {name!r}; known: {', '.join(known)}"
                )
    held_out = dict.fromkeys(cfg.validation_speakers, 1) | dict.fromkeys(cfg.test_speakers, 2)
    found: dict[str, list[int]] = {name: [] for name in NAMES[:3]}
    for equal in groups:
        found[NAMES[max(held_out.get(speakers[row], 0) for row in equal)]] += equal
    return found


def _check_classes(found: dict[str, list[int]], samples: Samples) -> None:
    for name, chosen in found.items():
        present = set(samples.labels[chosen].tolist()) if samples.label_names else set()
        for label, label_name in enumerate(samples.label_names):
            if label not in present:
                raise DataError(
                    f"split {name} has no sample of class {label_name!r}: the ratio is too small, "
                    "or too many of its samples are equal; change the data ratios, or add samples"
                )
        if not chosen:
            raise DataError(
                f"split {name} has no sample; change the data ratios or speakers, or add samples"
            )
