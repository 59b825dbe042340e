"""Write a project of the user's own: params.yaml, dvc.yaml, thin stages, nothing of ours copied.

The folder appears complete or not at all.
"""

import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline import inputs, params, processes
from pipeline.errors import InputsError, PipelineError
from pipeline.project import chain, data, schema, settings

ONNX_NAME = "model.onnx"
LIMIT_S = 120.0  # for git and dvc to make their folders
COPIED = {"Makefile": "Makefile", "gitignore": ".gitignore", "dvcignore": ".dvcignore"}


@dataclass(frozen=True)
class Request:
    """What the user asked for; ``onnx`` None trains a net, ``data`` None takes what is at hand."""

    folder: Path
    onnx: Path | None
    data: Path | None
    targets: tuple[str, ...]


def write(request: Request) -> list[str]:
    """Write the project and return the lines that say what was found.

    Raises:
        PipelineError: an input cannot be used, or the folder is there already; nothing is written.
    """
    folder = request.folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputsError(f"{request.folder} exists already; name a folder that does not")
    name = _model_name(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # a sibling, so that relative paths in params.yaml mean the same here and there
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputsError(
            f"{request.folder} cannot be made: {error.strerror}; name a folder that you may write"
        ) from error
    try:
        sections, lines = _sections(request, name, draft)
        _write_files(draft, name, sections, from_onnx=request.onnx is not None)
        inputs.lock(draft / params.FILE_NAME)
        _start_dvc(draft, inside_git=_is_inside_git(folder.parent))
        draft.chmod(0o755)  # mkdtemp's is for its owner alone
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # it holds the project
                parent.rmdir()
    return lines


def _model_name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.name.lower()).strip("-_")
    if not params.NAME.fullmatch(name):
        raise InputsError(f"{folder.name!r} gives no name for the model; use letters and digits")
    return name


def _sections(request: Request, name: str, draft: Path) -> tuple[dict[str, Any], list[str]]:
    """Choose every section of params.yaml by what the ONNX file and the data are."""
    lines = []
    if request.onnx is None:
        sections = settings.trained()
        source = data.of_training(request.data, draft)
        if source.section["source"] == "fsdd":
            sections["net"] = settings.speech()["net"]
    else:
        from pipeline.conversion import from_onnx

        described = from_onnx.describe(request.onnx)
        lines.append(f"{request.onnx.name}: {described.line()}")
        # one file, also where the weights lie beside it
        (draft / ONNX_NAME).write_bytes(from_onnx.inlined(request.onnx))
        sections = settings.adopted(ONNX_NAME)
        source = data.of_onnx(described.signature, request.data, draft)
    if source.is_labelled and request.onnx is not None:
        sections["task"] = {"kind": "classification", "metric": "accuracy"}
    lines.append(source.line)
    targets = settings.targets(request.targets)
    settings.lower_calibration(sections, targets, source.num_calibration)
    return {"model": name, "data": source.section, **sections, "targets": targets}, lines


def _write_files(draft: Path, name: str, sections: dict[str, Any], *, from_onnx: bool) -> None:
    template = resources.files("pipeline.project") / "template"
    for source, target in COPIED.items():
        (draft / target).write_bytes((template / source).read_bytes())
    readme = (template / "README.md").read_text(encoding="utf-8")
    first = next(iter(sections["targets"]))
    _write(draft / "README.md", readme.format(name=name, target=first))
    _write(draft / params.FILE_NAME, settings.text(sections, schema.FILE_NAME))
    (draft / schema.FILE_NAME).write_bytes(schema.schema())
    _write(draft / "dvc.yaml", chain.dvc_yaml(from_onnx=from_onnx))
    _write(draft / "stages/__init__.py", '"""One thin file a DVC stage."""\n')
    for stage in chain.stage_names(from_onnx=from_onnx):
        _write(draft / f"stages/{stage}.py", chain.stage_module(stage))
    workflow = template / "build.yml"
    _write(draft / ".github/workflows/build.yml", workflow.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _is_inside_git(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in (folder, *folder.parents))


def _start_dvc(draft: Path, *, inside_git: bool) -> None:
    """Let git and dvc make their own folders."""
    if not inside_git:
        _run(["git", "init", "-q", "-b", "main"], draft)
    # `--subdir`: a project may be one folder of a larger repository
    _run([sys.executable, "-m", "dvc", "init", "-q", *(["--subdir"] if inside_git else [])], draft)
    if inside_git:
        # dvc stages its files, under the draft's name, in an index that is the user's
        _run(["git", "reset", "-q", "--", "."], draft)
    _run([sys.executable, "-m", "dvc", "config", "core.analytics", "false"], draft)


def _run(command: list[str], folder: Path) -> None:
    try:
        too_long = PipelineError(
            f"{' '.join(command[:4])} took longer than {LIMIT_S:g} s; try again"
        )
        done = processes.run(command, folder, (LIMIT_S, too_long))
    except FileNotFoundError as error:
        raise PipelineError(f"{command[0]} is not on PATH; install it") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise PipelineError(f"{' '.join(command[:4])} failed in {folder.name}: {said}")
