"""Boundary object: one published version, one part for each target, everything by digest.

A release document holds no time and no host. It is data from outside when it is read: every name in
it is checked before anything is written.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

import msgspec

from pipeline import files, manifest, params
from pipeline.errors import RegistryError
from pipeline.manifest import File, decode_document
from pipeline.measurement import Kind
from pipeline.registry import semver
from pipeline.registry.store import DIGEST, Store

SCHEMA_VERSION = 1
# Below these names in a release directory lies what a pull delivers.
ARTIFACT = "artifact"
ARTIFACT_MANIFEST = f"{ARTIFACT}/{manifest.FILE_NAME}"
GOLDEN = "golden.npz"  # not of what never ran
BESIDE_ARTIFACT = manifest.BESIDE


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The part's main numbers, copied from its measurement; None where nothing was measured.

    ``quality`` and both drops are in ``quality_unit``; ``latency_ratio`` is to the fp32 reference.
    """

    latency_p50_ms: float | None = None
    latency_ratio: float | None = None
    size_bytes: int
    peak_memory_bytes: int | None = None
    quality_metric: str | None = None
    quality_unit: str | None = None
    quality: float | None = None
    quality_half_width: float | None = None
    drop: float | None = None
    drop_upper: float | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One target's share of a release: every file of its release directory, and what they are.

    ``manifest`` is the digest of the artifact's own manifest.json, by which measurements name it.
    ``unproven`` marks an artifact that was built and never ran (kind ``built``): a pull wants to be
    told that it may.
    """

    candidate: str
    variant: str
    precision: str
    kind: Kind
    unproven: bool
    manifest: str
    files: dict[str, File]
    figures: Figures


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """See the module.

    ``digest`` covers ``targets`` only: the same artifacts are the same release, whoever publishes.
    ``sequence`` counts publications of the name, and orders versions of equal precedence.
    ``dirty`` says that the sources were not just those of ``commit``.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    sequence: int
    digest: str
    signed: bool = False
    commit: str | None
    dirty: bool
    lock_digest: str
    targets: dict[str, Part]
    skipped: dict[str, str] = {}


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """The few fields of a release by which many are put in order; the rest is not even decoded."""

    version: str
    sequence: int
    digest: str


def digest_of(targets: dict[str, Part]) -> str:
    """Return the digest of the canonical JSON of the targets' parts."""
    return files.digest_bytes(files.encode_json(targets))


def read(store: Store, name: str, version: str) -> Release | None:
    """Read and check one release; None if there is no such version.

    Raises:
        ManifestError: it is malformed or of an unsupported schema version.
        RegistryError: it contradicts its own name or digest, or names a file outside its directory.
    """
    content = store.read_document(f"{name}/{version}")
    return None if content is None else decode(content, name, version)


def read_heading(store: Store, name: str, version: str) -> Heading:
    """Read the heading of a release that is there; far cheaper than `read`, and unchecked."""
    content = store.read_document(f"{name}/{version}")
    assert content is not None, "documents are written once and never removed"
    return decode_document(content, Heading, SCHEMA_VERSION, f"release {name} {version}")


def decode(content: bytes, name: str, version: str) -> Release:
    """Decode the document found under name and version; refuse what does not belong there."""
    where = f"release {name} {version}"
    release = decode_document(content, Release, SCHEMA_VERSION, where)
    if (release.name, release.version) != (name, version):
        raise RegistryError(
            f"{where} calls itself {release.name!r} {release.version!r}; restore the document"
        )
    if digest_of(release.targets) != release.digest:
        raise RegistryError(
            f"{where} has other targets than its digest {release.digest[:19]}.. says; "
            "restore the document"
        )
    for target, part in release.targets.items():
        if not params.TARGET_ID.fullmatch(target):
            raise RegistryError(f"{where} has the target id {target!r}; do not use this registry")
        check_part(part, f"{where} for {target}")
    return release


def check_part(part: Part, where: str) -> None:
    """Refuse names and digests that are none, and a part that lacks what a pull delivers."""
    check_names(part.files, where)
    for name, file in part.files.items():
        if not DIGEST.fullmatch(file.digest):
            raise RegistryError(
                f"{where}: {name} has the digest {file.digest[:80]!r}; do not use it"
            )
    if part.unproven != (part.kind == "built"):
        raise RegistryError(
            f"{where} is {part.kind} and {'' if part.unproven else 'not '}called unproven; "
            "do not use it"
        )
    for name in (ARTIFACT_MANIFEST, *BESIDE_ARTIFACT):
        if name not in part.files and not (part.unproven and name == GOLDEN):
            raise RegistryError(f"{where} has no {name}; run dvc repro and publish it again")
    if part.files[ARTIFACT_MANIFEST].digest != part.manifest:
        raise RegistryError(
            f"{where} names the artifact {part.manifest[:19]}.., its manifest.json is "
            f"{part.files[ARTIFACT_MANIFEST].digest[:19]}..; do not use it"
        )
    check_names(delivered(part), where)


def delivered(part: Part) -> dict[str, File]:
    """Map each name in a pulled directory to its file."""
    artifact = {
        name.removeprefix(f"{ARTIFACT}/"): file
        for name, file in part.files.items()
        if name.startswith(f"{ARTIFACT}/")
    }
    beside = {name: part.files[name] for name in BESIDE_ARTIFACT if name in part.files}
    if both := artifact.keys() & beside.keys():
        raise RegistryError(
            f"an artifact must not hold {', '.join(sorted(both))}: a pull puts its own there"
        )
    return artifact | beside


def check_artifact(part: Part, content: bytes, where: str) -> None:
    """Compare the artifact's manifest.json with the part: the same files, byte for byte."""
    listed = manifest.decode(content, f"{where}: {ARTIFACT_MANIFEST}").files
    found = delivered(part)
    for name in (manifest.FILE_NAME, *BESIDE_ARTIFACT):
        found.pop(name, None)
    if listed != found:
        names = sorted(n for n in listed.keys() | found.keys() if listed.get(n) != found.get(n))
        raise RegistryError(
            f"{where}: {', '.join(names)} is not what {ARTIFACT_MANIFEST} says; do not use it"
        )


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names that leave the directory, or of which one lies below another."""
    known = set(names)
    for name in sorted(known):
        path = PurePosixPath(name)
        plain = name.isprintable() and "\\" not in name and str(path) == name
        if not plain or name == "." or path.is_absolute() or ".." in path.parts:
            raise RegistryError(
                f"{where} has the file name {name!r}, which leaves the directory; do not use it"
            )
        for parent in path.parents:
            if str(parent) in known:
                raise RegistryError(f"{where} has {str(parent)!r} as a file and as a directory")


def newest_first(store: Store, name: str) -> list[str]:
    """List the versions of a name by falling precedence; those of equal precedence in no order."""
    versions = [
        key.removeprefix(f"{name}/") for key in store.keys("releases") if key.startswith(f"{name}/")
    ]
    return sorted(versions, key=semver.precedence, reverse=True)
