"""The release directories of another revision of this project, from DVC's cache or remote."""

import sys
from pathlib import Path

from pipeline import processes
from pipeline.errors import RegistryError


def fetch(project: Path, revision: str, target: str, to: Path) -> Path | None:
    """Put ``models/release/TARGET`` as of a revision at ``to``; None where it had none.

    Raises:
        RegistryError: the revision is not known, or DVC cannot get its data.
    """
    lock = processes.git(project, "show", f"{revision}:./dvc.lock")
    if lock.returncode and "exists on disk, but not in" not in lock.stderr:
        known = processes.git(project, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}")
        if known.returncode:
            raise RegistryError(f"revision {revision!r} is not known; fetch it, or name another")
    if f"register@{target}:" not in lock.stdout:
        return None
    # a project may be one folder of a larger repository, of which DVC wants the whole
    place = processes.git(project, "rev-parse", "--show-cdup", "--show-prefix")
    up, inside, *_ = place.stdout.split("\n")
    out = f"{inside}models/release/{target}"
    options = ["--rev", revision, "-o", str(to.absolute())]
    done = processes.run([sys.executable, "-m", "dvc", "get", up or ".", out, *options], project)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = " ".join((said or [done.stderr])[0].removeprefix("ERROR: ").split())[:300]
        raise RegistryError(
            f"models/release/{target} of {revision} cannot be got: {reason}; dvc push it from "
            "where it was built, or name another revision"
        )
    return to
