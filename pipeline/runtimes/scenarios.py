"""Loads beside SingleStream, as MLPerf Inference defines them (arXiv:1911.02549, table 3).

``MultiStream``  queries of several samples, each issued when the one before is answered. The
                 latency of a query is that of its last sample.
``Server``       queries of one sample that arrive as a Poisson process, whether or not the ones
                 before are answered, and are served in the order of their arrival. Latency counts
                 from the arrival that was scheduled, so that waiting in the queue is in it.
``Offline``      samples that are all there from the start, in batches; throughput alone. There are
                 as many as are done in the time asked for.

A stream is a session in a thread of its own, since some runtimes tie a session to the thread that
loaded it. Threads share Python's lock: they run at once while a runtime computes and lets go of it,
which for requests of a few microseconds it hardly does, and tflite-micro never. Handing a query's
parts to several streams, waking up for an arrival, and the lock are in the latency; they are some
10 us each.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np

from pipeline.runtimes import arrivals, clock, host
from pipeline.runtimes.arrivals import NS_PER_S, Now, Queue, Request, Sleep, Watch
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Session, encode_all, of_one

# A run ends by then even if it has too few queries, in ns; or after so many times what was asked.
LIMIT_NS, LIMIT_RATIO = 60_000_000_000, 3
# A server still at work when twice the time of all arrivals is over has lost.
OVERRUN_RATIO = 2
LEAD_NS = 2_000_000  # from the start of a server's threads to the time that arrivals count from


class LoadError(RunnerError):
    """What is asked for is no load."""


class _RefusedError(Exception):
    """The runtime opens no such session of the model."""


class Plan(NamedTuple):
    """One load: its scenario, how it is made, how much of it; ``seed`` is of Server's arrivals."""

    scenario: str
    warmup_ns: int
    timed_ns: int
    min_queries: int
    batch_size: int = 1
    num_streams: int = 1
    num_threads: int = 1
    samples_per_query: int = 1
    queries_per_s: Optional[float] = None
    seed: int = 0

    @property
    def limit_ns(self) -> int:
        """When to end at the latest."""
        return max(LIMIT_NS, LIMIT_RATIO * self.timed_ns)


class Stream(NamedTuple):
    """A session, and the one thread that it is loaded and run in."""

    thread: ThreadPoolExecutor
    session: Session


class Done(NamedTuple):
    """What a scenario gave; times in ns. ``latencies_ns`` of Offline is empty."""

    latencies_ns: List[int]
    num_queries: int
    num_samples: int
    duration_ns: int
    facts: Dict[str, Any]
    overloaded: bool = False
    too_short: bool = False


def run_load(
    load_model: Callable[[int, int], Session], tensors: Array, load: Mapping[str, Any]
) -> Dict[str, Any]:
    """Run one load of a model: `run` on preprocessed samples.

    Args:
        load_model: called with ``num_threads`` and ``batch_size`` of the load.
        tensors: [N, ...] preprocessed, structured where there are several inputs.
        load: as in `run`.

    Raises:
        LoadError, RunnerError: as `run`.
    """
    plan = _plan(load)

    def open_session() -> Session:
        return load_model(plan.num_threads, plan.batch_size)

    def whole() -> Dict[str, Any]:
        inputs = of_one(_opened(open_session).inputs)  # of a session that goes at once
        samples = [encode_all(tensors[i : i + 1], inputs) for i in range(len(tensors))]
        return _run(open_session, samples, plan, Watch(time.perf_counter_ns, arrivals.pause))

    return _or_reason(whole)


def run(
    open_session: Callable[[], Session],
    samples: Sequence[Request],
    load: Mapping[str, Any],
    now: Now = time.perf_counter_ns,
    sleep: Sleep = arrivals.pause,
) -> Dict[str, Any]:
    """Run one load: warm up every stream, all at once, until steady or out of time; then time it.

    The garbage collector rests. That the runtime opens no such session, such as of a batch with a
    file that takes none, is the ``reason`` of the document, which is then all that it says.

    Args:
        open_session: gives another session for requests of ``batch_size`` samples.
        samples: encoded for the session, one sample each; they are taken again and again.
        load: the fields of `Plan`.
        now: the monotonic clock, in ns.
        sleep: waits so many seconds, as `arrivals.pause`.

    Returns:
        For JSON: ``latencies_ns`` of each query answered (none of Offline), ``num_queries``,
        ``num_samples``, ``duration_ns``, ``throughput_per_s`` (samples), ``num_warmup``,
        ``steady``, the fields of `clock.Gap`, the host's state before and after, ``facts`` of the
        session and of the scenario, and ``flags``:

        - ``overloaded``: queries arrive faster than streams can answer them, so the queue grows
          without bound, and latency says only how long this went on.
        - ``too_short``: ended at its limit with less time or fewer queries than asked for.
        - ``short_queries``: half of them answered in under 100 us, so that Python's part shows in
          the latency; never of Offline, which has none.
        - ``not_steady``, ``clock_jump``, ``throttled``: as of SingleStream.

    Raises:
        LoadError: what is asked for is no load.
        RunnerError: anything else; a request failed.
    """
    plan = _plan(load)
    return _or_reason(lambda: _run(open_session, samples, plan, Watch(now, sleep)))


def batches_of(samples: Sequence[Request], batch_size: int) -> List[Request]:
    """Join samples to requests of ``batch_size``, each input along its first axis.

    They start again at the first where there are too few; a rest that fills no batch is left out.
    """
    if batch_size == 1:
        return list(samples)
    taken = itertools.cycle(samples)
    groups = [
        list(itertools.islice(taken, batch_size)) for _ in range(max(1, len(samples) // batch_size))
    ]
    return [
        [np.concatenate(values) for values in zip(*group)]  # noqa: B905 - Python 3.8
        for group in groups
    ]


def _plan(load: Mapping[str, Any]) -> Plan:
    try:
        plan = Plan(**load)
    except TypeError as error:
        raise LoadError("the load is not one of ours: %s" % error) from error
    if plan.scenario not in _SCENARIOS:
        raise LoadError(
            "scenario %r is not known; known: %s" % (plan.scenario, ", ".join(_SCENARIOS))
        )
    if plan.scenario == "MultiStream" and plan.samples_per_query % plan.batch_size:
        raise LoadError(
            "MultiStream: samples_per_query must be a multiple of batch_size %d, got %d"
            % (plan.batch_size, plan.samples_per_query)
        )
    if plan.scenario == "Server" and (plan.batch_size != 1 or not plan.queries_per_s):
        raise LoadError(
            "Server needs queries_per_s above 0 and takes batch_size 1, got %s and %d"
            % (plan.queries_per_s, plan.batch_size)
        )
    return plan


def _or_reason(whole: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    try:
        return whole()
    except _RefusedError as error:
        return {"reason": " ".join(str(error).split())}


def _opened(open_session: Callable[[], Session]) -> Session:
    try:
        return open_session()
    except RunnerError as error:
        raise _RefusedError(str(error)) from error


def _run(
    open_session: Callable[[], Session], samples: Sequence[Request], plan: Plan, watch: Watch
) -> Dict[str, Any]:
    batches = batches_of(samples, plan.batch_size)
    with ExitStack() as stack, clock.collector_at_rest():
        streams = []
        for _ in range(plan.num_streams):  # one after another: none is loaded beside another
            thread = stack.enter_context(ThreadPoolExecutor(1))
            streams.append(Stream(thread, thread.submit(_opened, open_session).result()))
        state, cpu, clocks = host.state(), host.cpu_time(), clock.read()
        warm = _warm_up(streams, batches, plan, watch)
        done = _SCENARIOS[plan.scenario](streams, batches, plan, watch, warm)
        gap = clock.gap(clocks, clock.read())
        after, cpu_after = host.state(), host.cpu_time()
    flags = {
        "clock_jump": gap.clock_jump,
        "not_steady": not all(each.steady for each in warm),
        "overloaded": done.overloaded,
        "short_queries": bool(done.latencies_ns)
        and statistics.median(done.latencies_ns) < clock.SAMPLE_NS,
        "throttled": host.was_throttled(state, after),
        "too_short": done.too_short,
    }
    return {
        "reason": None,
        "latencies_ns": done.latencies_ns,
        "num_queries": done.num_queries,
        "num_samples": done.num_samples,
        "duration_ns": done.duration_ns,
        "throughput_per_s": done.num_samples / max(done.duration_ns, 1) * NS_PER_S,
        "num_warmup": sum(each.num_runs for each in warm),
        "steady": not flags["not_steady"],
        **gap._asdict(),
        "facts": {**streams[0].session.facts, **done.facts},
        "host_before": state,
        "host_after": after,
        "others_ratio": host.others_ratio(cpu, cpu_after),
        "flags": [name for name, is_set in flags.items() if is_set],
    }


def _warm_up(
    streams: Sequence[Stream], batches: Sequence[Request], plan: Plan, watch: Watch
) -> List[clock.WarmUp]:
    """Warm up all streams beside each other, which is how they will run."""

    def one(session: Session) -> clock.WarmUp:
        taken = itertools.cycle(batches)
        return clock.warm_up(lambda: session.run(next(taken)), plan.warmup_ns, watch.now)

    started = [thread.submit(one, session) for thread, session in streams]
    return [each.result() for each in started]


def _multi_stream(
    streams: Sequence[Stream],
    batches: Sequence[Request],
    plan: Plan,
    watch: Watch,
    _warm: Sequence[clock.WarmUp],
) -> Done:
    """Split each query's batches over the streams; the next query waits for all of them."""
    taken = itertools.cycle(batches)
    num_batches = plan.samples_per_query // plan.batch_size
    shares = [len(range(i, num_batches, len(streams))) for i in range(len(streams))]

    def answer(session: Session, requests: Iterator[Request]) -> None:
        for request in requests:
            session.run(request)

    def issue_to_all() -> None:
        started = [
            stream.thread.submit(answer, stream.session, iter(list(itertools.islice(taken, share))))
            for stream, share in zip(streams, shares)  # noqa: B905 - Python 3.8
            if share
        ]
        for each in started:
            each.result()

    if len(streams) == 1:  # in its own thread, with nothing to hand over
        thread, session = streams[0]
        latencies, duration = thread.submit(
            _one_by_one,
            lambda: answer(session, itertools.islice(taken, num_batches)),
            plan,
            watch.now,
        ).result()
    else:
        latencies, duration = _one_by_one(issue_to_all, plan, watch.now)
    return Done(
        latencies,
        len(latencies),
        len(latencies) * plan.samples_per_query,
        duration,
        {},
        too_short=duration < plan.timed_ns or len(latencies) < plan.min_queries,
    )


def _one_by_one(issue: Callable[[], None], plan: Plan, now: Now) -> Tuple[List[int], int]:
    """Issue queries until there are enough: ``(latencies, duration)`` in ns."""
    latencies: List[int] = []
    start = done = now()
    while done - start < plan.timed_ns or len(latencies) < plan.min_queries:
        if done - start >= plan.limit_ns:
            break
        began = now()
        issue()
        done = now()
        latencies.append(done - began)
    return latencies, done - start


def _offline(
    streams: Sequence[Stream],
    batches: Sequence[Request],
    plan: Plan,
    watch: Watch,
    warm: Sequence[clock.WarmUp],
) -> Done:
    """Let every stream take batches until the time is over and there were enough."""
    least = math.ceil(plan.min_queries / len(streams))
    start = watch.now()

    def drain(session: Session, num_runs: int) -> Tuple[int, int]:
        taken = itertools.cycle(batches)
        made, at = 0, start
        while at - start < plan.timed_ns or made < least:
            if at - start >= plan.limit_ns:
                break
            for request in itertools.islice(taken, num_runs):  # 100 us between looks at the clock
                session.run(request)
            made += num_runs
            at = watch.now()
        return made, at - start

    started = [
        stream.thread.submit(drain, stream.session, each.runs_per_sample)
        for stream, each in zip(streams, warm)  # noqa: B905 - Python 3.8
    ]
    found = [each.result() for each in started]
    duration = max(ended for _, ended in found)
    num_batches = sum(made for made, _ in found)
    return Done(
        [],
        1,  # one query holds all samples
        num_batches * plan.batch_size,
        duration,
        facts={"num_batches": num_batches},
        too_short=duration < plan.timed_ns or any(made < least for made, _ in found),
    )


def _server(
    streams: Sequence[Stream],
    batches: Sequence[Request],
    plan: Plan,
    watch: Watch,
    _warm: Sequence[clock.WarmUp],
) -> Done:
    """Serve Poisson arrivals.

    A queue of k servers is stable if and only if arrivals take less than k servers' time (Loynes
    1962, doi:10.1017/S0305004100036781): ``load_ratio``, the rate asked for times the mean time
    that a query occupies a stream, divided by k, is below 1.
    """
    assert plan.queries_per_s is not None  # `_plan` saw to it
    times = arrivals.poisson_ns(
        plan.queries_per_s, plan.timed_ns, plan.min_queries, plan.limit_ns, plan.seed
    )
    if not times:
        raise LoadError(
            "Server: not one query arrives within %d s at queries_per_s %g; ask for more"
            % (plan.limit_ns // NS_PER_S, plan.queries_per_s)
        )
    start = watch.now() + LEAD_NS
    end = start + OVERRUN_RATIO * max(times[-1], plan.timed_ns)
    queue = Queue(times, start, end, watch)
    started = [thread.submit(queue.serve, session, batches) for thread, session in streams]
    for each in started:
        each.result()
    answers = queue.answers  # the first arrives long before the end, so there is one
    occupied_s = statistics.mean(each.occupied_ns for each in answers) / NS_PER_S
    load_ratio = plan.queries_per_s * occupied_s / len(streams)
    lags = [each.lag_ns for each in answers if each.lag_ns is not None]
    return Done(
        [each.done_ns - each.due_ns for each in answers],
        len(answers),
        len(answers),
        max(each.done_ns for each in answers) - start,
        facts={
            "load_ratio": load_ratio,
            "num_unanswered": len(times) - len(answers),
            "dispatch_lag_ns": statistics.median(lags) if lags else None,
            "seed": plan.seed,
        },
        overloaded=load_ratio >= 1 or len(answers) < len(times),
        too_short=len(times) < plan.min_queries or times[-1] < plan.timed_ns,
    )


_Scenario = Callable[
    [Sequence[Stream], Sequence[Request], Plan, Watch, Sequence[clock.WarmUp]], Done
]
_SCENARIOS: Dict[str, _Scenario] = {
    "MultiStream": _multi_stream,
    "Server": _server,
    "Offline": _offline,
}
