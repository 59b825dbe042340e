"""Energy of the processor by the kernel's powercap files (RAPL: Intel, AMD since Zen)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

from pipeline.runtimes import sysfs
from pipeline.runtimes.errors import RunnerError


class Packages:
    """All processor packages together.

    A package's counter starts again at ``max_energy_range_uj``, after minutes at full load. Zones
    inside a package (core, dram) are part of it or beside it by model, and ``psys`` holds more than
    the processor: none of them is read.
    """

    def __init__(self, root: Path = sysfs.ROOT) -> None:
        """Find the packages.

        Raises:
            RunnerError: there is none, or its counter may not be read.
        """
        room = root / "class/powercap"
        zones = [zone for zone in sorted(room.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        names = {zone: sysfs.text(zone / "name") for zone in zones}
        self._zones = [zone for zone, name in names.items() if name.startswith("package")]
        if not self._zones:
            raise RunnerError(
                "rapl: %s has no processor package; this machine, or its virtual machine, has no "
                "such counter: take another meter" % room
            )
        self._ranges = [sysfs.number(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = self._counters()
        self._total_uj = 0
        self.facts: Dict[str, Any] = {"packages": [names[zone] for zone in self._zones]}

    def joules(self) -> float:
        """Return the energy since it was opened; it is asked before a counter starts again twice.

        Raises:
            RunnerError: a counter cannot be read any more.
        """
        counters = self._counters()
        for counter, last, full in zip(counters, self._last, self._ranges):  # noqa: B905 - 3.8
            self._total_uj += counter - last + (full if counter < last else 0)
        self._last = counters
        return self._total_uj / 1e6

    def _counters(self) -> List[int]:
        return [sysfs.number(zone / "energy_uj") for zone in self._zones]
