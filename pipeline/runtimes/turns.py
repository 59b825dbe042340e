"""Timing in turns of milliseconds, with other runners in between and on the same cores.

On a machine that is shared, a core's speed changes by half and more within a second, and differs
from the next core's. What is timed within milliseconds on the same core meets the same.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, TextIO

from pipeline.runtimes import device_lock, host
from pipeline.runtimes.errors import RunnerError

# How much a core can do where they differ (Linux, Documentation/ABI, cpu_capacity).
CAPACITY = "devices/system/cpu/cpu%d/cpu_capacity"
KEYS = ("turn_ns", "core")
REST_STEP_S, REST_LIMIT_S = 0.001, 0.2
MAX_REST_RATIO = 0.5  # of a step; waking up takes a tenth


@dataclass
class Turns:
    """The turns of one runner; between them it says so, and waits for a line.

    ``lock`` is held within turns alone, and ``busy`` watches others within them alone.
    """

    turn_ns: int
    lock: Optional[str]
    requests: TextIO
    replies: TextIO
    busy: host.OthersWatch = field(default_factory=host.OthersWatch)
    num_taken: int = 0
    _held: ExitStack = field(default_factory=ExitStack)

    def begin(self) -> None:
        """Take the device.

        Raises:
            BusyError: another host measures on it.
        """
        self._held.enter_context(device_lock.held(self.lock))
        self.busy.start()

    def close(self) -> None:
        """Let others have it."""
        self.busy.stop()
        self._held.close()

    def wait(self) -> None:
        """Let others have the device, and its cores, until a line comes.

        Raises:
            RunnerError: whoever asked is gone.
            BusyError: as in `begin`.
        """
        rest()
        self.close()
        self.replies.write(json.dumps({"turn": self.num_taken}) + "\n")
        self.replies.flush()
        self.num_taken += 1
        if not self.requests.readline():
            raise RunnerError("whoever asked is gone")
        self.begin()


def rest(limit_s: float = REST_LIMIT_S) -> None:
    """Return when no thread of this process uses a processor any more, or after the limit.

    A runtime's threads go on spinning for tens of milliseconds behind a run, in case that another
    one comes: on the cores on which the others are timed.
    """
    deadline, before = time.monotonic() + limit_s, time.process_time()
    while time.monotonic() < deadline:
        time.sleep(REST_STEP_S)
        used, before = time.process_time() - before, time.process_time()
        if used < MAX_REST_RATIO * REST_STEP_S:
            return


def use_cores(first: int, number: int, system: Path = host.SYSTEM) -> None:
    """Keep this process, and what it starts, on some cores; where the system cannot, on all.

    Args:
        first: which of the cores that it may use, counted round; of those of several kinds only the
            quickest count, which a scheduler would choose too.
        number: how many, one after another; all that it may use if there are not as many.
        system: where the kernel tells of cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = sorted(os.sched_getaffinity(0))
    capacities = [_capacity(system, core) for core in usable]
    quickest = [core for core, has in zip(usable, capacities) if has == max(capacities)]  # noqa: B905 - Python 3.8
    if number > len(quickest):
        return
    os.sched_setaffinity(0, {quickest[(first + i) % len(quickest)] for i in range(number)})


def _capacity(system: Path, core: int) -> int:
    """Return 0 where the kernel tells of no difference."""
    try:
        return int((system / (CAPACITY % core)).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def are_well_formed(asked: Any) -> bool:
    """Tell whether that is what a request may hold for ``turns``."""
    return (
        isinstance(asked, Mapping)
        and set(asked) == set(KEYS)
        and all(type(value) is int and value >= 0 for value in asked.values())
    )
