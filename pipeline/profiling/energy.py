"""Energy of one request: from what a meter read around many, or from the catalogue's power.

A meter's: ``(joules of the window - idle watts x window) / runs``, where idling is the mean of
before and after (docs of `pipeline.runtimes.meters`). A modelled one is latency times power, which
nobody measured: it is never compared with a meter's (`pipeline.planning.selection`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from pipeline.errors import TargetError
from pipeline.measurement import Energy
from pipeline.runtimes import host
from pipeline.targets.hardware import Fact, Hardware

Place = Literal["rail", "package", "wall"]
# Where the meters sit that a device reads itself. NVML's is of the GPU with its memory and the
# circuits around them (nvml.h): more than a chip, less than a wall, and no rail that can be named.
PLACES: dict[str, Place] = {"rapl": "package", "nvml": "package", "ina": "rail"}
MIN_WINDOW_S = 10.0
# A serial meter's window is between the arrivals of two marks, which come some milliseconds late.
WINDOW_MARGIN_RATIO = 0.01
MAX_IDLE_DRIFT_RATIO = 0.05
# As of latency: beyond this the joules are no longer this program's alone.
MAX_OTHERS_RATIO = 0.1
NS_PER_S = 1e9
MJ_PER_J = 1e3


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner says of ``energy``; of a serial meter with what the host read in place."""

    meter: str
    window_ns: int
    num_runs: int
    joules: float
    idle_w: tuple[float, float]
    place: Place | None = None
    facts: dict[str, Any] = {}
    host_before: dict[str, Any] = {}
    host_after: dict[str, Any] = {}
    others_ratio: float | None = None
    clock_jump: bool = False


def metered(reply: Mapping[str, Any]) -> Energy:
    """Turn a meter's readings into the energy of one request above idle.

    A figure that is not above zero stays as it is and carries ``below_idle``: the work is lost in
    what the meter cannot tell. ``idle_drift``: idling before and after differ by more than 5 %.
    ``rails_summed``: no rail of the whole device is read, so one may count twice or be missing.
    ``throttled`` and ``clock_jump`` make it invalid, as they do a latency.

    Args:
        reply: of `pipeline.runtimes.meters.measure`; of a serial meter together with what
            `pipeline.profiling.serial_meter.SerialMeter.read` gives.

    Raises:
        TargetError: it is not such a reply, the meter is not known, nothing ran, or the window is
            too short.
    """
    try:
        found = msgspec.convert(dict(reply), _Reply)
    except msgspec.ValidationError as error:
        raise TargetError(
            f"energy: the runner's reply cannot be used: {error}; update the runner"
        ) from error
    window_s = found.window_ns / NS_PER_S
    place = found.place or PLACES.get(found.meter)
    if place is None:
        raise TargetError(
            f"energy: meter {found.meter!r} is not known, so nothing says where it sits; known: "
            f"{', '.join(PLACES)}, serial"
        )
    if found.num_runs < 1:
        raise TargetError(
            f"energy: {found.num_runs} runs in {window_s:.3g} s by meter {found.meter!r} tell "
            "nothing; update the runner"
        )
    if window_s < MIN_WINDOW_S * (1 - WINDOW_MARGIN_RATIO):
        raise TargetError(
            f"energy: a window of {window_s:.3g} s by meter {found.meter!r} is too short; "
            f"{MIN_WINDOW_S:g} s are needed"
        )
    idle_w = sum(found.idle_w) / 2
    value_mj = (found.joules - idle_w * window_s) / found.num_runs * MJ_PER_J
    name = found.facts.get("name")
    return Energy(
        value_mj=value_mj,
        meter=f"{found.meter}: {name}" if name else found.meter,
        kind=place,
        window_s=window_s,
        num_runs=found.num_runs,
        idle_w=idle_w,
        busy_w=found.joules / window_s,
        flags=_flags(found, value_mj),
    )


def _flags(found: _Reply, value_mj: float) -> tuple[str, ...]:
    low, high = sorted(found.idle_w)
    flags = {
        "below_idle": value_mj <= 0,
        "clock_jump": found.clock_jump,
        "host_busy": (found.others_ratio or 0) > MAX_OTHERS_RATIO,
        "idle_drift": high - low > MAX_IDLE_DRIFT_RATIO * high,
        "meter_garbled": found.facts.get("num_garbled", 0) > 0,
        "rails_summed": bool(found.facts.get("summed")),
        "throttled": host.was_throttled(found.host_before, found.host_after),
    }
    return tuple(name for name, is_set in flags.items() if is_set)


def modelled(hardware: Hardware, p50_ms: float, timed_by: str) -> Energy:
    """Return latency times the power of the catalogue: the most it takes, less what idling takes.

    Where idling is not known the whole power counts, and the figure carries ``idle_not_known``.
    ``busy_w`` and ``idle_w`` are the catalogue's; ``window_s`` and ``num_runs`` are 0: nothing was
    read.

    Args:
        hardware: an entry, or the user's own.
        p50_ms: measured, or the compiler's estimate.
        timed_by: what it was measured on, which need not be that hardware, or what estimated it.

    Raises:
        TargetError: the entry does not say what the hardware takes at most.
    """
    busy = busy_power(hardware)
    idle = hardware.power.idle_w
    power = f"power.max_w of {hardware.name}{', less power.idle_w' if idle else ''}"
    return Energy(
        value_mj=(busy.value - (idle.value if idle else 0.0)) * p50_ms,
        meter=f"{power}, times p50 {timed_by}",
        kind="modelled",
        window_s=0.0,
        num_runs=0,
        idle_w=idle.value if idle else None,
        busy_w=busy.value,
        flags=() if idle else ("idle_not_known",),
    )


def busy_power(hardware: Hardware) -> Fact[float]:
    """Return the most that the hardware takes.

    Raises:
        TargetError: its entry does not say.
    """
    if hardware.power.max_w is None:
        raise TargetError(
            f"{hardware.name}: its entry has no power.max_w, so energy cannot be modelled; give a "
            "file of your own with that fact, or take a meter"
        )
    return hardware.power.max_w
