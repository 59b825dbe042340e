"""Where the source file of the user's factory lies, found without running any of its code."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.errors import NetError


def find(factory: str) -> Path:
    """Return the source file of ``package.module:function``; the working directory goes first.

    No module is imported, so that a file can be compared with its pin before it runs.
    """
    name = factory.partition(":")[0]
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), search) if search else None
        search = list(spec.submodule_search_locations or ()) if spec else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise NetError(
            f"net.factory {factory!r}: there is no module {name!r} in {Path.cwd().name}/ or among "
            "the installed packages; run from the project's folder, or mend params.yaml"
        )
    return Path(spec.origin)
