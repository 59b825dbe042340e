"""`slipway compare`, `gate` and `diff`: is the second artifact, or what ships now, worse?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import console
from pipeline.errors import InputsError, RegistryError, TargetError

if TYPE_CHECKING:
    from pipeline.profiling.bench import Bench, Candidate
    from pipeline.profiling.compare import Comparison

EXIT_WORSE = 4
ARTIFACT_HELP = "A candidate of the target, such as dense-int8-static, or an artifact's folder."


Tolerance = Annotated[
    float, typer.Option("--tolerance", min=0, max=1, help="Latency within 1 +- this is no change.")
]
MaxRounds = Annotated[
    int, typer.Option("--max-rounds", min=2, help="If few decide nothing, take so many.")
]
Project = Annotated[Path, typer.Option("--project", help="The project's folder.")]


def compare(
    before: Annotated[str, typer.Argument(help=ARTIFACT_HELP)],
    after: Annotated[str, typer.Argument(help=ARTIFACT_HELP)],
    target: Annotated[str, typer.Option("--target", help="Whose runtime and settings.")],
    tolerance: Tolerance = 0.02,
    max_rounds: MaxRounds = 12,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Project = Path(),
) -> None:
    """Measure two artifacts beside each other: better, worse, or inconclusive, and how surely."""
    from pipeline import files
    from pipeline.profiling import compare as comparing

    bench = _bench(project, target)
    first, second = (_find(project, target, name) for name in (before, after))
    with console.quiet_libraries(project / console.LOG_PATH / "compare.log"):
        with console.track("compare", 2 + max_rounds) as step:
            found = comparing.compare(
                first, second, bench, tolerance_ratio=tolerance, max_rounds=max_rounds, on_step=step
            )
        if not as_json:
            _show(found)
    if as_json:
        typer.echo(files.encode_json(found).decode(), nl=False)


def gate(
    registry: Annotated[
        Path, typer.Option("--registry", envvar="SLIPWAY_REGISTRY", help="The registry's folder.")
    ] = Path("registry"),
    version: Annotated[
        str | None, typer.Option("--version", help="Default: the newest that has the target.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Growth that is no matter.")
    ] = 0.05,
    max_rounds: MaxRounds = 12,
    out: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Project = Path(),
) -> None:
    """Measure what ships now beside the last release; exit 4: worse, gone, or not to be judged."""
    from pipeline import files, params
    from pipeline import gate as gates
    from pipeline.registry.store import DirectoryStore

    if not registry.is_dir():
        raise RegistryError(f"registry {registry} is no folder; slipway publish makes one")
    p = params.load(project / params.FILE_NAME)
    with (
        console.quiet_libraries(project / console.LOG_PATH / "gate.log"),
        console.track("gate", len(p.targets) * (2 + max_rounds)) as step,
    ):
        found = list(
            gates.Gate(
                project=project,
                p=p,
                store=DirectoryStore(registry),
                version=version,
                release_of=lambda target: project / "models/release" / target,
                bench_of=lambda target: _bench(project, target),
                limits=gates.Limits(tolerance, max_rounds),
                on_step=step,
            ).rows()
        )
    text = gates.markdown(found, p.model)
    typer.echo(files.encode_json(found).decode() if as_json else text, nl=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(out, text.encode())
    if any(row.verdict in gates.SHUT for row in found):
        raise typer.Exit(EXIT_WORSE)


def _bench(project: Path, target: str) -> "Bench":
    """Make the bench of a target on the project's validation split and this machine.

    Raises:
        TargetError: no such target, or nothing of it is measured on this machine.
        InputsError: the validation split is not here.
    """
    from pipeline import params
    from pipeline.data import splits
    from pipeline.profiling.bench import Bench
    from pipeline.transports import probe

    p = params.load(project / params.FILE_NAME)
    if target not in p.targets:
        known = ", ".join(p.targets)
        raise TargetError(f"{target!r} is no target of params.yaml; there is {known}")
    evidence = p.targets[target].evidence
    if evidence != "measured":
        raise TargetError(
            f"{target} is {evidence} on this machine, and only what is measured can be measured "
            "again; slipway report has its figures"
        )
    inputs = project / "models/data/validation.npz"
    if not inputs.is_file():
        raise InputsError(f"{inputs} is not here; run dvc repro prepare, or dvc pull")
    machine = probe.of(p.targets[target]).device
    return Bench.of(p, target, inputs, splits.read(inputs), device=machine)


def _find(project: Path, target: str, name: str) -> "Candidate":
    """Find an artifact by its candidate id in the project, or by its folder.

    Raises:
        InputsError: there is none, with the ids that there are.
    """
    from pipeline import manifest
    from pipeline.profiling.bench import Candidate
    from pipeline.registry import release

    converted = project / "models/converted" / target
    for folder in (converted / name, Path(name), Path(name) / release.ARTIFACT):
        if (folder / manifest.FILE_NAME).is_file() and manifest.read(folder).signature is not None:
            return Candidate(name, folder)
    known = sorted(path.name for path in converted.glob("*") if path.is_dir())
    raise InputsError(
        f"{name!r} is no artifact: neither a folder with a manifest nor a candidate of {target} "
        f"({', '.join(known) or 'none is converted here: run dvc repro'})"
    )


def diff(
    against: Annotated[str, typer.Option(help="A git revision, such as origin/main.")],
    out: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Growth that is no matter.")] = 0.05,
    project: Project = Path(),
) -> None:
    """Compare what ships now with what shipped at a revision; exit 4: a target got worse."""
    import tempfile

    from pipeline import files, params
    from pipeline.registry import base
    from pipeline.reporting import difference

    targets = list(params.load(project / params.FILE_NAME).targets)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        fetched = {t: base.fetch(project, against, t, Path(folder) / t) for t in targets}
        before = {t: difference.read(path) if path else None for t, path in fetched.items()}
    after = {t: difference.read(project / "models/release" / t) for t in targets}
    found = difference.compare(before, after, tolerance)
    text = difference.markdown(found, against)
    typer.echo(text, nl=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(out, text.encode())
    if any(d.verdict in {"worse", "gone"} for d in found):
        raise typer.Exit(EXIT_WORSE)


def _show(found: "Comparison") -> None:
    from rich.markup import escape
    from rich.table import Table

    from pipeline.reporting import words

    before, after, ratio = found.before, found.after, found.ratio
    table = Table("", escape(before.candidate), escape(after.candidate), "", box=None)
    memory = [
        "absent" if m.peak_memory_bytes is None else words.size(m.peak_memory_bytes)
        for m in (before, after)
    ]
    table.add_row("size", words.size(before.size_bytes), words.size(after.size_bytes), "")
    table.add_row("peak memory", *memory, "")
    quality = f"{words.drop(after)} lost: {found.quality}" if found.quality else ""
    name = before.quality.metric if before.quality else "quality"
    table.add_row(name, words.quality(before), words.quality(after), escape(quality))
    latency = f"{words.interval(ratio)}: {found.latency}"
    table.add_row("p50", words.latency(before), words.latency(after), escape(latency))
    console.terminal.print(table)
    flags = sorted({*before.flags, *after.flags})
    console.say(
        "compare",
        f"{after.candidate} against {before.candidate} on {after.target}: latency {found.latency} "
        f"in {after.num_restarts} rounds, tolerance {100 * found.tolerance_ratio:g} %"
        + (f"; quality {found.quality}, n={after.drop.n}" if after.drop else "")
        + (f"; flags: {', '.join(flags)}" if flags else ""),
    )
