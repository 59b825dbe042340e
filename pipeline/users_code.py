"""The user's own functions, ``package.module:function`` in params.yaml: found, compared, imported.

A function's source file is found without running any code, so that it can be compared with its pin
before it runs. Whatever the user's code raises becomes one line of the caller's error.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast

from pipeline import files
from pipeline.errors import PipelineError


def find(key: str, function: str, error: type[PipelineError]) -> Path:
    """Return the source file of ``package.module:function``; the working directory goes first.

    Args:
        key: of params.yaml, such as ``net.factory``, for the error's line.
        function: its value.
        error: raised when there is no such module.
    """
    name = function.partition(":")[0]
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), search) if search else None
        search = list(spec.submodule_search_locations or ()) if spec else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise error(
            f"{key} {function!r}: there is no module {name!r} in {Path.cwd().name}/ or among "
            "the installed packages; run from the project's folder, or mend params.yaml"
        )
    return Path(spec.origin)


def load(
    key: str, function: str, digest: str | None, error: type[PipelineError]
) -> Callable[..., Any]:
    """Import the function, after its file was compared with the pin ``KEY_digest``.

    Raises:
        InputsError: the file has other bytes than ``digest`` pins.
        PipelineError: of the type ``error``: there is no such module or function, its import fails,
            or another module of that name is loaded already.
    """
    path = find(key, function, error)
    files.check_pin(path, digest, key, f"{key}_digest")
    name, _, attribute = function.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        with running(f"{key} {function!r}: import of {name}", error):
            module = importlib.import_module(name)
    finally:
        sys.path.remove(str(Path.cwd()))
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise error(
            f"{key} {function!r}: another module {name!r} is loaded already; rename {path.name}"
        )
    found = getattr(module, attribute, None)
    if not callable(found):
        raise error(
            f"{key} {function!r}: {path.name} has no function {attribute!r}; mend params.yaml"
        )
    return cast("Callable[..., Any]", found)


@contextmanager
def running(what: str, error: type[PipelineError]) -> Iterator[None]:
    """Turn whatever the user's code raises into one line; the cause keeps its trace."""
    try:
        yield
    except (Exception, SystemExit) as raised:
        reason = " ".join(str(raised).split())
        raise error(f"{what} failed: {type(raised).__name__}: {reason}; mend it") from raised
