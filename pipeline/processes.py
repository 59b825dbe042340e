"""Other programs in processes of their own; what they say comes back as text, not on a screen."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError


def run(
    arguments: Sequence[str],
    folder: Path,
    limit: tuple[float, PipelineError] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a folder to its end, whatever its exit code.

    Args:
        arguments: the program and what it gets; no shell reads them.
        folder: where it runs.
        limit: after so many seconds it is killed, and the error raised.

    Raises:
        FileNotFoundError: there is no such program.
    """
    time_limit_s, too_long = limit or (None, None)
    try:
        return subprocess.run(
            arguments,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        assert too_long is not None  # no limit, no end of it
        raise too_long from error


def git(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a project.

    Raises:
        FileNotFoundError: git is not installed.
    """
    return run(["git", *arguments], project)
