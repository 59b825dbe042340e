"""`slipway runner ...`: the program on a device that loads a model and runs it, ours or another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import console
from pipeline.errors import InputsError, ParamsError

if TYPE_CHECKING:
    from pipeline.transports.base import Transport
    from pipeline.transports.conformance.cases import Row
    from pipeline.transports.conformance.subject import Own

app = typer.Typer(help="Runners: programs that measure on a device.", no_args_is_help=True)

EXIT_NOT_CONFORMING = 4


@app.command("check")
def check_runner(
    target: Annotated[
        str | None, typer.Option("--target", help="Whose connection or environment.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option("--program", help="A runner on this computer, in place of that.")
    ] = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="Default: the target's.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Of your own; its numbers are not checked.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="npz of `inputs` that it takes as they are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Annotated[Path, typer.Option("--project", help="The project's folder.")] = Path(),
) -> None:
    """Hold a runner against docs/runner-protocol.md; exit 4 when it does otherwise."""
    from dataclasses import asdict

    from pipeline import files
    from pipeline.transports.conformance import cases

    transport, runtime = _transport(target, program, runtime, project)
    with console.track("runner", len(cases.CASES)) as step:
        rows = []
        for row in cases.check(transport, runtime, _own(model, data)):
            step(row.case)
            rows.append(row)
    if as_json:
        typer.echo(files.encode_json([asdict(row) for row in rows]).decode(), nl=False)
    else:
        _show(rows, f"{transport.where}, {runtime}")
    if not all(row.passed for row in rows):
        raise typer.Exit(EXIT_NOT_CONFORMING)


@app.command("write")
def write_runner(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Such as slipway-runner.pyz.")],
) -> None:
    """Write our own runner as one file, for a device that you reach yourself."""
    from pipeline.transports import runner_zip

    if path.is_dir():
        raise InputsError(f"{path} is a folder; name the file, such as {path}/{runner_zip.NAME}")
    path.parent.mkdir(parents=True, exist_ok=True)
    runner_zip.write(path)
    console.say("runner", f"{path}: {path.stat().st_size} bytes; try: python3 {path.name} describe")


def _transport(
    target: str | None, program: Path | None, runtime: str | None, project: Path
) -> "tuple[Transport, str]":
    """Return the way to the runner, and which of its runtimes is asked for.

    Raises:
        ParamsError: the options name none, or two; or no such target or runtime.
        InputsError: no such program.
    """
    from pipeline import params
    from pipeline.runtimes.runner import RUNTIMES
    from pipeline.targets import tools
    from pipeline.transports import choose
    from pipeline.transports.base import Local

    if (target is None) == (program is None):
        raise ParamsError("give either --target of params.yaml, or --program")
    known = ", ".join(RUNTIMES)
    if runtime is not None and runtime not in RUNTIMES:
        raise ParamsError(f"runtime {runtime!r} is not known; known: {known}")
    if program is not None:
        if runtime is None:
            raise ParamsError(f"give --runtime, one of {known}")
        if not program.is_file():
            raise InputsError(f"{program} is no file; --program takes a runner on this computer")
        command = (str(program.absolute()),)
        return Local(str(program), command, Path.cwd(), ours=False), runtime
    targets = params.load(project / params.FILE_NAME).targets
    if target not in targets:
        raise ParamsError(f"target {target!r} is not known; known: {', '.join(targets)}")
    found = targets[target]
    return choose.of(found, tools.environments_path()), runtime or found.runtime


def _own(model: Path | None, data: Path | None) -> "Own | None":
    """Return the user's own model and samples, None without them.

    Raises:
        InputsError: one of the two is missing, or holds no samples.
    """
    import zipfile

    from pipeline.runtimes import mapped
    from pipeline.transports.conformance.subject import Own

    if model is None and data is None:
        return None
    if model is None or data is None:
        raise InputsError("give --model and --data together")
    if not model.is_file():
        raise InputsError(f"{model} is no file")
    try:
        inputs = mapped.arrays(str(data)).get("inputs")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputsError(f"{data} cannot be read: {error}; give an uncompressed npz") from error
    if inputs is None or not len(inputs):
        raise InputsError(f"{data} holds no array `inputs` with samples")
    return Own(model.absolute(), inputs)


def _show(rows: "list[Row]", where: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("case", "", "expected", "found", box=None, pad_edge=False)
    for row in rows:
        said = "ok" if row.passed else "FAILS"
        table.add_row(row.case, said, row.expected, "" if row.passed else escape(row.found))
    console.terminal.print(table)
    num_failed = sum(not row.passed for row in rows)
    verdict = f"{num_failed} fail" if num_failed else "all pass"
    console.say("runner", f"{where}: {len(rows)} cases, {verdict}")
