"""A power meter on a serial line of this host, read while a device runs: docs/serial-meter.md."""

import fcntl
import os
import re
import select
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import xor
from typing import Any, Literal, cast, get_args

import numpy as np

from pipeline.errors import TargetError
from pipeline.runtimes import meters

VERSION = 1
Kind = Literal["rail", "package", "wall"]
HELLO_S = 5.0  # a microcontroller that restarts when its port opens takes two
SILENCE_S = 1.0
MAX_LINE_BYTES = 200
POLL_S = 0.05
NS_PER_S = 1e9
MARKS = tuple(f"{name}{end}" for name in meters.PHASES for end in ("", "_end"))
_HELLO = re.compile(r"slipway-meter (\d{1,9}) (\S{1,20}) ([ -~]{1,40})")
_COUNT = re.compile(r"(\d{1,18})\*([0-9A-Fa-f]{2})")

Now = Callable[[], int]


@contextmanager
def opened(
    port: str,
    *,
    now: Now = time.perf_counter_ns,
    hello_s: float = HELLO_S,
    silence_s: float = SILENCE_S,
) -> Iterator["SerialMeter"]:
    """Open a meter that has said who it is and counts.

    Args:
        port: its device file.
        now: the clock that marks are of, in nanoseconds.
        hello_s: how long it may take to say who it is.
        silence_s: how long it may say nothing afterwards.

    Raises:
        TargetError: there is no such port, somebody else holds it, or no meter is behind it.
    """
    file = _open(port)
    try:
        meter = SerialMeter(port, file, now, silence_s)
        try:
            meter.start(hello_s)
            yield meter
        finally:
            meter.stop()
    finally:
        os.close(file)


class SerialMeter:
    """What a meter counts, with the host's times. ``name`` and ``kind`` are what it says it is."""

    name: str
    kind: Kind

    def __init__(self, port: str, file: int, now: Now, silence_s: float) -> None:
        """Take an open port; `start` begins to read it."""
        self._where, self._file = f"meter on {port}", file
        self._now, self._silence_s = now, silence_s
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self._counts: list[tuple[int, int]] = []  # time (ns), microjoules
        self._said_hello, self._num_strange, self._failure = False, 0, ""
        self._rest = b""
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def start(self, hello_s: float) -> None:
        """Begin to read, and wait until the meter has said who it is and counts.

        Raises:
            TargetError: it does not.
        """
        self._thread.start()
        deadline = time.monotonic() + hello_s
        while not self._said_hello and time.monotonic() < deadline:
            self._send(b"hello\n")
            self._wait(lambda: self._said_hello, min(1.0, hello_s))
        if not self._said_hello:
            heard = f"{self._num_strange} lines came" if self._num_strange else "nothing came"
            raise TargetError(
                f"{self._where}: {heard} within {hello_s:g} s, and no first line of a meter; check "
                "that it is the meter's port, at 115200 baud (docs/serial-meter.md)"
            )
        if not self._wait(lambda: bool(self._counts), self._silence_s):
            raise self._silent("after it said who it is")
        with self._changed:
            self._num_strange = 0  # noise before a line is up is nobody's fault

    def stop(self) -> None:
        """Stop reading."""
        self._stopped.set()
        self._thread.join()

    def read(self, marks: Mapping[str, int]) -> dict[str, Any]:
        """Return what passed in the phases of `pipeline.runtimes.meters.measure`.

        Args:
            marks: for each name that it marks the host's time (ns) when that arrived.

        Returns:
            Its ``joules``, ``window_ns`` and ``idle_w``, by this meter and this clock; ``place``
            and ``facts`` of the meter.

        Raises:
            TargetError: the meter was silent for part of it, started again or is gone.
        """
        missing = [name for name in MARKS if name not in marks]
        if missing:
            raise TargetError(
                f"{self._where}: the runner did not mark {', '.join(missing)}; each phase needs "
                "its marks (docs/serial-meter.md)"
            )
        end = max(marks.values())
        if not self._wait(lambda: self._counts[-1][0] >= end, self._silence_s):
            raise self._silent("at the end")
        with self._changed:
            times, counts = zip(*self._counts, strict=True)
        taken = {
            name: self._joules(np.array(times), np.array(counts), marks[name], marks[f"{name}_end"])
            for name in meters.PHASES
        }
        idle_w = [
            taken[name] / (marks[f"{name}_end"] - marks[name]) * NS_PER_S
            for name in ("idle_before", "idle_after")
        ]
        return {
            "window_ns": marks["busy_end"] - marks["busy"],
            "joules": taken["busy"],
            "idle_w": idle_w,
            "place": self.kind,
            "facts": {"reads": "energy", "name": self.name, "num_garbled": self._num_strange},
        }

    def _joules(self, times: Any, counts: Any, start: int, end: int) -> float:
        """Return what passed between two times; between two lines energy flows evenly."""
        first = int(np.searchsorted(times, start, side="right")) - 1
        last = int(np.searchsorted(times, end, side="left"))
        if (
            first < 0
            or np.diff(times[first : last + 1]).max(initial=0) > self._silence_s * NS_PER_S
        ):
            raise self._silent("while it was read")
        # from the first line on: the differences are small, and exact in 64 bits
        ends = np.array([start, end]) - times[0]
        before, after = np.interp(ends, times - times[0], counts - counts[0])
        return float(after - before) / 1e6

    def _silent(self, when: str) -> TargetError:
        return TargetError(
            f"{self._where}: {self.name} counted nothing for {self._silence_s:g} s {when}; check "
            "its supply and its cable, and run dvc repro again"
        )

    def _wait(self, ready: Callable[[], bool], limit_s: float) -> bool:
        """Wait for what the reading thread does; raises `TargetError` when it has failed."""
        with self._changed:
            self._changed.wait_for(lambda: ready() or bool(self._failure), limit_s)
            if self._failure:
                raise TargetError(f"{self._where}: {self._failure}; nothing was recorded")
            return ready()

    def _send(self, text: bytes) -> None:
        try:
            os.write(self._file, text)
        except OSError as error:
            raise TargetError(
                f"{self._where}: it cannot be written to: {error.strerror}; plug the meter in again"
            ) from error

    def _read_on(self) -> None:
        while not self._stopped.is_set():
            if not select.select([self._file], [], [], POLL_S)[0]:
                continue
            try:
                chunk, why = os.read(self._file, 4096), "closed"
            except OSError as error:
                chunk, why = b"", error.strerror or type(error).__name__
            time_ns = self._now()
            with self._changed:
                if chunk:
                    self._take(chunk, time_ns)
                else:
                    self._failure = f"the port is gone ({why}); plug the meter in again"
                self._changed.notify_all()
                if self._failure:
                    return

    def _take(self, chunk: bytes, time_ns: int) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = line.decode("ascii", "replace").rstrip("\r")
            count, hello = _COUNT.fullmatch(text), _HELLO.fullmatch(text)
            if hello:
                self._meet(hello)
            elif count and reduce(xor, count[1].encode()) == int(count[2], 16):
                if self._said_hello:
                    self._note(time_ns, int(count[1]))
            else:
                self._num_strange += 1

    def _meet(self, hello: re.Match[str]) -> None:
        if int(hello[1]) != VERSION:
            self._failure = (
                f"it speaks version {hello[1]} of the protocol and this slipway version {VERSION}; "
                "update one of them"
            )
        elif hello[2] not in get_args(Kind):
            self._failure = f"a meter is {', '.join(get_args(Kind))}, and it says {hello[2]!r}"
        else:
            self.kind, self.name, self._said_hello = cast(Kind, hello[2]), hello[3], True

    def _note(self, time_ns: int, microjoules: int) -> None:
        if self._counts and microjoules < self._counts[-1][1]:
            self._failure = (
                f"its sum fell from {self._counts[-1][1]} to {microjoules} uJ, it started "
                "again; check its supply"
            )
        elif self._counts and self._counts[-1][0] == time_ns:
            self._counts[-1] = time_ns, microjoules  # of lines that arrive together the last is new
        else:
            self._counts.append((time_ns, microjoules))


def _open(port: str) -> int:
    """Open a port for 115200 baud, 8N1, as bytes come; nobody else who asks may hold it."""
    try:
        file = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise TargetError(
            f"meter on {port}: it cannot be opened: {error.strerror}; plug the meter in, correct "
            "profile.energy.port, or join the group that may use it"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        settings = termios.tcgetattr(file)
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        speed = termios.B115200
        settings[:6] = [0, 0, control, 0, speed, speed]
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        termios.tcsetattr(file, termios.TCSANOW, settings)
        termios.tcflush(file, termios.TCIFLUSH)
    except BlockingIOError as error:
        os.close(file)
        raise TargetError(
            f"meter on {port}: another session reads it; wait until that has ended"
        ) from error
    except termios.error as error:
        os.close(file)
        raise TargetError(
            f"meter on {port}: it is no serial port; correct profile.energy.port"
        ) from error
    return file
