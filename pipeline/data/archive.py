"""Read a tar or zip member by member, without extracting it and without trusting it.

Archives come from outside. Nothing is written to disk, links are refused, and so is what claims or
turns out to be much more than the file that holds it.
"""

import bz2
import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pipeline.errors import DataError

MEBIBYTE = 1 << 20
UNREADABLE = (
    OSError,  # gzip's and bz2's too
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # an unknown compression
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
# not xz: its header alone can ask for gigabytes of memory
COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
}
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
DRIVE = re.compile(r"[A-Za-z]:")
NAME_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: a bomb is small, and enormous once it is unpacked.

    All that is unpacked may be ``max_ratio`` times the archive's own size, and ``min_total_bytes``
    in any case.
    """

    max_member_bytes: int = 64 * MEBIBYTE
    max_ratio: int = 100
    min_total_bytes: int = 256 * MEBIBYTE
    max_name_bytes: int = MEBIBYTE  # of a tar header that holds a long name

    def total_bytes(self, path: Path) -> int:
        """Return how much may be unpacked from this archive."""
        return max(self.min_total_bytes, self.max_ratio * path.stat().st_size)


@dataclass(frozen=True)
class Member:
    """A file of an archive: its relative posix ``name`` and its bytes."""

    name: str
    content: bytes


def is_archive(path: Path) -> bool:
    """Tell whether the name is that of an archive that `members` reads."""
    return path.name.lower().endswith(SUFFIXES)


def members(
    path: Path, suffixes: tuple[str, ...], limits: Limits | None = None
) -> Iterator[Member]:
    """Read the files with one of the suffixes (lower case), in the archive's own order.

    Names are checked of every member, whatever its suffix; a name or folder that begins with a dot
    is passed over. Only one member is in memory at once.

    Raises:
        DataError: one line: the file is missing, truncated or no archive; a member is a link, has a
            name that leads out of the archive, is there twice or encrypted; or a limit is passed.
    """
    limits = limits or Limits()
    seen: set[str] = set()
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) in {b"PK\x03\x04", b"PK\x05\x06"}
            file.seek(0)
            reader = _zip_members if is_zip else _tar_members
            for member in reader(file, path, suffixes, limits):
                if member.name in seen:
                    raise DataError(f"{path}: {member.name} is there twice; pack it again")
                seen.add(member.name)
                yield member
    except UNREADABLE as error:
        said = str(error) or "it ends too early"
        raise DataError(
            f"{path} is no whole tar or zip archive: {said}; fetch or pack it again"
        ) from error


def _tar_members(
    file: IO[bytes], path: Path, suffixes: tuple[str, ...], limits: Limits
) -> Iterator[Member]:
    with closing(_Unpacked(file, path, limits)) as unpacked:

        class Header(tarfile.TarInfo):
            """A header whose long name is no bomb: tarfile reads it into memory at once."""

            @classmethod
            def frombuf(cls, buf, encoding, errors):  # type: ignore[no-untyped-def]
                found = super().frombuf(buf, encoding, errors)
                if found.type in NAME_TYPES and found.size > limits.max_name_bytes:
                    raise DataError(
                        f"{path}: a header of {found.size:,} bytes is over "
                        f"{limits.max_name_bytes:,}; this is no archive of samples"
                    )
                return found

        stream = cast("IO[bytes]", unpacked)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps every header
                _check_name(path, info.name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    kind = f"a link to {info.linkname}" if info.linkname else "no plain file"
                    raise DataError(_not_plain(path, info.name, kind))
                if _is_wanted(info.name, suffixes):
                    _check_size(path, info.name, info.size, limits)
                    content = archive.extractfile(info)
                    assert content is not None  # it is a regular file
                    yield Member(_plain_name(info.name), content.read())
        unpacked.drain()


class _Unpacked:
    """A tar's bytes behind gzip, bz2 or nothing, counted; all that tarfile needs is ``read``."""

    def __init__(self, file: IO[bytes], path: Path, limits: Limits) -> None:
        start = file.read(3)
        file.seek(0)
        opener = next((o for magic, o in COMPRESSIONS.items() if start.startswith(magic)), None)
        self._file = cast("IO[bytes]", opener(file) if opener else file)
        self._path, self._limits = path, limits
        self._left = limits.total_bytes(path)
        self._tail = b""

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise DataError(_too_much(self._path, self._limits))
        self._tail = (self._tail + found)[-tarfile.BLOCKSIZE :]
        return found

    def drain(self) -> None:
        """Read to the end, where gzip compares its checksum; a whole tar ends in a block of zeros.

        Without that, a tar cut between two members would pass for a smaller one.
        """
        while self.read(MEBIBYTE):
            pass
        if self._tail.strip(b"\0"):
            raise tarfile.ReadError("its end is missing")

    def close(self) -> None:
        self._file.close()


def _zip_members(
    file: IO[bytes], path: Path, suffixes: tuple[str, ...], limits: Limits
) -> Iterator[Member]:
    left = limits.total_bytes(path)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _check_name(path, info.filename)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise DataError(_not_plain(path, info.filename, "a link or a device"))
            if info.is_dir() or not _is_wanted(info.filename, suffixes):
                continue
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise NotImplementedError(f"{info.filename} is neither stored nor deflated")
            _check_size(path, info.filename, info.file_size, limits)
            left -= info.file_size  # zipfile gives no more than that
            if left < 0:
                raise DataError(_too_much(path, limits))
            yield Member(_plain_name(info.filename), archive.read(info))


def _is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in suffixes


def _plain_name(name: str) -> str:
    return str(PurePosixPath(name))  # without a leading ./


def _check_name(path: Path, name: str) -> None:
    found = PurePosixPath(name)
    outside = found.is_absolute() or ".." in found.parts or DRIVE.match(name)
    if outside or "\\" in name or "\0" in name:
        raise DataError(
            f"{path}: the name {name!r} leads out of the archive; do not use it, or pack it again"
        )


def _check_size(path: Path, name: str, num_bytes: int, limits: Limits) -> None:
    if num_bytes > limits.max_member_bytes:
        raise DataError(
            f"{path}: {name} has {num_bytes:,} bytes unpacked, a sample may have "
            f"{limits.max_member_bytes:,}; leave it out"
        )


def _not_plain(path: Path, name: str, kind: str) -> str:
    return f"{path}: {name} is {kind}; an archive of samples holds plain files only, pack it again"


def _too_much(path: Path, limits: Limits) -> str:
    return (
        f"{path} unpacks to more than {limits.max_ratio} times its size, as a zip bomb does; "
        "if it is sound, unpack it and name the folder"
    )
