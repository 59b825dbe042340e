"""Put what the targets' `register` wrote into a registry, as one release.

Reads   dvc.lock, params.yaml and the sources it names; each target's release directory; git
Writes  the store: every file as a blob, then one release document
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline import files, manifest, measurement, params, processes
from pipeline.errors import RegistryError
from pipeline.manifest import File, Manifest
from pipeline.measurement import Measurement
from pipeline.registry import lock, release, semver
from pipeline.registry.release import ARTIFACT, Figures, Heading, Part, Release
from pipeline.registry.store import Store

DESCRIPTION = "release.json"


class _Commit(msgspec.Struct, frozen=True):
    """Where the sources stand; ``reason`` says why there is no commit."""

    commit: str | None
    dirty: bool
    reason: str = ""


class _Description(msgspec.Struct, frozen=True):
    """What `register` says of a target, as far as a release needs it."""

    shipped: bool
    reason: str | None = None
    candidate: str | None = None
    variant: str | None = None
    precision: str | None = None


class _Gathered(msgspec.Struct):
    """The targets' release directories, read and verified."""

    parts: dict[str, Part] = {}
    skipped: dict[str, str] = {}
    models: set[str] = set()


def publish(project: Path, store: Store, version: str | None, releases: dict[str, Path]) -> Release:
    """Publish one release and return it; the same content again returns the one that exists.

    What is returned says in ``skipped`` what was left out this time, also when it was no news.

    Killed at any moment it leaves the whole release or none, and any number may publish at once.
    An explicit version may give published content a further name.

    Args:
        project: the folder of dvc.lock and params.yaml.
        store: the registry.
        version: a semantic version; None stands for the version that this content has already, or
            ``0.0.0+`` and 12 digits of the content's digest.
        releases: each target's release directory (``models/release/T``). Those that are missing,
            older than their sources or without an artifact are left out; ``skipped`` says why.

    Raises:
        RegistryError: nothing can be published; or the version is not one, is taken by other
            content, or is explicit and the git tree is not clean.
        DigestMismatchError: a release directory differs from its manifest.
    """
    git = _commit(project)
    if version is not None:
        semver.check(version)
        _require_clean(git, version)
    gathered = _gather(project, releases)
    name = _name(gathered)
    digest = release.digest_of(gathered.parts)
    known = [release.read_heading(store, name, v) for v in release.newest_first(store, name)]
    chosen = version or _published(known, digest) or f"0.0.0+{digest.removeprefix('sha256:')[:12]}"
    wanted = Release(
        name=name,
        version=chosen,
        sequence=1 + max((found.sequence for found in known), default=0),
        digest=digest,
        commit=git.commit,
        dirty=git.dirty,
        lock_digest=files.digest_file(project / lock.FILE_NAME),
        targets=gathered.parts,
        skipped=gathered.skipped,
    )
    _refuse_other(known, wanted)
    for target, part in gathered.parts.items():
        _put(store, releases[target], part)
    return msgspec.structs.replace(_put_document(store, wanted), skipped=gathered.skipped)


def _gather(project: Path, releases: dict[str, Path]) -> _Gathered:
    """Read every target; raises when none is left to publish."""
    gathered = _Gathered()
    for target, stale in lock.stale_targets(releases, project).items():
        if stale is not None:
            gathered.skipped[target] = stale
            continue
        described = manifest.verify(releases[target])
        part = _part(releases[target], target, described)
        if isinstance(part, str):
            gathered.skipped[target] = part
        else:
            gathered.parts[target] = part
            gathered.models.add(described.model)
    if not gathered.parts:
        reasons = "; ".join(f"{t}: {reason}" for t, reason in sorted(gathered.skipped.items()))
        raise RegistryError(f"there is nothing to publish: {reasons or 'no target was given'}")
    return gathered


def _part(directory: Path, target: str, described: Manifest) -> Part | str:
    """Describe one verified release directory, or say why it ships nothing."""
    description = _describe(directory)
    if not description.shipped:
        return description.reason or "nothing was selected"
    measured = measurement.read(directory / measurement.FILE_NAME)
    if {described.target, measured.target} - {None} != {target}:
        raise RegistryError(
            f"{directory} was made for {described.target} and measured on {measured.target}, "
            f"not for {target}; {lock.REPRO}"
        )
    content = (directory / release.ARTIFACT_MANIFEST).read_bytes()
    if measured.artifact != files.digest_bytes(content):
        raise RegistryError(
            f"{directory}: the measurement is of the artifact {measured.artifact[:19]}.., "
            f"{ARTIFACT}/ is {files.digest_bytes(content)[:19]}..; {lock.REPRO}"
        )
    top = (directory / manifest.FILE_NAME).read_bytes()
    part = Part(
        candidate=description.candidate or measured.candidate,
        variant=description.variant or "",
        precision=description.precision or "",
        kind=measured.kind,
        unproven=measured.kind == "built",
        manifest=measured.artifact,
        files=described.files
        | {manifest.FILE_NAME: File(digest=files.digest_bytes(top), size_bytes=len(top))},
        figures=_figures(measured),
    )
    release.check_part(part, str(directory))
    release.check_artifact(part, content, str(directory))
    return part


def _describe(directory: Path) -> _Description:
    path = directory / DESCRIPTION
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Description)
    except (OSError, msgspec.MsgspecError) as error:
        raise RegistryError(f"{path} cannot be read: {error}; {lock.REPRO}") from error


def _figures(measured: Measurement) -> Figures:
    quality, drop, ratio = measured.quality, measured.drop, measured.latency_ratio
    return Figures(
        latency_p50_ms=measured.latency_ms.p50,
        latency_ratio=ratio.value if ratio else None,
        size_bytes=measured.size_bytes,
        peak_memory_bytes=measured.peak_memory_bytes,
        quality_metric=quality.metric if quality else None,
        quality_unit=quality.unit if quality else None,
        quality=quality.value if quality else None,
        quality_half_width=quality.half_width if quality else None,
        drop=drop.value if drop else None,
        drop_upper=drop.upper if drop else None,
    )


def _name(gathered: _Gathered) -> str:
    name, *others = sorted(gathered.models)
    if others:
        raise RegistryError(
            f"the targets are of several models: {', '.join([name, *others])}; {lock.REPRO}"
        )
    if not params.NAME.fullmatch(name):
        raise RegistryError(f"model must match {params.NAME.pattern}, got {name!r} (params.yaml)")
    return name


def _published(known: list[Heading], digest: str) -> str | None:
    """Return the version under which the content is published, the latest of several."""
    same = [found for found in known if found.digest == digest]
    return max(same, key=lambda found: found.sequence).version if same else None


def _refuse_other(known: Sequence[Heading | Release], wanted: Release) -> None:
    for found in known:
        if found.version == wanted.version and found.digest != wanted.digest:
            raise RegistryError(
                f"{wanted.name} {wanted.version} is published with other content "
                f"({found.digest[:19]}.., this is {wanted.digest[:19]}..); choose another version"
            )


def _put(store: Store, directory: Path, part: Part) -> None:
    """Put each file, and refuse one that changed since it was verified."""
    for name, file in part.files.items():
        if store.put_blob(directory / name) != file.digest:
            raise RegistryError(f"{directory / name} changed while it was published; publish again")


def _put_document(store: Store, wanted: Release) -> Release:
    """Write the document, or return the equal one that is there already."""
    key = f"{wanted.name}/{wanted.version}"
    if store.publish_document(key, files.encode_json(wanted)):
        return wanted
    found = release.read(store, wanted.name, wanted.version)
    assert found is not None, "documents are written once and never removed"
    _refuse_other([found], wanted)
    return found


def _commit(project: Path) -> _Commit:
    try:
        head = processes.git(project, "rev-parse", "--verify", "HEAD")
        status = processes.git(project, "status", "--porcelain")
    except FileNotFoundError:
        return _Commit(commit=None, dirty=True, reason="git is not installed")
    for done in (head, status):
        if done.returncode:
            said = done.stderr.strip().splitlines()
            return _Commit(commit=None, dirty=True, reason=said[0] if said else "git failed")
    return _Commit(commit=head.stdout.strip(), dirty=bool(status.stdout))


def _require_clean(git: _Commit, version: str) -> None:
    if git.commit is None:
        raise RegistryError(
            f"version {version} needs a git commit to name as its source: {git.reason}; "
            "commit first, or leave out --version"
        )
    if git.dirty:
        raise RegistryError(
            f"version {version} needs a clean git tree, this one differs from {git.commit[:12]}; "
            "commit (git status lists what), or leave out --version"
        )
