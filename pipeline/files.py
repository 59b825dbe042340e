"""Digests, canonical JSON and atomic writes: how bytes are named and how they reach the disk."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from pipeline.errors import InputsError

CHUNK_BYTES = 1 << 20


def digest_bytes(content: bytes) -> str:
    """Return ``sha256:HEX`` of the bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_file(path: Path) -> str:
    """Return ``sha256:HEX`` of a file, read in pieces."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


def digest_folder(path: Path) -> str:
    """Return ``sha256:HEX`` over the sorted relative names of a folder's files, each with its own.

    Names that begin with a dot are no part of it: the notes of a file manager change nothing.
    """
    sha256 = hashlib.sha256()
    for name in list_files(path):
        if not any(part.startswith(".") for part in name.split("/")):
            sha256.update(f"{name}\0{digest_file(path / name)}\0".encode())
    return f"sha256:{sha256.hexdigest()}"


def check_pin(
    path: Path, digest: str | None, key: str, digest_key: str, *, folders: bool = False
) -> None:
    """Compare a file from outside with its digest in params.yaml; None compares nothing.

    With ``folders`` it may be a folder, of which names and bytes are compared.

    Raises:
        InputsError: the file is missing or has other bytes; the keys name the params.
    """
    is_folder = folders and path.is_dir()
    if not path.is_file() and not is_folder:
        what = "file or folder" if folders else "file"
        raise InputsError(f"{key}: there is no {what} {path}; put it there, or mend params.yaml")
    found = (digest_folder if is_folder else digest_file)(path) if digest else None
    if found != digest:
        raise InputsError(
            f"{key}: {path} has {found}, {digest_key} pins {digest}; restore it, "
            "or run slipway inputs lock if the change is meant"
        )


def encode_json(value: Any) -> bytes:
    """Encode as canonical JSON: sorted keys, two-space indent, final newline."""
    # json, not msgspec.json.format: the latter leaves floats such as 1e-05 to the version installed
    builtin = msgspec.to_builtins(value)
    return (
        json.dumps(builtin, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that its name shows the old bytes or all of the new, also after a crash."""
    with writing_atomic(path) as file:
        file.write(content)


@contextmanager
def writing_atomic(path: Path) -> Iterator[IO[bytes]]:
    """As `write_atomic`, for content that is written piece by piece inside the block."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def appearing(to: Path) -> Iterator[Path]:
    """Give an empty sibling of the directory, which takes its name at the end, or is removed."""
    temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            if path.is_dir():
                sync_directory(path)
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(to)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    sync_directory(to.parent)


def sync_directory(path: Path) -> None:
    """Make renames and links inside the directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_files(root: Path) -> list[str]:
    """Return every file below the root as a sorted relative posix path."""
    return sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()
    )
