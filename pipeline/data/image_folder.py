"""Images in one folder a class, on disk or in an archive; without classes where no label is needed.

A raw sample is uint8 [H, W, C]. Images of many sizes become one by the first step ``resize`` of
data.preprocessing: each is brought to that size as it is read.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files, params, raw
from pipeline.data import archive, download
from pipeline.data.archive import Member
from pipeline.data.rows import Rows
from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.runtimes.errors import RunnerError

SUFFIXES = tuple(raw.IMAGE_FORMATS)


def read(path: Path, cfg: params.Data, *, labelled: bool, spool: Path = download.CACHE) -> Samples:
    """Read every image below the path; names that begin with a dot are passed over.

    With labels the folders are the classes, in the order of ``data.labels``, or else of their
    names. In an archive a folder that holds all of the others does not count.

    Raises:
        DataError: one line naming the image or folder that is wrong.
    """
    names: list[str] = []

    def images() -> Iterator[NDArray[Any]]:
        size, shape = _size(cfg), None
        for member in _members(path):
            try:
                image = raw.pixels(member.content, cfg.channels, size, member.name)
            except RunnerError as error:
                raise DataError(f"{path}: {error}") from error
            shape = shape or image.shape
            if image.shape != shape:
                raise DataError(
                    f"{path}: {member.name} is {_by(image.shape)}, {names[0]} is {_by(shape)}; "
                    "add a step resize to data.preprocessing"
                )
            names.append(member.name)
            yield image

    inputs = Rows.spool(images(), spool)
    if inputs is None:
        raise DataError(f"{path} holds no image ({', '.join(SUFFIXES)}); name another folder")
    if not labelled:
        return Samples(inputs, np.zeros(len(inputs), np.int64), ())
    classes = _classes(path, names)
    label_names = _label_names(path, cfg.labels, classes)
    labels = np.array([label_names.index(name) for name in classes], np.int64)
    return Samples(inputs, labels, label_names)


def _size(cfg: params.Data) -> tuple[int, int] | None:
    if isinstance(cfg.preprocessing, dict):
        raise DataError("data.source image_folder has one input; give data.preprocessing one list")
    found = (step for step in cfg.preprocessing if isinstance(step, params.Resize))
    first = next(found, None)
    return (first.height, first.width) if first else None


def _members(path: Path) -> Iterator[Member]:
    if not path.is_dir():
        yield from archive.members(path, SUFFIXES)
        return
    limit = archive.Limits().max_member_bytes
    for name in files.list_files(path):
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or raw.suffix(name) not in SUFFIXES:
            continue
        try:
            if (path / name).stat().st_size > limit:
                raise DataError(f"{path}: {name} has more than {limit:,} bytes; leave it out")
            yield Member(name, (path / name).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: {name} cannot be read: {error.strerror}") from error


def _classes(path: Path, names: Sequence[str]) -> list[str]:
    """Return each image's class: its folder, behind the one that an archive's folders share."""
    parents = [str(PurePosixPath(name).parent) for name in names]
    shared = len(PurePosixPath(commonpath(parents)).parts) if not path.is_dir() else 0
    classes = []
    for name in names:
        folders = PurePosixPath(name).parts[shared:-1]
        if not folders:
            raise DataError(
                f"{path}: {name} lies in no class's folder; give each class a folder, or set "
                "task.kind agreement, which needs no labels"
            )
        classes.append(folders[0])
    return classes


def _label_names(path: Path, given: tuple[str, ...], classes: Sequence[str]) -> tuple[str, ...]:
    found = sorted(set(classes))
    if given and set(given) != set(found):
        raise DataError(
            f"{path} has the folders {', '.join(found)}, data.labels has {', '.join(given)}; "
            "make them the same"
        )
    if len(found) < 2:
        raise DataError(f"{path}: there is one class only, {found[0]!r}; give two at least")
    return given or tuple(found)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, chain(shape[1::-1], shape[2:])))
