"""`slipway ...`: each command reads its options, calls one function, and says what came of it.

Heavy rooms are imported inside the commands, so that `slipway --help` answers at once.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import cli_compare, cli_profile, cli_runner, cli_targets, console
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.params import Params
    from pipeline.registry.store import DirectoryStore
    from pipeline.reporting.answer import Answer
    from pipeline.reporting.evidence import Sources
    from pipeline.reporting.report import Report

app = typer.Typer(
    help="One neural network in, the best measured artifact for every target out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
registry_app = typer.Typer(help="Look at a registry.", no_args_is_help=True)
inputs_app = typer.Typer(help="Inputs from outside the project.", no_args_is_help=True)
device_app = typer.Typer(help="What is done on the device itself.", no_args_is_help=True)
app.add_typer(registry_app, name="registry")
app.add_typer(inputs_app, name="inputs")
app.add_typer(device_app, name="device")
app.add_typer(cli_targets.app, name="targets")
app.add_typer(cli_runner.app, name="runner")

EXIT_NOTHING_SHIPS = 3
CHECK_LIMIT_S = 600.0

Project = Annotated[Path, typer.Option(help="The project's folder.")]
RegistryPath = Annotated[
    Path, typer.Option("--registry", envvar="SLIPWAY_REGISTRY", help="The registry's folder.")
]
Target = Annotated[
    str, typer.Option("--target", help="A target id, as `registry show` lists them.")
]
Version = Annotated[str | None, typer.Option("--version", help="Default: the newest.")]


def main() -> None:
    """Run the command line; a `PipelineError` is its one line and exit 2."""
    try:
        app()
    except PipelineError as error:
        if "SLIPWAY_DEBUG" in os.environ:
            raise
        console.fail(str(error))


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show traces of errors.")] = False,
) -> None:
    if debug:
        os.environ["SLIPWAY_DEBUG"] = "1"


DEFAULT_TARGETS = "x86-onnxruntime,x86-litert"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project to write.")],
    onnx: Annotated[Path | None, typer.Option(help="A trained model to start from.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A .npz, a folder or archive of images, or fsdd's archive.")
    ] = None,
    targets: Annotated[
        str, typer.Option(help="Ids separated by commas, or `all`.")
    ] = DEFAULT_TARGETS,
) -> None:
    """Write a project of your own: params.yaml, dvc.yaml, thin stages that run this wheel."""
    import shlex
    import sys

    from pipeline import processes
    from pipeline.project import init as projects

    request = projects.Request(
        folder, onnx, data, tuple(name.strip() for name in targets.split(",") if name.strip())
    )
    for line in projects.write(request):
        console.terminal.print(line, markup=False)
    # a process of its own, since paths in params.yaml are read from the project's folder
    too_long = PipelineError(f"the check of {folder} took too long; run slipway check there")
    command = [sys.executable, "-m", "pipeline.cli", "check"]
    checked = processes.run(command, folder, (CHECK_LIMIT_S, too_long))
    if checked.returncode not in (0, console.EXIT_BAD_INPUT):
        last = (checked.stderr.strip().splitlines() or ["no message"])[-1]
        raise PipelineError(
            f"{folder} is written, and slipway check fails there ({checked.returncode}): {last}"
        )
    for line in checked.stderr.splitlines() if checked.returncode else ():
        console.terminal.print(f"Mend before you run: {line}", markup=False)
    console.terminal.print(checked.stdout, end="", markup=False)
    place = shlex.quote(str(folder))
    console.terminal.print(f"Wrote {folder}/.  Next:  cd {place} && make run", markup=False)


@app.command("schema")
def show_schema() -> None:
    """Print the JSON schema of params.yaml, for editors."""
    from pipeline.project import schema

    typer.echo(schema.schema().decode(), nl=False)


@app.command()
def check(project: Project = Path()) -> None:
    """Find every problem of params.yaml, data, factories and tools before anything runs."""
    from pipeline import check as checks
    from pipeline import params
    from pipeline.targets import tools

    found = checks.examine(project / params.FILE_NAME, tools.environments_path())
    for line in found.problems:
        typer.echo(line, err=True)
    if found.params is None or found.problems:
        raise typer.Exit(console.EXIT_BAD_INPUT)
    for line in found.remarks:
        console.say("check", line)
    console.say("check", f"params.yaml, data, {len(found.params.targets)} targets: ok")


@app.command()
def doctor(
    brief: Annotated[bool, typer.Option("--brief", help="One line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Project = Path(),
) -> None:
    """Show every toolchain: its version, or the command that installs it."""
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from pipeline import files, params
    from pipeline.targets import tools

    rows = tools.doctor(params.load(project / params.FILE_NAME), tools.environments_path())
    if as_json:
        typer.echo(files.encode_json([asdict(row) for row in rows]).decode(), nl=False)
        return
    if brief:
        console.say(
            "", "   ".join(f"{row.tool} {row.version or 'absent'}" for row in rows if row.used_by)
        )
        return
    table = Table("tool", "version", "environment", "used by", "to install it", box=None)
    for row in rows:
        used_by = ", ".join(row.used_by) or "no target"
        remedy = escape(row.remedy or "")  # 'slipway[build]' is no markup
        table.add_row(row.tool, row.version or "absent", row.environment, used_by, remedy)
    console.terminal.print(table)


@app.command()
def report(project: Project = Path()) -> None:
    """Write models/report/, show what ships; exit 3: nothing can, 2: a required one cannot."""
    from rich.markup import escape
    from rich.table import Table

    from pipeline import params
    from pipeline.reporting import report as reports

    p = params.load(project / params.FILE_NAME)
    made = _gather(project, p)
    reports.write(made, project / "models/report", _sources(project, p))
    table = Table(*reports.header(made.answers), box=None, pad_edge=False)
    for row in reports.ships_table(made.answers):
        table.add_row(*(escape(cell) for cell in row))
    console.terminal.print("\nWhat ships", style="bold")
    console.terminal.print(table)
    _say_next(made)
    _exit_code(made, p)


def _say_next(made: "Report") -> None:
    from pipeline.reporting import words

    console.terminal.print()
    for answer in made.answers:
        console.terminal.print(words.headline(answer), markup=False)
    shipped = [a.target for a in made.answers if a.artifact and a.artifact.kind != "built"]
    target = (shipped or [answer.target for answer in made.answers])[0]
    console.terminal.print(f"\nWhy, next best, what would change it:  slipway explain {target}")
    console.terminal.print("Report:                                models/report/report.html")
    if shipped:
        get = f"slipway pull {made.model} --target {target} --to ./model"
        console.terminal.print(f"Get one:                               {get}")


def _exit_code(made: "Report", p: "Params") -> None:
    ships = {answer.target for answer in made.answers if answer.status == "ships"}
    if not ships:
        typer.echo("no target can ship; see models/report/report.md", err=True)
        raise typer.Exit(EXIT_NOTHING_SHIPS)
    missing = [name for name, t in p.targets.items() if t.required and name not in ships]
    if missing:
        typer.echo(f"required targets do not ship: {', '.join(missing)}", err=True)
        raise typer.Exit(console.EXIT_BAD_INPUT)


def _gather(project: Path, p: "Params") -> "Report":
    """Collect every target's answer; one whose chain failed half-way says so."""
    import json

    from pipeline.reporting import across
    from pipeline.reporting.report import Report

    metrics = sorted((project / "models/metrics").glob("*.json"))
    answers = tuple(_answers(project, list(p.targets)))
    profiled, converted = (
        {target: project / "models" / room / target for target in p.targets}
        for room in ("profiled", "converted")
    )
    return Report(
        model=p.model,
        answers=answers,
        agreements=across.gather(
            answers, profiled, converted, has_classes=p.task.kind in across.TASKS_WITH_CLASSES
        ),
        stages={path.stem: json.loads(path.read_text(encoding="utf-8")) for path in metrics},
    )


def _sources(project: Path, p: "Params") -> "Sources":
    """Say where the report finds what lies behind the answers."""
    from pipeline import manifest
    from pipeline.reporting.evidence import Sources
    from pipeline.targets import hardware

    models = project / "models"
    places = ("*", *(f"*/{target}" for target in p.targets))
    described = [
        path for place in places for path in sorted(models.glob(f"{place}/{manifest.FILE_NAME}"))
    ]
    return Sources(
        profiled={target: models / "profiled" / target for target in p.targets},
        quantized=models / "quantized",
        curves=models / "training/plots/metrics",
        manifests=[path.parent for path in described],
        targets=p.targets,
        hardware={
            target: hardware.find(cfg.hardware, project)
            for target, cfg in p.targets.items()
            if cfg.hardware is not None
        },
        exported=models / "exported",
    )


def _answers(project: Path, targets: list[str]) -> "Iterator[Answer]":
    from pipeline.registry import lock
    from pipeline.reporting import answer

    for target, reason in lock.stale_targets(targets, project).items():
        absent = reason or _absent_outs(project, target)
        if absent is not None:
            yield answer.failed(target, absent)
            continue
        rooms = (project / "models" / r / target for r in ("selected", "certified", "profiled"))
        yield answer.gather(target, *rooms)


def _absent_outs(project: Path, target: str) -> str | None:
    """Say which outs the answer needs and are not on disk, as after ``dvc pull register``."""
    from pipeline import manifest

    for stage, room in (("select", "selected"), ("certify", "certified"), ("profile", "profiled")):
        if not (project / "models" / room / target / manifest.FILE_NAME).is_file():
            remedy = f"run dvc checkout, or dvc pull {stage}@{target}"
            return f"models/{room}/{target} is not here; {remedy}"
    return None


@app.command()
def explain(target: str, project: Project = Path()) -> None:
    """Say why a target gets its artifact, what comes next, and what would change it."""
    from pipeline import params
    from pipeline.reporting import words

    p = params.load(project / params.FILE_NAME)
    _known_target(target, list(p.targets))
    (answer,) = _answers(project, [target])
    headline, *reasons = words.explain(answer)
    console.terminal.print(headline, markup=False)
    for reason in reasons:
        console.terminal.print(f"  {reason}", markup=False)


def _known_target(target: str, known: list[str]) -> None:
    if target not in known:
        raise PipelineError(f"target {target!r} is not known; known: {', '.join(known)}")


app.command()(cli_profile.profile)
app.command()(cli_compare.compare)
app.command()(cli_compare.gate)
app.command()(cli_compare.diff)


@app.command()
def publish(
    version: Annotated[
        str | None, typer.Option("--version", help="X.Y.Z; needs a clean tree.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="NAME@vX.Y.Z, in place of --version.")] = None,
    project: Project = Path(),
    registry: RegistryPath = Path("registry"),
) -> None:
    """Put what `register` wrote into the registry, as one release."""
    from pipeline import params
    from pipeline.registry import publish as publishing
    from pipeline.registry import semver
    from pipeline.registry.store import DirectoryStore

    p = params.load(project / params.FILE_NAME)
    version = version or (semver.of_tag(tag, p.model) if tag else None)
    releases = {name: project / "models/release" / name for name in p.targets}
    store = DirectoryStore(registry)
    known = store.keys("releases")
    release = publishing.publish(project, store, version, releases)
    if f"{release.name}/{release.version}" in known:
        done = f"is in {registry}/ already with these bytes; nothing to do"
    else:
        done = f"-> {registry}/ (unsigned)"
    console.say("publish", f"{release.name} {release.version} {done}")
    for target, part in release.targets.items():
        if part.unproven:
            console.say("publish", f"{target} is unproven: a pull of it needs --unproven")
    for target, reason in release.skipped.items():
        console.say("publish", f"without {target}: {reason}")


@app.command()
def pull(
    name: str,
    target: Target,
    to: Annotated[Path, typer.Option("--to", help="A folder that does not exist yet.")],
    version: Version = None,
    registry: RegistryPath = Path("registry"),
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Also what was built and never ran.")
    ] = False,
) -> None:
    """Fetch a target's artifact; every byte is verified before the folder appears."""
    from pipeline.registry import resolve

    store = _existing(registry)
    release = resolve.pull(store, name, target, version, to, accept_unproven=unproven)
    trust = "verified; unsigned" + ("; unproven" if release.targets[target].unproven else "")
    console.say("pull", f"{name} {release.version} for {target} -> {to}/ ({trust})")


@app.command()
def run(
    artifact: Annotated[Path, typer.Argument(help="What `pull` made.")],
    samples: Annotated[
        Path, typer.Argument(metavar="INPUT", help="npz of raw `inputs`, wav, image.")
    ],
    runtime: Annotated[str | None, typer.Option(help="Default: what it was measured with.")] = None,
) -> None:
    """Run an artifact on samples with its own preprocessing and print the top classes."""
    from pipeline.device import run as running

    with console.quiet_libraries(console.LOG_PATH / "run.log"):
        classified = list(running.classify(artifact, samples, runtime))
    for index, found in enumerate(classified):
        classes = "  ".join(f"{label} {score:.4f}" for label, score in found)
        typer.echo(f"{index}\t{classes}")


def _existing(registry: Path) -> "DirectoryStore":
    from pipeline.errors import RegistryError
    from pipeline.registry.store import DirectoryStore

    if not registry.is_dir():
        raise RegistryError(f"registry {registry} is no folder; slipway publish makes one")
    return DirectoryStore(registry)


@registry_app.command("list")
def list_releases(registry: RegistryPath = Path("registry")) -> None:
    """List every release, newest last."""
    from pipeline.registry import resolve

    for release in resolve.releases(_existing(registry)):
        typer.echo(f"{release.name} {release.version} {', '.join(sorted(release.targets))}")


@registry_app.command("show")
def show_release(
    name: str, version: Version = None, registry: RegistryPath = Path("registry")
) -> None:
    """Show one release: lineage, targets, figures; and that it is unsigned."""
    from pipeline import files
    from pipeline.registry import resolve

    release = resolve.find(_existing(registry), name, version)
    typer.echo(files.encode_json(release).decode(), nl=False)
    typer.echo("signed: no (no keys yet); trust this registry only as far as its storage", err=True)


@registry_app.command("resolve")
def resolve_artifact(
    name: str, target: Target, version: Version = None, registry: RegistryPath = Path("registry")
) -> None:
    """Print the version and manifest digest that a pull would fetch."""
    from pipeline.registry import resolve

    release, artifact = resolve.resolve(_existing(registry), name, target, version)
    typer.echo(f"{release.name} {release.version} {target} {artifact.manifest}")


@registry_app.command("verify")
def verify_registry(registry: RegistryPath = Path("registry")) -> None:
    """Hash every blob again and check every reference; exit 2 when something is wrong."""
    from pipeline.registry import resolve

    problems = resolve.verify(_existing(registry))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(console.EXIT_BAD_INPUT)
    console.say("verify", "every blob and reference is as published")


@device_app.command("build")
def build_engine(
    artifact: Annotated[Path, typer.Argument(help="A build bundle, as `pull` made it.")],
    to: Annotated[Path, typer.Option("--to", help="A folder that does not exist yet.")],
    caches: Annotated[
        Path | None, typer.Option("--timing-caches", help="Default: ~/.cache/slipway.")
    ] = None,
) -> None:
    """Build a bundle's engine with this device's own TensorRT, as its recipe says."""
    from pipeline.device import build as building

    building.build(artifact, to, caches=caches or building.default_caches())
    console.say("device", f"{artifact} -> {to}/ (built, not measured)")


@inputs_app.command("lock")
def lock_inputs(project: Project = Path()) -> None:
    """Pin the data, checkpoint and factory named in params.yaml by their digests."""
    from pipeline import inputs, params

    for key, digest in inputs.lock(project / params.FILE_NAME).items():
        console.say("inputs", f"{key}: {digest}")


if __name__ == "__main__":
    main()
