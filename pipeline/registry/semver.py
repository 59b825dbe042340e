"""Semantic versions: which strings are one, and which of two comes later (semver.org 2.0.0)."""

import re

from pipeline.errors import RegistryError

# The expression that semver.org suggests (FAQ, "Is there a suggested regular expression"), with its
# named groups; ASCII because Python's \d would also take digits of other scripts.
_VERSION = re.compile(
    r"(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<prerelease>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
# A version is also a file name (255 bytes on Linux, less with a prefix and a suffix).
MAX_LENGTH = 128

# Numeric identifiers sort below the others, each kind by its own order (semver.org, 11.4).
_Identifier = tuple[int, int, str]
Precedence = tuple[int, int, int, bool, tuple[_Identifier, ...]]


def is_version(text: str) -> bool:
    """Say whether the text is a semantic version of at most 128 characters."""
    return len(text) <= MAX_LENGTH and _VERSION.fullmatch(text) is not None


def check(text: str) -> None:
    """Refuse what is not a semantic version."""
    if not is_version(text):
        raise RegistryError(
            f"version must be a semantic version such as 1.2.0 or 1.2.0-rc.1, got {text[:80]!r}; "
            "see semver.org"
        )


def precedence(version: str) -> Precedence:
    """Return a key that sorts by precedence (semver.org, 11); build metadata has no part in it."""
    found = _VERSION.fullmatch(version)
    assert found is not None, version
    prerelease = found["prerelease"]
    identifiers = tuple(_identifier(part) for part in prerelease.split(".")) if prerelease else ()
    return (
        int(found["major"]),
        int(found["minor"]),
        int(found["patch"]),
        prerelease is None,
        identifiers,
    )


def _identifier(part: str) -> _Identifier:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


def of_tag(tag: str, name: str) -> str:
    """Return the version of a tag ``NAME@vX.Y.Z``.

    Raises:
        RegistryError: it is no such tag, or another model's.
    """
    model, separator, version = tag.partition("@v")
    if not separator:
        raise RegistryError(f"tag must be NAME@vX.Y.Z, got {tag!r}")
    if model != name:
        raise RegistryError(f"tag {tag!r} is of {model!r}, params.yaml builds {name!r}; retag it")
    check(version)
    return version
