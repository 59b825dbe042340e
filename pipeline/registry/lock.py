"""Whether a target's release is what the sources of now would give, read from dvc.lock alone.

After ``dvc repro --keep-going`` a chain may have stopped half-way, with an older release behind it.
dvc.lock then shows it: a stage was last run with another input than the one its producer recorded.
DVC itself is not imported. What only dvc.yaml knows (a changed command, a new dep) is not seen.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml

from pipeline.errors import RegistryError
from pipeline.files import CHUNK_BYTES, list_files

FILE_NAME = "dvc.lock"
REPRO = "run dvc repro"


class _Entry(msgspec.Struct):
    """A dep or an out: a path below the project and the MD5 of its bytes or (``.dir``) listing."""

    path: str
    md5: str | None = None


class _Stage(msgspec.Struct):
    deps: list[_Entry] = []
    outs: list[_Entry] = []
    params: dict[str, dict[str, Any] | None] = {}


class _Document(msgspec.Struct):
    stages: dict[str, _Stage] = {}


def stale(target: str, project: Path) -> str | None:
    """Say why the target's release is not current, None if it is; see `stale_targets`."""
    return stale_targets([target], project)[target]


def stale_targets(targets: Iterable[str], project: Path) -> dict[str, str | None]:
    """Say for each target why its release is not current: one line, or None.

    Walks from ``register@T`` to the producers of its deps; the reason is the broken link nearest to
    the release. Deps below an out of another stage are compared on disk, and accepted where that
    out is not on disk (after ``dvc pull register`` on a fresh clone). Deps that are plain
    directories are not read.
    """
    path = project / FILE_NAME
    if not path.is_file():
        return dict.fromkeys(targets, f"{FILE_NAME} is missing; {REPRO}")
    lock = _Lock(project, _read(path))
    return {target: lock.stale(target) for target in targets}


class _Lock:
    """dvc.lock with what was already read from disk, because targets share most of their chain."""

    def __init__(self, project: Path, stages: dict[str, _Stage]) -> None:
        self.project = project
        self.stages = stages
        self.producers = {
            out.path: (name, out) for name, stage in stages.items() for out in stage.outs
        }
        self.digests: dict[str, str | None] = {}
        self.documents: dict[str, Any] = {}

    def stale(self, target: str) -> str | None:
        register = f"register@{target}"
        if register not in self.stages:
            return f"{register} is not in {FILE_NAME}; {REPRO}"
        return self._outs_differ(register) or self._chain_differs(register)

    def _outs_differ(self, name: str) -> str | None:
        for out in self.stages[name].outs:
            found = self._md5(out.path)
            if found is None:
                return f"{out.path} is missing; {REPRO}, or dvc pull {name}"
            if found != out.md5:
                return f"{out.path} is not what {name} wrote; run dvc checkout {name}, or dvc repro"
        return None

    def _chain_differs(self, register: str) -> str | None:
        waiting, seen = deque([register]), {register}
        while waiting:
            name = waiting.popleft()
            if reason := self._deps_differ(name) or self._params_differ(name):
                return f"{name}: {reason}; {REPRO}"
            for dep in self.stages[name].deps:
                producer, _ = self._producer(dep.path)
                if producer is not None and producer not in seen:
                    seen.add(producer)
                    waiting.append(producer)
        return None

    def _deps_differ(self, name: str) -> str | None:
        for dep in self.stages[name].deps:
            producer, out = self._producer(dep.path)
            if out is not None and out.path == dep.path:
                if dep.md5 != out.md5:
                    return f"{dep.path} was written by {producer} after {name} last ran"
            elif self._beyond_comparison(dep, out):
                continue
            elif (found := self._md5(dep.path)) is None:
                return f"{dep.path} is missing"
            elif found != dep.md5:
                return f"{dep.path} changed after {name} last ran"
        return None

    def _beyond_comparison(self, dep: _Entry, out: _Entry | None) -> bool:
        if out is None:
            return (self.project / dep.path).is_dir()
        return not (self.project / out.path).exists()

    def _params_differ(self, name: str) -> str | None:
        for file, recorded in self.stages[name].params.items():
            now = self._document(file)
            for key, value in (recorded or {}).items():
                found = _lookup(now, key)
                if found is _ABSENT:
                    return f"{key} is no longer in {file}"
                if found != value:
                    return f"{key} in {file} changed after {name} last ran"
        return None

    def _producer(self, path: str) -> tuple[str, _Entry] | tuple[None, None]:
        """Find the stage whose out is the path or holds it."""
        for candidate in (path, *map(str, PurePosixPath(path).parents)):
            if candidate in self.producers:
                return self.producers[candidate]
        return None, None

    def _document(self, file: str) -> Any:
        if file not in self.documents:
            path = self.project / file
            self.documents[file] = _load_yaml(path) if path.is_file() else {}
        return self.documents[file]

    def _md5(self, relative: str) -> str | None:
        if relative not in self.digests:
            self.digests[relative] = md5(self.project / relative)
        return self.digests[relative]


def md5(path: Path) -> str | None:
    """Return what dvc.lock would record for a file or directory; None if there is none.

    A directory's is the MD5 of DVC's listing of it, as JSON (dvc-data 3, ``hashfile/tree.py``).
    """
    if path.is_file():
        return _md5_file(path)
    if not path.is_dir():
        return None
    entries = [
        {"md5": _md5_file(path / name), "relpath": name} for name in sorted(list_files(path))
    ]
    listing = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(listing, usedforsecurity=False).hexdigest()}.dir"


def _md5_file(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


_ABSENT = object()


def _lookup(document: Any, key: str) -> Any:
    """Follow a dotted key; DVC does not allow a dot inside one part."""
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            return _ABSENT
        document = document[part]
    return document


def _read(path: Path) -> dict[str, _Stage]:
    try:
        return msgspec.convert(_load_yaml(path), _Document).stages
    except msgspec.ValidationError as error:
        raise RegistryError(
            f"{path} is not a lock file of DVC 3: {error}; restore it from git"
        ) from error


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml12Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise RegistryError(
            f"{path} cannot be read: {' '.join(str(error).split())}; restore it from git"
        ) from error


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, as DVC reads and writes them.

    PyYAML follows 1.1, in which the ``1e-05`` that DVC writes for a 0.00001 is a string.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node).replace("_", "")
        # 010 is ten in 1.2; int() takes 0o and 0x only with base 0, which refuses 010
        return int(text, 0) if re.match(r"[-+]?0[xob]", text) else int(text)

    def construct_yaml_float(self, node: Any) -> float:
        return float(self.construct_scalar(node).replace("_", "").lower().replace(".inf", "inf"))


# YAML 1.2.2, section 10.3.2 (core schema), with the underscores that DVC's reader also allows.
for _tag, _expression, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*|[-+]?0o[0-7_]+|[-+]?0x[0-9a-fA-F_]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Yaml12Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_expression})$"), _first
    )
_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _Yaml12Loader.construct_yaml_int)
_Yaml12Loader.add_constructor("tag:yaml.org,2002:float", _Yaml12Loader.construct_yaml_float)
