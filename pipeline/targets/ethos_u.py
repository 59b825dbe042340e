"""Boundary object ``vela.json``: what Vela says of a file that it compiled for an Ethos-U.

All of it is an estimate by the compiler's own model of the hardware; nothing ran.
"""

from pathlib import Path

import msgspec

from pipeline.errors import ManifestError
from pipeline.manifest import decode_document
from pipeline.measurement import Layer, Placement

SCHEMA_VERSION = 1
FILE_NAME = "vela.json"


class Cycles(msgspec.Struct, frozen=True, kw_only=True):
    """Cycles of the accelerator's clock: in all, of the NPU, and of access to each memory."""

    total: int
    npu: int
    sram: int
    dram: int
    on_chip_flash: int
    off_chip_flash: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the compiled file uses of each memory."""

    sram_bytes: int
    dram_bytes: int
    on_chip_flash_bytes: int
    off_chip_flash_bytes: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What Vela was told, and what it says.

    ``inference_ms`` and ``cycles`` are of the NPU alone: operators on the CPU are not in them; both
    are None where nothing is on the NPU. ``placement`` counts operators of the uncompiled file.
    ``fallback_reasons`` maps an operator on the CPU to Vela's reason. The cycles of ``layers`` sum
    to ``cycles.total``; files that were written before it was added hold none.
    """

    schema_version: int = SCHEMA_VERSION
    accelerator_config: str
    system_config: str
    memory_mode: str
    clock_hz: int
    num_macs: int
    inference_ms: float | None
    cycles: Cycles | None
    memory: Memory
    placement: Placement
    fallback_reasons: dict[str, str] = {}
    layers: tuple[Layer, ...] = ()


def read(artifact: Path) -> Estimate:
    """Read an artifact's vela.json.

    Raises:
        ManifestError: it is absent or malformed.
    """
    path = artifact / FILE_NAME
    if not path.is_file():
        raise ManifestError(f"{path} is missing; convert the model again")
    return decode_document(path.read_bytes(), Estimate, SCHEMA_VERSION, str(path))
