"""What a machine is, as far as it decides a model's speed; nothing that boots change."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Dict, List, Optional

CPU_INFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")  # ends in NUL
GPUS = Path("/proc/driver/nvidia/gpus")  # a folder each (NVIDIA driver, README, "/proc interface")
# Flags that kernels of the runtimes choose between; all others may differ without a change in
# speed.
ISA_FLAGS = frozenset(
    """
    amx_bf16 amx_int8 amx_tile avx avx2 avx512_bf16 avx512_fp16 avx512_vnni avx512bw avx512dq
    avx512f avx512vl avx_vnni avx_vnni_int8 f16c fma sse4_1 sse4_2 ssse3
    asimd asimddp asimdhp bf16 fphp i8mm neon sve sve2 vfpv4
    """.split()  # noqa: SIM905 - two architectures read better as words: x86, then ARM
)
MODEL_KEYS = ("model name", "Model", "Hardware", "cpu model", "uarch")


def describe(cpu_info: Optional[str] = None, board: str = "", gpus: Path = GPUS) -> Dict[str, Any]:
    """Return the machine's identity.

    ``cores`` are the kinds of cores (implementer and part) of an ARM, which may have several; an
    x86 has one, and ``cpu_model`` names it. ``accelerator`` names the kinds of NVIDIA's GPUs; a
    Jetson's is named by its board.

    Args:
        cpu_info: text as in /proc/cpuinfo; None reads this machine's, and its board.
        board: text as in /proc/device-tree/model.
        gpus: where the driver tells of GPUs.
    """
    if cpu_info is None:
        cpu_info, board = _text(CPU_INFO), _text(BOARD)
    fields, cores = _fields(cpu_info), _cores(cpu_info)
    flags = (fields.get("flags", "") + " " + fields.get("Features", "")).split()
    model = next((fields[key] for key in MODEL_KEYS if fields.get(key)), None)
    if cores:
        model = board.strip("\0 \n") or model or ", ".join(cores)
    return {
        "arch": platform.machine(),
        "cpu_model": model or platform.processor() or "unknown",
        "isa_flags": sorted(ISA_FLAGS & set(flags)),
        "num_cores": os.cpu_count() or 1,
        "accelerator": ", ".join(_gpu_models(gpus)) or "none",
        **({"cores": cores} if cores else {}),
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _gpu_models(gpus: Path) -> List[str]:
    """Return the kinds of GPUs, sorted; a number stands before one that is there several times."""
    found = [_fields(_text(path)).get("Model", "unknown") for path in gpus.glob("*/information")]
    counts = {model: found.count(model) for model in sorted(found)}
    return [model if n == 1 else "%d x %s" % (n, model) for model, n in counts.items()]


def _cores(cpu_info: str) -> List[str]:
    """Return the kinds of an ARM's cores, sorted; none where the kernel names no implementer."""
    blocks = [_fields(block) for block in cpu_info.split("\n\n")]
    parts = [(block.get("CPU implementer"), block.get("CPU part")) for block in blocks]
    return sorted({"%s/%s" % part for part in parts if all(part)})


def _fields(cpu_info: str) -> Dict[str, str]:
    """Read ``key : value`` lines; of several cores the first one counts."""
    fields: Dict[str, str] = {}
    for line in cpu_info.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields
