"""One timing at a time on a device that several hosts, or several builds of one, may reach."""

from __future__ import annotations

import fcntl
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from pipeline.runtimes.errors import RunnerError

WAIT_S = 60.0
_POLL_S = 0.05


class BusyError(RunnerError):
    """Somebody else measures on this device, and went on longer than we wait."""


@contextmanager
def held(path: Optional[str], wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock file meanwhile; the kernel gives it back however the process ends.

    Args:
        path: of the lock file; None holds nothing.
        wait_s: how long to wait for others.

    Raises:
        BusyError: they took longer.
    """
    if path is None:
        yield
        return
    deadline = time.monotonic() + wait_s
    with Path(path).open("a", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        "the device is busy with another measurement for over %g s; try again "
                        "later" % wait_s
                    ) from error
                time.sleep(_POLL_S)
        yield
