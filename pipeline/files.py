"""Digests, canonical JSON and atomic writes: how bytes are named and how they reach the disk."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

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


def check_pin(path: Path, digest: str | None, key: str, digest_key: str) -> None:
    """Compare a file from outside with its digest in params.yaml; None compares nothing.

    Raises:
        InputsError: the file is missing or has other bytes; the keys name the params.
    """
    if not path.is_file():
        raise InputsError(f"{key}: there is no file {path}; put it there, or mend params.yaml")
    found = digest_file(path) if digest else None
    if found != digest:
        raise InputsError(
            f"{key}: {path} has {found}, {digest_key} pins {digest}; restore the file, "
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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


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
