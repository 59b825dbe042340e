"""Energy of many requests in a row, by a meter that is read on the device itself.

``rapl``    the counters of all processor packages
``nvml``    the first GPU's energy counter; where it has none its power, sampled
``ina``     the rails of a Jetson, sampled
``serial``  somebody else reads it: here the phases are only marked

Back-to-back runs fill one window; before and after it the device idles with the model loaded. The
meter is read at both ends of each phase, and the host subtracts what idling would have taken.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Protocol

from pipeline.runtimes import clock, host, ina, nvml, rapl, sysfs
from pipeline.runtimes.errors import RunnerError

MIN_WINDOW_NS = 10_000_000_000  # counters step every 1 to 100 ms: at most 1 % of it
MIN_IDLE_NS = 2_000_000_000
SETTLE_NS = 500_000_000  # clocks and voltages fall a while after the last run
SAMPLES_PER_S = 50  # of a power reading: an INA3221 on its bus takes some milliseconds
READ_EVERY_NS = 10_000_000_000  # often enough to see each time that a counter starts again
PHASES = ("idle_before", "busy", "idle_after")
BATCH_NS = 1_000_000  # of runs between two looks at the clock

Run = Callable[[], Any]
Now = Callable[[], int]
Sleep = Callable[[float], None]
Mark = Callable[[str], None]


class Reading(NamedTuple):
    """The joules since some start, None where somebody else reads them."""

    time_ns: int
    joules: Optional[float]


class Meter(Protocol):
    """An open meter; ``facts`` says what it reads."""

    facts: Dict[str, Any]

    def read(self) -> Reading:
        """Read it now; raises `RunnerError` when it cannot be read any more."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


def measure(
    run: Run,
    meter: str,
    window_ns: int,
    *,
    now: Now = time.perf_counter_ns,
    sleep: Sleep = time.sleep,
    mark: Mark = lambda _name: None,
    root: Path = sysfs.ROOT,
) -> Dict[str, Any]:
    """Run back to back for a window between two times of idling, and read the meter at all ends.

    Args:
        run: one request.
        meter: ``rapl``, ``nvml``, ``ina`` or ``serial``.
        window_ns: of the runs, at least ten seconds; idling is a fifth of it, at least 2 s.
        now: the clock, in nanoseconds.
        sleep: idles for so many seconds.
        mark: called with ``NAME`` where one of `PHASES` begins and ``NAME_end`` where it ends.
        root: where the kernel's files are.

    Returns:
        ``window_ns`` and ``num_runs`` of the busy phase, its ``joules``, and ``idle_w``: the watts
        before and after it; joules and watts are None of a meter that somebody else reads. Beside
        them ``facts`` of the meter, what `pipeline.runtimes.host` says of the machine, and the
        fields of `clock.Gap`.

    Raises:
        RunnerError: there is no such meter here, it may not be read, or the window is too short.
    """
    if window_ns < MIN_WINDOW_NS:
        raise RunnerError(
            "a window of %g s is too short for energy, since counters step seldom; take %g s"
            % (window_ns / 1e9, MIN_WINDOW_NS / 1e9)
        )
    opened = _open(meter, now, root)
    try:
        host_before, cpu_before, clocks = host.state(), host.cpu_time(), clock.read()
        found = _Phases(opened, now, sleep, mark).all(run, window_ns)
        gap = clock.gap(clocks, clock.read())
        others_ratio = host.others_ratio(cpu_before, host.cpu_time())
    finally:
        opened.close()
    return {
        "meter": meter,
        **found,
        "facts": opened.facts,
        "host_before": host_before,
        "host_after": host.state(),
        "others_ratio": others_ratio,
        **gap._asdict(),
    }


def check(meter: str, *, root: Path = sysfs.ROOT) -> None:
    """Read a meter once.

    Raises:
        RunnerError: there is no such meter here, or it may not be read.
    """
    opened = _open(meter, time.perf_counter_ns, root)
    try:
        opened.read()
    finally:
        opened.close()


class _Phase(NamedTuple):
    """What happened between two readings."""

    time_ns: int
    joules: Optional[float]
    num_runs: int

    @property
    def watts(self) -> Optional[float]:
        return None if self.joules is None else self.joules / (self.time_ns / 1e9)


class _Phases:
    """Idle, busy, idle."""

    def __init__(self, meter: Meter, now: Now, sleep: Sleep, mark: Mark) -> None:
        self._meter, self._now, self._sleep, self._mark = meter, now, sleep, mark

    def all(self, run: Run, window_ns: int) -> Dict[str, Any]:
        idle_ns = max(MIN_IDLE_NS, window_ns // 5)
        # both times of idling come after work, so that the device's clocks and heat are alike
        start = self._now()
        num_warm = self._run_for(run, idle_ns, 1)
        batch = max(1, num_warm * BATCH_NS // max(1, self._now() - start))
        before = self._idle("idle_before", idle_ns)
        busy = self._between("busy", lambda: self._run_for(run, window_ns, batch))
        after = self._idle("idle_after", idle_ns)
        return {
            "window_ns": busy.time_ns,
            "num_runs": busy.num_runs,
            "joules": busy.joules,
            "idle_w": [before.watts, after.watts],
        }

    def _idle(self, name: str, idle_ns: int) -> _Phase:
        self._sleep(SETTLE_NS / 1e9)
        return self._between(name, lambda: self._sleep(idle_ns / 1e9))

    def _between(self, name: str, work: Callable[[], Optional[int]]) -> _Phase:
        self._mark(name)
        before = self._meter.read()
        num_runs = work()
        after = self._meter.read()
        self._mark(name + "_end")
        joules = None
        if before.joules is not None and after.joules is not None:
            joules = after.joules - before.joules
        return _Phase(after.time_ns - before.time_ns, joules, num_runs or 0)

    def _run_for(self, run: Run, limit_ns: int, batch: int) -> int:
        """Run until the time is over, and return how often; the garbage collector rests."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            num_runs, start, last_read = 0, self._now(), self._now()
            while True:
                for _ in itertools.repeat(None, batch):
                    run()
                num_runs += batch
                time_ns = self._now()
                if time_ns - start >= limit_ns:
                    return num_runs
                if time_ns - last_read >= READ_EVERY_NS:
                    self._meter.read()
                    last_read = time_ns
        finally:
            if collecting:
                gc.enable()


def _open(meter: str, now: Now, root: Path) -> Meter:
    if meter == "rapl":
        packages = rapl.Packages(root)
        return Counter(now, packages.joules, packages.facts)
    if meter == "nvml":
        gpu = nvml.Gpu()
        return Counter(now, gpu.joules, {}) if gpu.counts_energy else Sampled(now, gpu.watts, {})
    if meter == "ina":
        rails = ina.Rails(root)
        return Sampled(now, rails.watts, rails.facts)
    if meter == "serial":
        return Elsewhere(now)
    raise RunnerError("meter %r is not known; known: rapl, nvml, ina, serial" % meter)


class Elsewhere:
    """A meter that somebody else reads, by the marks."""

    def __init__(self, now: Now) -> None:
        """Take the clock."""
        self._now = now
        self.facts: Dict[str, Any] = {}

    def read(self) -> Reading:
        """Return the time alone."""
        return Reading(self._now(), None)

    def close(self) -> None:
        """Do nothing."""


class Counter:
    """Joules from what counts them itself."""

    def __init__(self, now: Now, joules: Callable[[], float], facts: Dict[str, Any]) -> None:
        """Take the clock, and what reads the counter."""
        self._now, self._joules = now, joules
        self.facts = dict(facts, reads="energy")

    def read(self) -> Reading:
        """Read the counter."""
        return Reading(self._now(), self._joules())

    def close(self) -> None:
        """Do nothing."""


class Sampled:
    """Joules from a power reading, which a thread takes; straight lines join the samples.

    Idling is sampled as the runs are, so that what sampling itself takes is in both.
    """

    def __init__(self, now: Now, watts: Callable[[], float], facts: Dict[str, Any]) -> None:
        """Take the clock and what reads the power, and start sampling."""
        self._now, self._watts = now, watts
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._last, self._joules = (now(), watts()), 0.0
        self._failure: Optional[RunnerError] = None
        self.facts = dict(facts, reads="power", samples_per_s=SAMPLES_PER_S)
        self._thread = threading.Thread(target=self._sample_on, daemon=True)
        self._thread.start()

    def read(self) -> Reading:
        """Take a sample and return the joules until then.

        Raises:
            RunnerError: this sample, or one before it, cannot be read.
        """
        if self._failure is not None:
            raise RunnerError("the meter stopped: %s" % self._failure) from self._failure
        return self._sample()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _sample_on(self) -> None:
        try:
            while not self._stopped.wait(1 / SAMPLES_PER_S):
                self._sample()
        except RunnerError as error:
            self._failure = error  # the next `read` says it

    def _sample(self) -> Reading:
        with self._lock:
            time_ns, watts = self._now(), self._watts()
            last_ns, last_watts = self._last
            self._joules += (watts + last_watts) / 2 * (time_ns - last_ns) / 1e9
            self._last = time_ns, watts
            return Reading(time_ns, self._joules)
