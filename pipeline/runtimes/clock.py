"""Timing one request, again and again: batches, warm-up until steady, raw samples.

A sample is the time of ``runs_per_sample`` runs one after another, so that the timer and the loop
stay small beside it. What a run holds (copy in, run, copy out) is the caller's; nothing is
subtracted from a sample.

Samples are of the monotonic clock, which nobody sets. Around them it is held against the clock that
runs through a suspend and against the wall clock, which a virtual machine that was stopped sets
right afterwards: what was timed across such a gap had cold caches and another processor's clock.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import statistics
import time
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

Run = Callable[[], Any]
Now = Callable[[], int]

SAMPLE_NS = 100_000  # a shorter sample would hold too much of the timer and of the Python call
BLOCK_NS = 10_000_000
NUM_STEADY_BLOCKS = 5
STEADY_SPREAD_RATIO = 0.02
NUM_OVERHEAD_SAMPLES = 21
RUNS_PER_OVERHEAD_SAMPLE = 200
# A suspend takes longer than this; two readings of three clocks are surer than this.
MAX_SUSPENDED_NS = 5_000_000
# NTP turns the wall clock by 500 ppm at most (adjtimex(2)); what is off by more was set.
MAX_DRIFT_NS, MAX_DRIFT_RATIO = 20_000_000, 0.001
NUM_READINGS = 5
_HAS_BOOT_CLOCK = hasattr(time, "CLOCK_BOOTTIME")  # Linux


class Plan(NamedTuple):
    """How long to warm up at most, how long to time, and how many samples to take at least."""

    warmup_ns: int
    timed_ns: int
    min_samples: int


class Reading(NamedTuple):
    """Three clocks at one moment, in ns; ``boot`` also counts while suspended, None if unknown."""

    monotonic: int
    boot: Optional[int]
    wall: int


class Gap(NamedTuple):
    """How far the other clocks went beyond the monotonic one, in ns: suspended, set, or neither."""

    clock_suspended_ns: Optional[int]
    clock_drift_ns: int
    clock_jump: bool


class Timing(NamedTuple):
    """Raw samples (ns) of ``runs_per_sample`` runs each, after ``num_warmup`` discarded runs.

    ``samples_per_turn`` counts them where they were taken in turns. The last three are as in `Gap`,
    of all the time that this took.
    """

    samples_ns: List[int]
    runs_per_sample: int
    num_warmup: int
    steady: bool
    loop_overhead_ns: float
    samples_per_turn: Optional[List[int]]
    clock_suspended_ns: Optional[int]
    clock_drift_ns: int
    clock_jump: bool

    def document(self) -> Dict[str, Any]:
        """Return the fields for JSON."""
        return self._asdict()


class Turns(Protocol):
    """How long a turn is, and what waits for the next one: `pipeline.runtimes.turns`."""

    turn_ns: int

    def wait(self) -> None:
        """Return when it begins."""
        ...


class WarmUp(NamedTuple):
    """What warming up found: runs made, whether they got steady, runs that make a sample."""

    num_runs: int
    steady: bool
    runs_per_sample: int


def read() -> Reading:
    """Read the clocks, as close together as a few tries get them."""
    tries = []
    for _ in range(NUM_READINGS):
        before = time.perf_counter_ns()
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if _HAS_BOOT_CLOCK else None
        wall = time.time_ns()
        after = time.perf_counter_ns()
        tries.append((after - before, Reading((before + after) // 2, boot, wall)))
    return min(tries, key=lambda found: found[0])[1]


def gap(before: Reading, after: Reading) -> Gap:
    """Say whether the machine was suspended, or its wall clock set, between two readings."""
    passed = after.monotonic - before.monotonic
    suspended = None
    if before.boot is not None and after.boot is not None:
        suspended = after.boot - before.boot - passed
    drift = after.wall - before.wall - passed
    allowed = MAX_DRIFT_NS + MAX_DRIFT_RATIO * passed
    return Gap(suspended, drift, (suspended or 0) > MAX_SUSPENDED_NS or abs(drift) > allowed)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from running, and let it be as before afterwards."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def time_runs(
    run: Run,
    plan: Plan,
    now: Now = time.perf_counter_ns,
    read_clocks: Callable[[], Reading] = read,
    turns: Optional[Turns] = None,
) -> Timing:
    """Warm up until steady, then take samples; the garbage collector rests meanwhile.

    In turns, a sample that does not count comes first in each: others ran before it.
    """
    before = read_clocks()
    with collector_at_rest():
        num_warmup, steady, runs = warm_up(run, plan.warmup_ns, now)
        if turns is None:
            per_turn = [_collect(run, runs, plan, now)]
        else:
            per_turn = _collect_in_turns(run, runs, plan, now, turns)
    samples_ns = [sample for samples in per_turn for sample in samples]
    counts = None if turns is None else [len(samples) for samples in per_turn]
    found = gap(before, read_clocks())
    overhead_ns = _loop_overhead_ns(now)
    return Timing(samples_ns, runs, num_warmup, steady, overhead_ns, counts, *found)


def warm_up(run: Run, limit_ns: int, now: Now = time.perf_counter_ns) -> WarmUp:
    """Run until steady, or for ``limit_ns`` and five blocks at least."""
    runs, num_first = _runs_per_sample(run, now)
    made, steady, sample_ns = _warm_up(run, runs, limit_ns, now)
    # a warm run is shorter than those that the batch was sized by
    if sample_ns < SAMPLE_NS:
        runs = math.ceil(runs * SAMPLE_NS / max(sample_ns, 1))
    return WarmUp(num_first + made, steady, runs)


def is_steady(medians_ns: Sequence[float]) -> bool:
    """Tell whether the last five block medians lie within 2 % and neither only rise nor only fall.

    Five medians without a trend are in strict order by chance in 2 of 120 cases.
    """
    last = medians_ns[-NUM_STEADY_BLOCKS:]
    if len(last) < NUM_STEADY_BLOCKS or max(last) > min(last) * (1 + STEADY_SPREAD_RATIO):
        return False
    pairs = [(last[i], last[i + 1]) for i in range(len(last) - 1)]
    return not (all(a < b for a, b in pairs) or all(a > b for a, b in pairs))


def _sample_ns(run: Run, runs: int, now: Now) -> int:
    repeats = itertools.repeat(None, runs)
    start = now()
    for _ in repeats:
        run()
    return now() - start


def _runs_per_sample(run: Run, now: Now) -> Tuple[int, int]:
    """Double the batch until one sample is long enough: ``(runs a sample, runs made)``."""
    runs, made = 1, 1
    while _sample_ns(run, runs, now) < SAMPLE_NS:
        runs *= 2
        made += runs
    return runs, made


def _warm_up(run: Run, runs: int, limit_ns: int, now: Now) -> Tuple[int, bool, int]:
    """Run blocks until steady, or the limit: ``(runs made, steady, last block's median)``."""
    medians: List[float] = []
    made, start = 0, now()
    while True:
        samples: List[int] = []
        while not samples or sum(samples) < BLOCK_NS:
            samples.append(_sample_ns(run, runs, now))
        made += runs * len(samples)
        medians.append(statistics.median(samples))
        steady = is_steady(medians)
        out_of_time = now() - start >= limit_ns and len(medians) >= NUM_STEADY_BLOCKS
        if steady or out_of_time:
            return made, steady, int(medians[-1])


def _collect(run: Run, runs: int, plan: Plan, now: Now) -> List[int]:
    samples: List[int] = []
    start = now()
    while len(samples) < plan.min_samples or now() - start < plan.timed_ns:
        samples.append(_sample_ns(run, runs, now))
    return samples


def _collect_in_turns(run: Run, runs: int, plan: Plan, now: Now, turns: Turns) -> List[List[int]]:
    """Take samples until the plan is fulfilled, in turns of one sample at least."""
    per_turn: List[List[int]] = []
    num_missing, missing_ns = plan.min_samples, plan.timed_ns
    while num_missing > 0 or missing_ns > 0:
        turns.wait()
        _sample_ns(run, runs, now)
        turn = Plan(0, min(turns.turn_ns, max(missing_ns, 0)), 1)
        start = now()
        per_turn.append(_collect(run, runs, turn, now))
        num_missing -= len(per_turn[-1])
        missing_ns -= now() - start
    return per_turn


def _loop_overhead_ns(now: Now) -> float:
    """Time the same loop around a call that does nothing: nanoseconds a run, timer included."""
    nothing = functools.partial(_nothing, ())
    samples = [
        _sample_ns(nothing, RUNS_PER_OVERHEAD_SAMPLE, now) for _ in range(NUM_OVERHEAD_SAMPLES)
    ]
    return statistics.median(samples) / RUNS_PER_OVERHEAD_SAMPLE


def _nothing(_inputs: Any) -> None:
    """Stand in for a session's run."""
