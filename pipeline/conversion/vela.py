"""Vela: compile a .tflite file for an Arm Ethos-U, and read what the compiler says of it.

Vela goes on where it should not: without settings it guesses (3.5x off), it takes a system
configuration of another accelerator, it leaves on the CPU what the NPU cannot do, all with exit
code 0; a file that is cut off crashes it. Each is caught here.
"""

import configparser
import csv
import io
import re
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import params, processes
from pipeline.conversion import tflite_graph
from pipeline.errors import ConversionError, DependencyError
from pipeline.measurement import Layer, Placement
from pipeline.runtimes.ethos_u import COMPILED_OPERATOR, EDGE_TPU_OPERATOR
from pipeline.targets.ethos_u import Cycles, Estimate, Memory

CONFIG_FILE = "Arm/vela.ini"  # Vela's own, of its package
BYTES_PER_KIB = 1024
NPU = "NPU"  # as Vela's table says where an operator is
TIME_LIMIT_S = 900.0
_REASON = re.compile(r"operator: (\w+), ofm: .*\nReason: (.*)")
_TENSOR_NAME = re.compile(r"\s*\([^()]*\)$")
_ERROR = re.compile(r"^(?:[\w.]+(?:Error|Exception): |vela: error: )?'?(?:Error: )?(.*?)'?$")


@dataclass(frozen=True)
class Known:
    """What the installed Vela can be told."""

    accelerators: tuple[str, ...]
    system_configs: tuple[str, ...]
    memory_modes: tuple[str, ...]


@dataclass(frozen=True)
class Compiled:
    """A compiled file and what Vela says of it."""

    content: bytes
    estimate: Estimate


def known() -> Known:
    """Read from the installed Vela what accelerators and settings it knows.

    Raises:
        DependencyError: Vela is not installed.
    """
    try:
        from ethosu.vela import architecture_features
    except ImportError as error:
        raise DependencyError("ethos-u-vela", "ethos-u") from error
    settings = configparser.ConfigParser()
    settings.read(Path(architecture_features.CONFIG_FILES_PATH) / CONFIG_FILE, encoding="utf-8")
    return Known(
        tuple(architecture_features.Accelerator.member_list()),
        _sections(settings, "System_Config."),
        _sections(settings, "Memory_Mode."),
    )


def check(cfg: params.Vela) -> None:
    """Refuse settings that Vela does not know, or that are for another accelerator.

    Raises:
        ConversionError: listing what Vela knows.
        DependencyError: Vela is not installed.
    """
    knows = known()
    family = "_".join(cfg.accelerator_config.split("-")[:-1]).title() + "_"  # Ethos_U55_
    own = tuple(name for name in knows.system_configs if name.startswith(family))
    for key, value, allowed in (
        ("accelerator_config", cfg.accelerator_config, knows.accelerators),
        ("system_config", cfg.system_config, own),
        ("memory_mode", cfg.memory_mode, knows.memory_modes),
    ):
        if value not in allowed:
            of = f" for {cfg.accelerator_config}" if allowed is own else ""
            raise ConversionError(
                f"convert.vela.{key} must be one of {', '.join(allowed)}{of}, got {value!r}; "
                "mend it in params.yaml"
            )


def compile_file(content: bytes, cfg: params.Vela) -> Compiled:
    """Compile a .tflite file.

    Args:
        content: the file. What of it is not integer stays on the CPU, which the estimate's
            placement says.
        cfg: settings that `check` lets pass.

    Returns:
        The same bytes for the same file, settings and Vela.

    Raises:
        ConversionError: it is no .tflite file, damaged, compiled already, or Vela refuses it.
    """
    before = tflite_graph.read(content)
    operators = tflite_graph.operators(before)
    for operator, tool in ((EDGE_TPU_OPERATOR, "edgetpu_compiler"), (COMPILED_OPERATOR, "Vela")):
        if operator in operators:
            raise ConversionError(
                f"the .tflite file is compiled already (operator {operator}); give the file from "
                f"before {tool}"
            )
    compiled, summary, by_layer, said = _run(content, cfg)
    after = tflite_graph.read(compiled)
    _check_borders(before, after)
    left = [name for name in tflite_graph.operators(after) if name != COMPILED_OPERATOR]
    placement = Placement(
        num_accelerated=max(0, len(operators) - len(left)),
        num_fallback=len(left),
        fallback_operators=tuple(dict.fromkeys(left)),
    )
    reasons = fallback_reasons(said)
    return Compiled(compiled, estimate_of(summary, cfg, placement, reasons, layers_of(by_layer)))


def layers_of(by_layer: str) -> tuple[Layer, ...]:
    """Make layers of Vela's table by operator (csv without quotes; a name may hold commas).

    Vela splits an operator (a softmax into thirty) and keeps a fused activation as a row without
    cycles: rows that follow one of the same original operator and are of another kind are counted
    with it. The name is that of the last of them, which writes the original operator's output.
    """
    header, *lines = by_layer.splitlines()
    columns = header.split(",")
    layers: list[Layer] = []
    for line in lines:
        row = dict(zip(columns, line.split(",", len(columns) - 1), strict=True))
        operator, provider = row["Original Operator"], row["Target"]
        cycles, macs = int(row["Op Cycles"]), int(row["MAC Count"])
        before = layers[-1] if layers else None
        is_part = row["NNG Operator"] != operator and provider == NPU
        if is_part and before and (before.operator, before.provider) == (operator, NPU):
            layers.pop()
            cycles += before.num_cycles or 0
            macs += before.num_macs or 0
        layers.append(
            Layer(
                name=row["Name"],
                operator=operator,
                num_cycles=cycles if provider == NPU else None,  # Vela counts none on the CPU
                num_macs=macs if provider == NPU else None,
                provider=provider,
            )
        )
    return tuple(layers)


def estimate_of(
    summary: str,
    cfg: params.Vela,
    placement: Placement,
    reasons: dict[str, str],
    layers: tuple[Layer, ...] = (),
) -> Estimate:
    """Make the estimate from the text of Vela's summary (csv, one row)."""
    (row,) = csv.DictReader(io.StringIO(summary))
    accelerated = placement.num_accelerated > 0
    cycles = Cycles(
        total=int(row["cycles_total"]),
        npu=int(row["cycles_npu"]),
        sram=int(row["cycles_sram_access"]),
        dram=int(row["cycles_dram_access"]),
        on_chip_flash=int(row["cycles_on_chip_flash_access"]),
        off_chip_flash=int(row["cycles_off_chip_flash_access"]),
    )
    return Estimate(
        accelerator_config=cfg.accelerator_config,
        system_config=cfg.system_config,
        memory_mode=cfg.memory_mode,
        clock_hz=round(float(row["core_clock"])),
        num_macs=int(row["nn_macs"]),
        inference_ms=_milliseconds(row["inference_time"]) if accelerated else None,
        cycles=cycles if accelerated else None,
        memory=Memory(
            sram_bytes=_bytes(row["sram_memory_used"]),
            dram_bytes=_bytes(row["dram_memory_used"]),
            on_chip_flash_bytes=_bytes(row["on_chip_flash_memory_used"]),
            off_chip_flash_bytes=_bytes(row["off_chip_flash_memory_used"]),
        ),
        placement=placement,
        fallback_reasons=reasons,
        layers=layers,
    )


def fallback_reasons(said: str) -> dict[str, str]:
    """Read from Vela's warnings why each kind of operator stays on the CPU, the first of each."""
    reasons: dict[str, str] = {}
    for operator, reason in _REASON.findall(said):
        reasons.setdefault(operator, _TENSOR_NAME.sub("", reason))
    return reasons


def refusal(return_code: int, said: str, cfg: params.Vela) -> ConversionError:
    """Say in one line why Vela failed, from what it wrote to standard error."""
    settings = f"{cfg.accelerator_config}, {cfg.system_config}, {cfg.memory_mode}"
    if return_code < 0:
        name = signal.Signals(-return_code).name
        return ConversionError(
            f"Vela was killed by {name} ({settings}); convert the model again, or report its "
            "operators to Arm"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = _ERROR.sub(r"\1", lines[-1]) if lines else f"exit code {return_code}"
    return ConversionError(
        f"Vela refuses the model ({settings}): {reason}; replace the layer or mend convert.vela"
    )


def _milliseconds(seconds: str) -> float:
    return round(float(seconds) * 1e3, 9)  # to the picosecond, without the last digits' noise


def _bytes(kibibytes: str) -> int:
    return round(float(kibibytes) * BYTES_PER_KIB)


def _sections(settings: configparser.ConfigParser, prefix: str) -> tuple[str, ...]:
    found = [name for name in settings.sections() if name.startswith(prefix)]
    return tuple(name.removeprefix(prefix) for name in found)


def _run(content: bytes, cfg: params.Vela) -> tuple[bytes, str, str, str]:
    """Return the compiled file, the summary, the table by operator and what Vela said.

    All from a process of its own.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        too_long = ConversionError(
            f"Vela took longer than {TIME_LIMIT_S:g} s and was killed; make the model smaller"
        )
        done = processes.run(
            [
                *(sys.executable, "-m", "ethosu.vela", "model.tflite", "--output-dir", "out"),
                *("--config", CONFIG_FILE),
                *("--accelerator-config", cfg.accelerator_config),
                *("--system-config", cfg.system_config),
                *("--memory-mode", cfg.memory_mode),
                "--verbose-performance",  # the table by operator; the file stays the same
            ],
            folder,
            (TIME_LIMIT_S, too_long),
        )
        if done.returncode != 0:
            raise refusal(done.returncode, done.stderr, cfg)
        out = folder / "out"
        return (
            (out / "model_vela.tflite").read_bytes(),
            (out / f"model_summary_{cfg.system_config}.csv").read_text(encoding="utf-8"),
            (out / "model_per-layer.csv").read_text(encoding="utf-8"),
            done.stdout,
        )


def _check_borders(before: Any, after: Any) -> None:
    """Hold that inputs and outputs are what they were: device code is written against them."""
    taken, given = tflite_graph.borders(before), tflite_graph.borders(after)
    if taken != given:
        raise ConversionError(
            f"Vela changed inputs and outputs from {taken} to {given}; report it to Arm"
        )
