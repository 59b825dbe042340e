"""Read the small files by which the kernel tells what a sensor says."""

from __future__ import annotations

from pathlib import Path

from pipeline.runtimes.errors import RunnerError

ROOT = Path("/sys")


def text(path: Path) -> str:
    """Return what a file holds, without its line end.

    Raises:
        RunnerError: it cannot be read.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise RunnerError(
            "%s may be read by root alone; let an administrator make it readable, run as root, or "
            "take another meter" % path
        ) from error
    except OSError as error:
        raise RunnerError("%s cannot be read: %s" % (path, error.strerror)) from error


def number(path: Path) -> int:
    """Return the whole number that a file holds.

    Raises:
        RunnerError: it cannot be read, or holds none.
    """
    found = text(path)
    try:
        return int(found)
    except ValueError as error:
        raise RunnerError("%s holds no number, got %r" % (path, found[:40])) from error
