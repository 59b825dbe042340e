"""What candidates achieve, and what their hardware could: operations by byte moved and by second.

Operations are 2 a multiply-accumulate of the exported net. Bytes moved are the weights, inputs and
outputs of each convolution and matrix product, once each, in the candidate's own precision: what
would be moved if each operator read and wrote memory, and all between them were fused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.measurement import Measurement
from pipeline.reporting import words
from pipeline.targets.hardware import Fact, Hardware

if TYPE_CHECKING:
    from pipeline.conversion.onnx_count import Costs

Roof = Literal["int8", "fp16", "fp32"]
# By precision: bytes of a weight and of an activation while it runs, and whose peak it is under.
# fp16-weights are widened at load; of bfloat16 the catalogue has no peak.
PRECISIONS: dict[str, tuple[int, int, Roof | None]] = {
    "fp32": (4, 4, "fp32"),
    "bf16": (2, 2, None),
    "fp16": (2, 2, "fp16"),
    "fp16-weights": (4, 4, "fp32"),
    "int8-dynamic": (1, 4, "int8"),
    "int8-static": (1, 1, "int8"),
}
# A processor's name in the catalogue, and what its system calls it.
FAMILIES = {
    "x86-64": "x86", "x86_64": "x86", "amd64": "x86", "AMD64": "x86", "aarch64": "arm64",
    "arm64": "arm64", "RISC-V": "riscv", "riscv64": "riscv",
}  # fmt: skip


@dataclass(frozen=True)
class Roofs:
    """Peaks in operations a second by precision, and the memory's bytes a second, where known."""

    peaks: Mapping[Roof, float]
    bytes_per_s: float | None


@dataclass(frozen=True)
class Placed:
    """One candidate: ``attainable`` operations a second are the lower of its roofs, if known."""

    measurement: Measurement
    ops_per_byte: float
    ops_per_s: float
    roof: Roof | None
    attainable: float | None


def facts_of(hardware: Hardware) -> dict[Roof, Fact[float]]:
    """Return the peak of each precision; a sparse one counts for nothing here."""
    peak = hardware.peak
    found: dict[Roof, Fact[float] | None] = {
        "int8": peak.int8_dense_ops_per_s or peak.int8_ops_per_s,
        "fp16": peak.fp16_ops_per_s,
        "fp32": peak.fp32_ops_per_s,
    }
    return {roof: fact for roof, fact in found.items() if fact is not None}


def roofs_of(hardware: Hardware) -> Roofs:
    """Read the roofs from the catalogue."""
    rate = hardware.memory.bandwidth_bytes_per_s
    peaks = {roof: fact.value for roof, fact in facts_of(hardware).items()}
    return Roofs(peaks, rate.value if rate else None)


def is_elsewhere(m: Measurement, hardware: Hardware) -> bool:
    """Tell whether it was measured on another kind of processor than the hardware has."""
    isa = hardware.cpu.isa
    if isa is None or m.kind != "measured":
        return False
    here = FAMILIES.get(str(m.device.get("arch")))
    return here is not None and here != FAMILIES.get(isa.value, isa.value)


def place(
    measurements: Sequence[Measurement], costs: Mapping[str, "Costs"], roofs: Roofs
) -> list[Placed]:
    """Place what has a latency, a known precision and known costs of its variant."""
    found = []
    for m in measurements:
        variant, precision = words.parts(m.candidate)
        cost, p50 = costs.get(variant), m.latency_ms.p50
        if cost is None or not cost.macs or p50 is None or precision not in PRECISIONS:
            continue
        of_weight, of_activation, roof = PRECISIONS[precision]
        moved = cost.num_weights * of_weight + cost.num_activations * of_activation
        ops = 2 * cost.macs
        limits = [roofs.peaks[roof]] if roof is not None and roof in roofs.peaks else []
        if limits and roofs.bytes_per_s:
            limits.append(roofs.bytes_per_s * ops / moved)
        found.append(
            Placed(
                measurement=m,
                ops_per_byte=ops / moved,
                ops_per_s=ops / (p50 / 1e3),
                roof=roof,
                attainable=min(limits, default=None),
            )
        )
    return found
