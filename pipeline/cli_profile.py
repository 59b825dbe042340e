"""`slipway profile`: measure any model file, in one or more places, beside its fp32 form."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline import console

if TYPE_CHECKING:
    from pipeline import params
    from pipeline.profiling.any_file import Row
    from pipeline.reporting.places_view import Table

EXIT_SOME_FAILED = 4
RUNTIME_HELP = (
    "RUNTIME or RUNTIME@WHERE, once or more: WHERE is an environment (emulated-aarch64), ssh:HOST, "
    "adb:SERIAL, or a target of params.yaml whose connection is meant."
)
SCENARIO_HELP = (
    "MultiStream, Server or Offline, with batch_size, num_streams, samples_per_query, "
    "queries_per_s: Server:queries_per_s=100,num_streams=2. Once or more."
)
SWEEP_HELP = (
    "An axis of Offline throughput: batch_size=1,4,8; also num_threads, num_streams. Once or more, "
    "for every combination."
)
ENERGY_HELP = "rapl, nvml, ina, serial:port=DEVICE, modelled; with window_s=SECONDS."
LOADGEN_HELP = (
    "MLPerf LoadGen's own verdict on a scenario: SingleStream, or with its settings, such as "
    "Server:queries_per_s=100,target_latency_ms=15,min_duration_s=60. Once or more."
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
    layers: Annotated[bool, typer.Option("--layers", help="Times of single operators.")] = False,
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", metavar="SPEC", help=SCENARIO_HELP)
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option("--sweep", metavar="SPEC", help=SWEEP_HELP)
    ] = None,
    energy: Annotated[
        str | None, typer.Option("--energy", metavar="METER", help=ENERGY_HELP)
    ] = None,
    loadgen: Annotated[
        list[str] | None, typer.Option("--loadgen", metavar="SPEC", help=LOADGEN_HELP)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    project: Annotated[Path, typer.Option("--project", help="For its targets.")] = Path(),
) -> None:
    """Measure a file anywhere: speed, memory, quality, agreement; exit 4: something is missing."""
    import tempfile

    from pipeline import files
    from pipeline.params import Profile
    from pipeline.profiling import any_file, options, places
    from pipeline.profiling.bench import PRESETS

    settings = Profile(
        preset=preset,
        num_threads=threads,
        layers=layers,
        scenarios=tuple(options.scenario(text) for text in scenario or ()),
        sweep=options.sweep(sweep or ()),
        energy=options.energy(energy) if energy else None,
    )
    options.check(settings)
    asked = any_file.Asked(PRESETS[preset], [options.loadgen(text) for text in loadgen or ()])
    targets = _targets(project, runtime)
    where = [places.place_of(text, targets, settings) for text in dict.fromkeys(runtime)]
    with (
        tempfile.TemporaryDirectory(prefix="slipway-") as folder,
        console.quiet_libraries(project / console.LOG_PATH / "profile.log"),
    ):
        read = any_file.data_of(data, Path(folder))
        total = any_file.num_steps(where, read, asked, has_reference=reference is not None)
        with console.track("profile", total) as step:
            found = any_file.profile(file, reference, where, read, asked, on_step=step)
        rows = [each.row for each in found]
        if not as_json:
            _show(rows, settings, file, reference)
    if as_json:
        typer.echo(files.encode_json(rows).decode(), nl=False)
    if any(row.reason or any(each.reason for each in row.loadgen) for row in rows):
        raise typer.Exit(EXIT_SOME_FAILED)


def _targets(project: Path, runtimes: list[str]) -> "dict[str, params.Target]":
    """Read a project's targets where a place may mean one."""
    from pipeline import params

    path = project / params.FILE_NAME
    if path.is_file() and any("@" in text for text in runtimes):
        return params.load(path).targets
    return {}


def _show(
    rows: "Sequence[Row]", settings: "params.Profile", file: Path, reference: Path | None
) -> None:
    from pipeline.reporting import places_view

    names = (file.name, reference.name if reference else "reference")
    for table in places_view.tables(rows, names):
        _print(table)
    has_loads = bool(settings.scenarios or settings.sweep)
    for text in places_view.remarks(rows, has_loads=has_loads, has_layers=settings.layers):
        console.say("profile", text)
    flags = sorted({f for row in rows if row.measurement for f in row.measurement.flags})
    noted = f"; flags: {', '.join(flags)}" if flags else ""
    console.say("profile", f"{file.name} in {len(rows)} places{noted}")


def _print(table: "Table") -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(*table.header, box=None, pad_edge=False)
    for row in table.rows:
        shown.add_row(*(escape(cell) for cell in row))
    if table.caption:
        console.terminal.print(f"\n{escape(table.caption)}")
    console.terminal.print(shown)
