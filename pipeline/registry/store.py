"""Where releases lie: content-addressed blobs, and release documents that are written once.

A directory registry::

    blobs/sha256/3f/3f9a...        bytes named by their own digest
    releases/NAME/VERSION.json     one document a release; it exists, whole, or it does not
    tmp/                           what writers have not finished; nobody reads here

Blobs go first, the document last and by an exclusive link, so that a publisher may be killed at any
moment and any number may run at once. What a killed one leaves in ``tmp/`` and as a blob of no
release may be deleted whenever nobody publishes.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from pipeline import files
from pipeline.errors import RegistryError
from pipeline.params import NAME
from pipeline.registry import semver

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Store(Protocol):
    """What a registry needs of its storage. A document's key is ``NAME/VERSION``."""

    def put_blob(self, source: Path | bytes) -> str:
        """Keep the bytes durably and return their digest; a known blob is checked, and mended."""

    def get_blob(self, digest: str) -> BinaryIO:
        """Open a blob. The reader compares the digest. Raises `RegistryError` if it is absent."""

    def publish_document(self, key: str, content: bytes) -> bool:
        """Write a document durably unless one has the key: one of many writers gets True."""

    def read_document(self, key: str) -> bytes | None:
        """Return a document, None if there is none."""

    def keys(self, kind: Literal["blobs", "releases"]) -> list[str]:
        """List every blob's digest, or every document's key, sorted."""


class DirectoryStore:
    """A registry in a directory, made by its first publication; see the module for its layout."""

    def __init__(self, root: Path) -> None:
        """Name the directory; nothing is read or written yet."""
        self.root = root

    def put_blob(self, source: Path | bytes) -> str:
        """See `Store`."""
        with self._temporary() as (file, temporary):
            digest = _copy(source, file)
            path = self._blob_path(digest)
            if path.is_file() and files.digest_file(path) == digest:
                return digest
            _make_durable(path.parent)
            temporary.chmod(0o444)
            temporary.replace(path)
            files.sync_directory(path.parent)
        return digest

    def get_blob(self, digest: str) -> BinaryIO:
        """See `Store`."""
        try:
            return self._blob_path(digest).open("rb")
        except OSError as error:
            raise RegistryError(
                f"blob {digest[:19]}.. cannot be read from {self.root}: {error.strerror}; "
                "publish the release again"
            ) from error

    def publish_document(self, key: str, content: bytes) -> bool:
        """See `Store`."""
        path = self._document_path(key)
        with self._temporary() as (file, temporary):
            _copy(content, file)
            _make_durable(path.parent)
            temporary.chmod(0o444)
            try:
                # a rename would replace another's document; link is the exclusive one of the two
                os.link(temporary, path)
            except FileExistsError:
                return False
            files.sync_directory(path.parent)
        return True

    def read_document(self, key: str) -> bytes | None:
        """See `Store`."""
        path = self._document_path(key)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(f"{path} cannot be read: {error.strerror}; restore it") from error

    def keys(self, kind: Literal["blobs", "releases"]) -> list[str]:
        """See `Store`. Files that do not belong to the layout are passed over."""
        if kind == "blobs":
            names = (f"sha256:{path.name}" for path in self.root.glob("blobs/sha256/*/*"))
            return sorted(name for name in names if DIGEST.fullmatch(name))
        paths = self.root.glob("releases/*/*.json")
        found = (f"{path.parent.name}/{path.name.removesuffix('.json')}" for path in paths)
        return sorted(key for key in found if _is_key(key))

    def _blob_path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise RegistryError(f"a digest must be sha256 and 64 hex digits, got {digest[:80]!r}")
        name = digest.removeprefix("sha256:")
        return self.root / "blobs" / "sha256" / name[:2] / name

    def _document_path(self, key: str) -> Path:
        if not _is_key(key):
            raise RegistryError(
                "a release is named by a lower-case name and a semantic version, NAME/VERSION, "
                f"got {key[:80]!r}"
            )
        return self.root / "releases" / f"{key}.json"

    @contextmanager
    def _temporary(self) -> Iterator[tuple[BinaryIO, Path]]:
        """Open a new file in ``tmp/`` that is gone afterwards unless it was moved away."""
        try:
            _make_durable(self.root / "tmp")
            handle, name = tempfile.mkstemp(dir=self.root / "tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    yield file, Path(name)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(
                f"registry {self.root} cannot be written: {error.strerror} ({error.filename}); "
                "give a directory with space, permission and hard links"
            ) from error


def _is_key(key: str) -> bool:
    name, slash, version = key.partition("/")
    return bool(slash and NAME.fullmatch(name)) and semver.is_version(version)


def _copy(source: Path | bytes, file: BinaryIO) -> str:
    """Write all bytes through to the disk; the digest is of what was written."""
    if isinstance(source, bytes):
        digest = files.digest_bytes(source)
        file.write(source)
    else:
        sha256 = hashlib.sha256()
        with source.open("rb") as opened:
            while piece := opened.read(files.CHUNK_BYTES):
                sha256.update(piece)
                file.write(piece)
        digest = f"sha256:{sha256.hexdigest()}"
    file.flush()
    os.fsync(file.fileno())
    return digest


def _make_durable(directory: Path) -> None:
    """Make a directory and its parents so that they outlive a crash."""
    if directory.is_dir():
        return
    _make_durable(directory.parent)
    directory.mkdir(exist_ok=True)
    files.sync_directory(directory.parent)
