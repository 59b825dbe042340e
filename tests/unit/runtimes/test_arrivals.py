"""Poisson arrivals by their statistics, and the queue against Lindley's recursion."""

import threading
from itertools import repeat

import numpy as np
import pytest
from scipy import stats

from pipeline.runtimes import arrivals
from pipeline.runtimes.arrivals import Queue, Watch, poisson_ns

US, MS, S = 1_000, 1_000_000, 1_000_000_000
FOREVER = 10**18
TICK_NS = 1 * US  # how far scripted time goes while a queue waits awake


class ScriptedSession:
    """A session on a clock of its own: each run takes the next cost."""

    def __init__(self, costs_ns):
        self.costs_ns = iter(costs_ns)
        self.now_ns = 7 * S
        self.requests = []

    def now(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += max(round(seconds * S), TICK_NS)

    def run(self, request):
        self.requests.append(request)
        self.now_ns += next(self.costs_ns)


def served(arrivals_ns, costs_ns, end=FOREVER):
    session = ScriptedSession(costs_ns)
    queue = Queue(arrivals_ns, session.now_ns, end, Watch(session.now, session.sleep))
    queue.serve(session, range(len(arrivals_ns)))
    return session, queue


@pytest.fixture(scope="module")
def thousands():
    return np.array(poisson_ns(1000, 0, 20_000, FOREVER, seed=0))


def test_intervals_are_exponential_with_the_rate_asked_for(thousands):
    intervals = np.diff(thousands) / S
    assert intervals.mean() == pytest.approx(1 / 1000, rel=0.02)  # its standard error is 0.7 %
    assert stats.kstest(intervals, "expon", args=(0, 1 / 1000)).pvalue > 0.01


def test_intervals_do_not_know_of_each_other(thousands):
    intervals = np.diff(thousands)
    assert abs(np.corrcoef(intervals[:-1], intervals[1:])[0, 1]) < 0.02


def test_counts_in_windows_vary_as_much_as_their_mean(thousands):
    counts = np.bincount(thousands // (10 * MS))[:-1]
    assert counts.mean() == pytest.approx(10, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.1)


def test_a_seed_gives_the_same_arrivals_everywhere():
    first = poisson_ns(100, 0, 5, FOREVER, seed=0)
    # random.Random(0).random() is 0.8444218515250481 in every version of Python
    assert first[0] == round(-np.log(1 - 0.8444218515250481) / 100 * S)
    assert poisson_ns(100, 0, 9, FOREVER, seed=0)[:5] == first
    assert poisson_ns(100, 0, 5, FOREVER, seed=1) != first


# 100 a second; a Poisson count of 100 is within 70 and 130 in 99.7 % of cases
ENDS = {
    "as many queries as asked for": ({"min_queries": 11}, (11, 11)),
    "as long as asked for": ({"timed_ns": 1 * S}, (70, 130)),
    "both": ({"timed_ns": 1 * S, "min_queries": 500}, (500, 500)),
    "none after the limit": (
        {"timed_ns": 1 * S, "min_queries": 500, "limit_ns": 500 * MS}, (29, 71),
    ),
    "none at all": ({"timed_ns": 1 * S, "limit_ns": 0}, (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "expected"), ENDS.values(), ids=ENDS)
def test_arrivals_last_as_long_and_are_as_many_as_asked_for(asked, expected):
    most = {"timed_ns": 0, "min_queries": 1, "limit_ns": FOREVER}
    found = poisson_ns(100, **{**most, **asked}, seed=3)
    assert expected[0] <= len(found) <= expected[1]
    assert found == sorted(found)
    assert all(at <= asked.get("limit_ns", FOREVER) for at in found)


def test_latency_is_that_of_lindleys_recursion():
    """A query starts when it arrives or, if later, when the one before is done."""
    at = poisson_ns(1000, 0, 400, FOREVER, seed=5)
    costs = np.random.default_rng(5).exponential(0.8 * MS, 400).round().astype(int).tolist()
    _, queue = served(at, costs)
    done, expected = 0, []
    for arrival, cost in zip(at, costs, strict=True):
        done = max(done, arrival) + cost
        expected.append(done - arrival)
    found = [each.done_ns - each.due_ns for each in queue.answers]
    assert max(expected) > 5 * MS  # some did wait
    # a stream that waits awake is late by a tick at most, and so are those that queue behind
    np.testing.assert_allclose(found, expected, atol=TICK_NS + 1)


def test_a_stall_counts_for_every_query_that_arrived_meanwhile():
    """A closed loop would see one slow query of 100 ms; ten arrive during it, and wait."""
    at = [i * 10 * MS for i in range(40)]
    _, queue = served(at, [1 * MS] * 5 + [100 * MS] + [1 * MS] * 34)
    latencies = [each.done_ns - each.due_ns for each in queue.answers]
    assert sum(latency > 5 * MS for latency in latencies) == 11
    np.testing.assert_allclose(latencies[5:8], [100 * MS, 91 * MS, 82 * MS], atol=2 * US)


def test_what_waited_occupies_its_stream_from_when_that_got_free():
    _, queue = served([0, 0, 0, 50 * MS], [2 * MS] * 4)
    assert [each.occupied_ns for each in queue.answers] == [2 * MS] * 4
    assert [each.lag_ns is None for each in queue.answers] == [True, True, True, False]
    assert queue.answers[3].lag_ns < 2 * TICK_NS


def test_nothing_starts_after_the_end():
    _, queue = served([0] * 9, repeat(10 * MS), end=7 * S + 25 * MS)
    assert len(queue.answers) == 3


def test_queries_are_taken_in_the_order_of_their_arrival():
    session, _ = served([0, 5 * MS, 5 * MS, 30 * MS], [20 * MS] * 4)
    assert session.requests == [0, 1, 2, 3]


def test_streams_share_a_queue_and_no_query_is_lost_or_answered_twice():
    sessions = [ScriptedSession(repeat(0)) for _ in range(4)]
    clock = ScriptedSession(())
    queue = Queue([0] * 3000, 0, FOREVER, Watch(clock.now, clock.sleep))
    threads = [threading.Thread(target=queue.serve, args=(s, range(3000))) for s in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [request for session in sessions for request in session.requests]
    assert sorted(taken) == list(range(3000))
    for session in sessions:
        assert session.requests == sorted(session.requests)


def test_a_pause_of_no_time_does_not_sleep(monkeypatch):
    """Sleeping takes the timer slack even then, and the wait for an arrival would end late."""
    slept = []
    monkeypatch.setattr(arrivals.time, "sleep", slept.append)
    arrivals.pause(0)
    arrivals.pause(0.25)
    assert slept == [0.25]
