"""Find a release, fetch a target's artifact from it, check that a registry is whole."""

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline import files
from pipeline.errors import PipelineError, RegistryError
from pipeline.manifest import File
from pipeline.registry import release, semver
from pipeline.registry.release import Part, Release
from pipeline.registry.store import Store

_NUM_LISTED = 10  # versions that an error names


def releases(store: Store) -> list[Release]:
    """List every release, by name, the newest last."""
    names = sorted({key.partition("/")[0] for key in store.keys("releases")})
    return [each for name in names for each in reversed(list(newest_first(store, name)))]


def find(store: Store, name: str, version: str | None = None) -> Release:
    """Return one release, the newest without a version.

    Raises:
        RegistryError: there is none; lists those there are.
    """
    found = None
    if version is None:
        found = next(newest_first(store, name), None)
    elif version in release.newest_first(store, name):
        found = release.read(store, name, version)
    if found is None:
        raise RegistryError(_unknown(store, name, version))
    return found


def resolve(
    store: Store, name: str, target: str, version: str | None = None
) -> tuple[Release, Part]:
    """Return the release that a device of the target gets, and the target's part of it.

    Without a version it is the newest that has the target: by semver precedence, and among versions
    of equal precedence (all ``0.0.0+`` builds are) by the order of their publication.

    Raises:
        RegistryError: unknown name, version or target; lists the known ones.
    """
    seen = []
    for found in [find(store, name, version)] if version else newest_first(store, name):
        if target in found.targets:
            return found, found.targets[target]
        seen.append(found)
    newest = seen[0] if seen else find(store, name)
    known = _list(sorted({known for found in seen for known in found.targets}))
    skipped = f" ({newest.skipped[target]})" if target in newest.skipped else ""
    which = f"{name} {version}" if version else name
    raise RegistryError(f"{which} has no target {target!r}{skipped}; known: {known}")


def pull(
    store: Store,
    name: str,
    target: str,
    version: str | None,
    to: Path,
    *,
    accept_unproven: bool = False,
) -> Release:
    """Fetch a target's artifact into a directory that does not exist yet, or is empty.

    It holds the artifact's files with their manifest.json, measurement.json and, unless it is
    unproven, golden.npz. Every byte is verified before the directory appears, by one rename; on
    failure nothing appears.

    Args:
        store: the registry.
        name: of the model.
        target: whose artifact.
        version: None is the newest that has the target.
        to: where it appears.
        accept_unproven: also fetch what was built and never ran.

    Raises:
        RegistryError: unknown or unsound release, other bytes, a destination in use, or an unproven
            artifact that is not accepted.
    """
    _require_free(to)
    found, part = resolve(store, name, target, version)
    where = f"{found.name} {found.version} for {target}"
    if part.unproven and not accept_unproven:
        raise RegistryError(
            f"{where} is unproven: built, and never run on its hardware; pull a measured version, "
            "or this one with --unproven"
        )
    manifest_file = part.files[release.ARTIFACT_MANIFEST]
    content = b"".join(_read_blob(store, manifest_file, where))
    release.check_artifact(part, content, where)
    try:
        with files.appearing(to) as temporary:
            for path, file in release.delivered(part).items():
                _write(temporary / path, _read_blob(store, file, where))
    except OSError as error:
        raise RegistryError(
            f"{to} cannot be written: {error.strerror}; give a new directory with enough space"
        ) from error
    return found


def verify(store: Store) -> list[str]:
    """Hash every blob again and check every release; one line for each problem.

    Finds blobs with other bytes than their digest, missing blobs, documents that are malformed or
    were altered, and artifacts whose manifest says something else than the release.
    """
    problems: list[str] = []
    users: dict[str, dict[str, None]] = defaultdict(dict)  # insertion order, each once
    parts: list[tuple[Part, str]] = []
    for key in store.keys("releases"):
        name, _, version = key.partition("/")
        try:
            found = release.read(store, name, version)
        except PipelineError as error:
            problems.append(str(error))
            continue
        for target, part in found.targets.items() if found else ():
            parts.append((part, f"{name} {version} for {target}"))
            for file in part.files.values():
                users[file.digest][f"{name} {version}"] = None
    sizes: dict[str, int] = {}
    for digest in sorted(users.keys() | set(store.keys("blobs"))):
        of = f"of {', '.join(users[digest])}" if digest in users else "of no release"
        remedy = "publish the release again" if digest in users else "delete it"
        try:
            sizes[digest] = _size_of_sound(store, digest)
        except RegistryError as error:
            problems.append(f"blob {digest[:19]}.. {of} {error}; {remedy}")
    for part, where in parts:
        problems += _contradictions(store, part, where, sizes)
    return problems


def _size_of_sound(store: Store, digest: str) -> int:
    """Hash a blob and return its size; the error says what is wrong with it."""
    try:
        with store.get_blob(digest) as blob:
            sha256, size = hashlib.sha256(), 0
            while piece := blob.read(files.CHUNK_BYTES):
                sha256.update(piece)
                size += len(piece)
    except OSError as error:
        raise RegistryError(f"cannot be read: {error.strerror}") from error
    except RegistryError as error:
        raise RegistryError("is missing or unreadable") from error
    if f"sha256:{sha256.hexdigest()}" != digest:
        raise RegistryError("has other bytes than its manifest says")
    return size


def _contradictions(store: Store, part: Part, where: str, sizes: dict[str, int]) -> list[str]:
    """Compare a part with its sound blobs: sizes, and the artifact's own manifest."""
    problems = [
        f"{where}: {name} has {sizes[file.digest]} bytes, the release says {file.size_bytes}; "
        "do not use it"
        for name, file in sorted(part.files.items())
        if sizes.get(file.digest, file.size_bytes) != file.size_bytes
    ]
    if part.manifest in sizes and not problems:
        content = b"".join(_read_blob(store, part.files[release.ARTIFACT_MANIFEST], where))
        try:
            release.check_artifact(part, content, where)
        except PipelineError as error:
            problems.append(str(error))
    return problems


def newest_first(store: Store, name: str) -> Iterator[Release]:
    """Yield the releases of a name, the newest first; no more documents are read than asked for."""
    versions = release.newest_first(store, name)

    def order(version: str) -> tuple[int, str]:
        # two that were published at the same moment may share a number; any fixed order will do
        return release.read_heading(store, name, version).sequence, version

    for _, group in itertools.groupby(versions, key=semver.precedence):
        equal = list(group)
        for version in sorted(equal, key=order, reverse=True) if len(equal) > 1 else equal:
            if found := release.read(store, name, version):
                yield found


def _unknown(store: Store, name: str, version: str | None) -> str:
    versions = release.newest_first(store, name)
    if not versions:
        names = sorted({key.partition("/")[0] for key in store.keys("releases")})
        return f"model {name!r} is not in this registry; known: {_list(names)}"
    return f"{name} has no version {version!r}; known: {_list(versions)}"


def _list(names: list[str]) -> str:
    more = len(names) - _NUM_LISTED
    shown = ", ".join(names[:_NUM_LISTED]) or "none"
    return f"{shown} and {more} more" if more > 0 else shown


def _require_free(to: Path) -> None:
    if not to.parent.is_dir():
        raise RegistryError(f"{to.parent} is not a directory; make it, or pull to another place")
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise RegistryError(f"{to} exists already; remove it, or pull to a new directory")


def _read_blob(store: Store, file: File, where: str) -> Iterator[bytes]:
    """Yield a blob by pieces; raises before the last one if it is not what the release says."""
    sha256, left = hashlib.sha256(), file.size_bytes
    with store.get_blob(file.digest) as blob:
        piece = blob.read(files.CHUNK_BYTES)
        while piece:
            sha256.update(piece)
            left -= len(piece)
            following = blob.read(files.CHUNK_BYTES) if left >= 0 else b""
            if not following:
                break
            yield piece
            piece = following
    if left != 0 or f"sha256:{sha256.hexdigest()}" != file.digest:
        raise RegistryError(
            f"blob {file.digest[:19]}.. of {where} has other bytes than its manifest says; "
            "publish the release again (slipway registry verify lists all)"
        )
    yield piece


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
