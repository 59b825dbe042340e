"""`slipway profile`: measure any model file, in one or more places, beside its fp32 form."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline import console

if TYPE_CHECKING:
    from pipeline import params
    from pipeline.profiling.any_file import Row

EXIT_SOME_FAILED = 4
RUNTIME_HELP = (
    "RUNTIME or RUNTIME@WHERE, once or more: WHERE is an environment (emulated-aarch64), ssh:HOST, "
    "adb:SERIAL, or a target of params.yaml whose connection is meant."
)


def profile(
    file: Annotated[Path, typer.Argument(help="A model file: .onnx, .tflite, .xml, .engine.")],
    runtime: Annotated[list[str], typer.Option("--runtime", help=RUNTIME_HELP)],
    data: Annotated[
        Path, typer.Option("--data", help="A .npz of inputs [N, ...] and, maybe, labels [N].")
    ],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="The model's fp32 file, to agree with.")
    ] = None,
    preset: Annotated[
        Literal["quick", "ci", "official"], typer.Option("--preset", help="How much is measured.")
    ] = "quick",
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Annotated[Path, typer.Option("--project", help="For its targets.")] = Path(),
) -> None:
    """Measure a file from anywhere: speed, memory, quality, agreement; exit 4: a place failed."""
    import tempfile

    from pipeline import files
    from pipeline.params import Profile
    from pipeline.profiling import any_file, measure
    from pipeline.profiling.bench import PRESETS

    settings = Profile(preset=preset, num_threads=threads)
    targets = _targets(project, runtime)
    places = [any_file.place_of(text, targets, settings) for text in dict.fromkeys(runtime)]
    with (
        tempfile.TemporaryDirectory(prefix="slipway-") as folder,
        console.quiet_libraries(project / console.LOG_PATH / "profile.log"),
    ):
        read = any_file.data_of(data, Path(folder))
        total = measure.num_workers(1 if reference is None else 2, PRESETS[preset]) * len(places)
        with console.track("profile", total) as step:
            found = any_file.profile(file, reference, places, read, PRESETS[preset], on_step=step)
        rows = [each.row for each in found]
        if not as_json:
            _show(file, rows)
    if as_json:
        typer.echo(files.encode_json(rows).decode(), nl=False)
    if any(row.reason is not None for row in rows):
        raise typer.Exit(EXIT_SOME_FAILED)


def _targets(project: Path, runtimes: list[str]) -> "dict[str, params.Target]":
    """Read a project's targets where a place may mean one."""
    from pipeline import params

    path = project / params.FILE_NAME
    if path.is_file() and any("@" in text for text in runtimes):
        return params.load(path).targets
    return {}


def _show(file: Path, rows: "list[Row]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from pipeline.reporting import words

    columns = ("where", "evidence", "p50", "p90", "peak memory", "quality", "against reference")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        m = row.measurement
        if m is None:
            table.add_row(escape(row.place), "none", "", "", "", "", escape(row.reason or ""))
            continue
        memory = "" if m.peak_memory_bytes is None else words.size(m.peak_memory_bytes)
        p90 = "" if m.latency_ms.p90 is None else words.duration(m.latency_ms.p90)
        p50 = "" if m.latency_ms.p50 is None else words.latency(m)
        judged = words.quality(m) if m.quality else ""
        cells = (row.place, m.kind, p50, p90, memory, judged, "; ".join(_against(row)))
        table.add_row(*(escape(cell) for cell in cells))
    console.terminal.print(table)
    flags = sorted({f for row in rows if row.measurement for f in row.measurement.flags})
    noted = f"; flags: {', '.join(flags)}" if flags else ""
    console.say("profile", f"{file.name} in {len(rows)} places{noted}")


def _against(row: "Row") -> "list[str]":
    """Say how the file compares with the reference in the same place."""
    from pipeline.reporting import words

    m, said = row.measurement, list[str]()
    if m is None or row.reference is None:
        return said
    if row.reference.reason is not None:
        return [f"the reference does not run there: {row.reference.reason}"]
    if m.latency_ratio is not None:
        said.append(f"p50 {words.interval(m.latency_ratio)}")
    if m.drop is not None:
        said.append(words.drop(m))
    if m.agreement is not None and m.agreement.top1_agreement is not None:
        said.append(f"same class {100 * m.agreement.top1_agreement:.1f} %")
    return said
