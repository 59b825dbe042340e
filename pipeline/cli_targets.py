"""`slipway targets ...`: the hardware catalogue, and the user's own file of the same schema."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console

if TYPE_CHECKING:
    from pipeline.targets.hardware import Hardware

app = typer.Typer(help="Hardware: what is known of it, and from where.", no_args_is_help=True)

# By what a key ends with; counts and sizes are written with a prefix (k, M, G, T).
UNITS = {
    "ops_per_s_per_w": "OPS/W",
    "_bytes_per_s": "B/s",
    "_ops_per_s": "OPS",
    "_bytes": "B",
    "_hz": "Hz",
}
PREFIXES = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1}
SMALL_UNITS = {"_w": "W", "_c": "°C", "_ms": "ms", "_mj": "mJ", "inferences_per_s": "/s"}


@app.command("list")
def list_hardware() -> None:
    """List the catalogue: what each piece of hardware can do, and which converter serves it."""
    from rich.markup import escape
    from rich.table import Table

    from pipeline.targets import hardware

    columns = ("id", "vendor", "accelerator", "peak int8", "memory", "converter, or why none yet")
    table = Table(*columns, box=None, pad_edge=False)
    table.columns[0].no_wrap = True  # it is typed after `show`
    for name in hardware.ids():
        table.add_row(name, *(escape(cell) for cell in _row(hardware.load(name))))
    console.terminal.print(table)


@app.command("show")
def show_hardware(
    hardware_id: Annotated[
        str, typer.Argument(metavar="ID_OR_FILE", help="An id of `list`, or a YAML file.")
    ],
) -> None:
    """Show every fact with its value, its source and of what kind that is."""
    from pipeline.targets import hardware

    found = hardware.find(hardware_id)
    typer.echo(f"{found.name} ({found.vendor})" if found.vendor else found.name)
    for converter, service in found.converters.items():
        named = "".join(f"; slipway init --targets {name}" for name in service.presets)
        note = f" ({service.note})" if service.note else ""
        typer.echo(f"{converter}: {', '.join(service.precisions)}{named}{note}")
    if found.not_supported_yet:
        typer.echo(f"not supported yet: {found.not_supported_yet}")
    typer.echo()
    for key, fact in hardware.facts(found):
        note = f" ({fact.note})" if fact.note else ""
        kind = found.sources[fact.source].kind
        typer.echo(f"{'.'.join(key)}: {_value(key[-1], fact)}{note}  [{fact.source}, {kind}]")
    typer.echo()
    for name, source in found.sources.items():
        typer.echo(f"[{name}] {source.kind}, {source.date}: {source.text}")


@app.command("check")
def check_hardware(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file of your own.")],
) -> None:
    """Find every problem of a file of your own, each with its line; exit 2 when there is one."""
    from pipeline.targets import hardware

    found, problems = hardware.parse(path)
    for problem in problems:
        typer.echo(problem, err=True)
    if found is None or problems:
        raise typer.Exit(console.EXIT_BAD_INPUT)
    num_facts = sum(1 for _ in hardware.facts(found))
    console.say("targets", f"{path}: {num_facts} facts, each with its source: ok")


def _row(hardware: "Hardware") -> tuple[str, ...]:
    """Return the cells beside the id; what is not known is a dash."""
    accelerator = hardware.accelerator.name
    support = ", ".join(hardware.converters) or f"none: {hardware.not_supported_yet}"
    name = accelerator.value if accelerator else "-"
    return hardware.vendor or "-", name, _peak_int8(hardware), _memory(hardware), support


def _peak_int8(hardware: "Hardware") -> str:
    peak = hardware.peak
    if fact := peak.int8_dense_ops_per_s:
        return console.scaled(fact.value, "OPS") + " dense"
    if fact := peak.int8_ops_per_s:
        return console.scaled(fact.value, "OPS")
    if fact := peak.int8_sparse_ops_per_s:
        return console.scaled(fact.value, "OPS") + " sparse"
    return "-"


def _memory(hardware: "Hardware") -> str:
    memory = hardware.memory
    size, bandwidth = memory.ram_bytes or memory.sram_bytes, memory.bandwidth_bytes_per_s
    cells = [console.scaled(size.value, "B")] if size else []
    cells += [console.scaled(bandwidth.value, "B/s")] if bandwidth else []
    return ", ".join(cells) or "-"


def _value(key: str, value: Any) -> str:
    """Write a value with the unit that its key ends with."""
    from msgspec import Struct, structs

    from pipeline.targets.hardware import Fact

    if isinstance(value, Fact):
        return _value(key, value.value)
    if isinstance(value, Struct):
        return _fields(key, structs.asdict(value))
    if isinstance(value, tuple):
        return ", ".join(str(member) for member in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _quantity(key, value)
    return str(value)


def _fields(key: str, members: dict[str, Any]) -> str:
    """Write what stands in a statement; MLPerf Tiny's figures take the unit of their own key."""
    said = {n: v for n, v in members.items() if v is not None and n not in {"source", "note"}}
    if key in {"inferences_per_s", "latency_ms", "energy_mj", "sram_bytes"}:
        return ", ".join(f"{name} {_quantity(key, value)}" for name, value in said.items())
    return "; ".join(f"{name} {_value(name, value)}" for name, value in said.items())


def _quantity(key: str, value: float) -> str:
    for suffix, unit in UNITS.items():
        if key.endswith(suffix):
            prefix = next((p for p, factor in PREFIXES.items() if value >= factor), "")
            return f"{value / PREFIXES[prefix]:g} {prefix}{unit}"  # whole, unlike in `list`
    for suffix, unit in SMALL_UNITS.items():
        if key.endswith(suffix):
            return f"{value:g} {unit}".replace(" /s", "/s")
    return f"{value:g}"
