"""What a machine is, as far as it decides a model's speed; nothing that boots change."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Dict, Optional

CPU_INFO = Path("/proc/cpuinfo")
# Flags that kernels of the runtimes choose between; all others may differ without a change in
# speed.
ISA_FLAGS = frozenset(
    """
    amx_bf16 amx_int8 amx_tile avx avx2 avx512_bf16 avx512_fp16 avx512_vnni avx512bw avx512dq
    avx512f avx512vl avx_vnni avx_vnni_int8 f16c fma sse4_1 sse4_2 ssse3
    asimd asimddp asimdhp bf16 fphp i8mm neon sve sve2 vfpv4
    """.split()  # noqa: SIM905 - two architectures read better as words: x86, then ARM
)
MODEL_KEYS = ("model name", "Model", "Hardware", "cpu model", "uarch", "CPU part")


def describe(cpu_info: Optional[str] = None) -> Dict[str, Any]:
    """Return the machine's identity.

    Args:
        cpu_info: text as in /proc/cpuinfo; None reads this machine's.
    """
    if cpu_info is None:
        cpu_info = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    fields = _fields(cpu_info)
    flags = (fields.get("flags", "") + " " + fields.get("Features", "")).split()
    model = next((fields[key] for key in MODEL_KEYS if fields.get(key)), None)
    return {
        "arch": platform.machine(),
        "cpu_model": model or platform.processor() or "unknown",
        "isa_flags": sorted(ISA_FLAGS & set(flags)),
        "num_cores": os.cpu_count() or 1,
        "accelerator": "none",
    }


def _fields(cpu_info: str) -> Dict[str, str]:
    """Read ``key : value`` lines; of several cores the first one counts."""
    fields: Dict[str, str] = {}
    for line in cpu_info.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields
