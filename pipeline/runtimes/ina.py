"""Power of a Jetson by its INA3221 monitors, as the kernel's hwmon driver shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from pipeline.runtimes import sysfs
from pipeline.runtimes.errors import RunnerError

# The whole module's, of which the other rails are parts (Jetson Linux Developer Guide, power rails
# by module; the name differs by release).
INPUT_RAILS = ("VDD_IN", "5V_IN", "POM_5V_IN")
NOT_CONNECTED = ("", "NC")


class Rails:
    """The input rail where there is one, else all rails together.

    ``facts``: the ``rails`` that are read, and whether they are ``summed``: then nothing says that
    none is part of another, or that none is missing.
    """

    def __init__(self, root: Path = sysfs.ROOT) -> None:
        """Find the rails.

        Raises:
            RunnerError: there is none, or it may not be read.
        """
        room = root / "bus/i2c/drivers/ina3221"
        found = {}
        # channels 1 to 3; beyond are shunt voltages and sums of these (kernel: hwmon/ina3221)
        for label in sorted(room.glob("*/hwmon/hwmon*/in[123]_label")):
            monitor, channel = label.parent, label.name[2]
            files = monitor / ("in%s_input" % channel), monitor / ("curr%s_input" % channel)
            found[sysfs.text(label)] = files
        for name in NOT_CONNECTED:
            found.pop(name, None)
        if not found:
            raise RunnerError(
                "ina: %s has no rail; this device has no INA3221, or another driver for it: take "
                "another meter" % room
            )
        whole = [name for name in INPUT_RAILS if name in found][:1]
        self._files = [found[name] for name in whole or found]
        self.facts: Dict[str, Any] = {"rails": whole or list(found), "summed": not whole}

    def watts(self) -> float:
        """Return the power now: millivolts x milliamperes, summed.

        Raises:
            RunnerError: a rail cannot be read any more.
        """
        return (
            sum(sysfs.number(volts) * sysfs.number(amperes) for volts, amperes in self._files) / 1e6
        )
