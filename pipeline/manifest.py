"""Boundary object: what a directory of artifacts is, byte for byte.

A manifest states everything that could have changed the bytes and nothing that could not: no time,
host, user or absolute path. It is written last: a manifest that exists means a complete directory.
"""

from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from pipeline import files
from pipeline.errors import DigestMismatchError, ManifestError

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
# What a pull puts beside an artifact's own files.
BESIDE = ("golden.npz", "measurement.json")

Steps = tuple[dict[str, Any], ...]
Preprocessing = Steps | dict[str, Steps]

T = TypeVar("T")


class File(msgspec.Struct, frozen=True):
    """One file of the directory."""

    digest: str
    size_bytes: int


class Input(msgspec.Struct, frozen=True):
    """What the directory was made from: a role (``trained``) and a manifest's or file's digest."""

    path: str
    digest: str


class Quantization(msgspec.Struct, frozen=True):
    """r = scale * (q - zero_point), per tensor (``axis`` None) or along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


class Tensor(msgspec.Struct, frozen=True):
    """One input or output: numpy dtype, shape (a string is a dynamic axis), layout as ``NCHW``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str | None = None
    quantization: Quantization | None = None


class Signature(msgspec.Struct, frozen=True):
    """What goes in and what comes out."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``files`` maps relative posix paths to digests.

    ``preprocessing`` is a list of steps, or one for each input of a net that has several.
    """

    schema_version: int = SCHEMA_VERSION
    model: str
    stage: str
    variant: str | None = None
    format: str | None = None
    precision: str | None = None
    target: str | None = None
    opset: int | None = None
    inputs: tuple[Input, ...] = ()
    params: dict[str, Any] = {}
    tools: dict[str, str] = {}
    signature: Signature | None = None
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing = ()
    files: dict[str, File] = {}


class _Version(msgspec.Struct):
    schema_version: int


def inputs_of(**directories: Path) -> tuple[Input, ...]:
    """Name each directory (or file) by role, with the digest of its manifest (or bytes)."""
    paths = {
        role: path / FILE_NAME if path.is_dir() else path for role, path in directories.items()
    }
    for role, path in paths.items():
        if not path.is_file():
            raise ManifestError(
                f"{role}: {path} is missing; run the stage that writes it (dvc repro)"
            )
    return tuple(
        Input(path=role, digest=files.digest_file(path)) for role, path in sorted(paths.items())
    )


def scan(directory: Path) -> dict[str, File]:
    """Digest every file of the directory except its own manifest. Refuses symbolic links."""
    found = {}
    for name in files.list_files(directory):
        path = directory / name
        if path.is_symlink():
            raise ManifestError(f"{path} is a symbolic link; an artifact holds plain files only")
        if name != FILE_NAME:
            found[name] = File(digest=files.digest_file(path), size_bytes=path.stat().st_size)
    return found


def write(directory: Path, **fields: Any) -> Manifest:
    """Digest what lies in the directory and write its manifest, atomically and last."""
    manifest = Manifest(files=scan(directory), **fields)
    files.write_atomic(directory / FILE_NAME, files.encode_json(manifest))
    return manifest


def decode(content: bytes, where: str) -> Manifest:
    """Read a manifest from bytes; unknown keys are ignored, an unknown version is refused."""
    manifest = decode_document(content, Manifest, SCHEMA_VERSION, where)
    for name in manifest.files:
        path = PurePosixPath(name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in name
            or str(path) != name
            or name == "."
        ):
            raise ManifestError(
                f"{where}: file name {name!r} leaves the directory; do not use this artifact"
            )
    return manifest


def read(directory: Path) -> Manifest:
    """Read the manifest of a directory."""
    path = directory / FILE_NAME
    if not path.is_file():
        raise ManifestError(
            f"{path} is missing, so {directory} is incomplete; run the stage that writes it"
        )
    return decode(path.read_bytes(), str(path))


def verify(directory: Path, beside: Collection[str] = ()) -> Manifest:
    """Read the manifest and compare every byte with it.

    Args:
        directory: the manifest's own.
        beside: names that others may have put there, such as `BESIDE`.

    Raises:
        DigestMismatchError: naming every extra, missing and mismatching file.
    """
    manifest = read(directory)
    found = scan(directory)
    extra = found.keys() - manifest.files.keys() - set(beside)
    differences = [
        *(f"missing {name}" for name in sorted(manifest.files.keys() - found.keys())),
        *(f"extra {name}" for name in sorted(extra)),
        *(
            f"{name} is {found[name].digest[:19]}.., not {manifest.files[name].digest[:19]}.."
            for name in sorted(found.keys() & manifest.files.keys())
            if found[name] != manifest.files[name]
        ),
    ]
    if differences:
        raise DigestMismatchError(
            f"{directory} differs from its manifest: {'; '.join(differences)}; "
            "restore it (dvc checkout, or pull again)"
        )
    return manifest


def model_file(manifest: Manifest, where: str) -> str:
    """Return the name of the one file that the runtime loads: ``model.*``, but not ``model.bin``.

    A ``.bin`` holds weights beside it, as OpenVINO's does.
    """
    found = [n for n in manifest.files if n.startswith("model.") and not n.endswith(".bin")]
    if len(found) != 1:
        raise ManifestError(
            f"{where} must hold one file model.*, holds {sorted(manifest.files)}; convert it again"
        )
    return found[0]


def decode_document(content: bytes, kind: type[T], version: int, where: str) -> T:
    """Decode a versioned JSON document, with one clear line for each way it can be wrong."""
    try:
        found = msgspec.json.decode(content, type=_Version).schema_version
        if found == version:
            return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"{where} is malformed: {error}; restore it (dvc checkout, or pull again)"
        ) from error
    raise ManifestError(
        f"{where} has schema_version {found}, this slipway reads {version}; upgrade slipway"
    )
