"""Timing in turns: who waits when, who holds the device, which cores it is."""

import contextlib
import io
import json
import os
import threading
import time
from itertools import chain, repeat

import pytest

from pipeline.runtimes import clock, device_lock, turns
from pipeline.runtimes.device_lock import BusyError
from pipeline.runtimes.errors import RunnerError
from tests.unit.runtimes.test_clock import MS, US, ScriptedClock

WARM_UP_RUNS = 1 + 5 * 10  # one to size the batch; five blocks of 10 ms


class Scripted(ScriptedClock):
    """Turns that note when each began; others take a second between them."""

    def __init__(self, costs_ns, turn_ns=5 * MS):
        super().__init__(costs_ns)
        self.turn_ns = turn_ns
        self.num_turns = 0

    def wait(self):
        self.num_turns += 1
        self.now_ns += 1_000 * MS


def timed(scripted, plan):
    return clock.time_runs(scripted.run, plan, scripted.now, turns=scripted)


PLANS = {
    "as long as the plan says": ((20 * MS, 4), MS, [5, 5, 5, 5]),
    "the last turn is the rest": ((12 * MS, 4), MS, [5, 5, 2]),
    "a long run is a turn": ((20 * MS, 4), 8 * MS, [1, 1, 1, 1]),
    "as many as the plan says, one a turn": ((0, 3), MS, [1, 1, 1]),
}


@pytest.mark.parametrize(("plan", "cost", "expected"), PLANS.values(), ids=PLANS)
def test_samples_are_taken_in_turns_until_the_plan_is_fulfilled(plan, cost, expected):
    scripted = Scripted(repeat(cost))
    found = timed(scripted, clock.Plan(0, *plan))
    assert found.samples_per_turn == expected
    assert scripted.num_turns == len(expected)
    assert set(found.samples_ns) == {cost}
    assert len(found.samples_ns) == sum(expected)


def test_the_first_run_of_a_turn_does_not_count():
    """Whoever ran before it emptied the caches."""
    cold = chain.from_iterable(repeat([9 * MS, *[MS] * 5]))
    found = timed(Scripted(chain([MS] * WARM_UP_RUNS, cold)), clock.Plan(0, 20 * MS, 4))
    assert set(found.samples_ns) == {MS}


def test_without_turns_none_are_told():
    scripted = ScriptedClock(repeat(200 * US))
    assert (
        clock.time_runs(scripted.run, clock.Plan(0, MS, 1), scripted.now).samples_per_turn is None
    )


def is_free(lock):
    try:
        with device_lock.held(lock, wait_s=0):
            return True
    except BusyError:
        return False


def test_the_device_is_free_between_turns_and_each_is_announced(tmp_path):
    lock, replies = str(tmp_path / "lock"), io.StringIO()

    class Host(io.StringIO):
        def readline(self):
            assert is_free(lock)
            return super().readline()

    own = turns.Turns(MS, lock, Host("go\ngo\n"), replies)
    with contextlib.closing(own):
        own.begin()
        for _ in range(2):
            own.wait()
            assert not is_free(lock)
        with pytest.raises(RunnerError, match="whoever asked is gone"):
            own.wait()
    assert [json.loads(line) for line in replies.getvalue().splitlines()] == [
        {"turn": 0}, {"turn": 1}, {"turn": 2}
    ]  # fmt: skip


def test_others_are_watched_within_turns_alone():
    noted, replies = [], io.StringIO()

    class Watch:
        def start(self):
            noted.append("start")

        def stop(self):
            noted.append("stop")

    own = turns.Turns(MS, None, io.StringIO("go\n"), replies, busy=Watch())
    own.begin()
    own.wait()
    own.close()
    assert noted == ["start", "stop", "start", "stop"]


def test_the_others_wait_until_no_thread_spins(monkeypatch):
    """Three steps in which all of a core's time was used, then rest."""
    used, slept = iter([0.0, *(0.001 * n for n in (1, 1, 2, 2, 3, 3)), 0.00305, 0.00305]), []
    monkeypatch.setattr(turns.time, "process_time", lambda: next(used))
    monkeypatch.setattr(turns.time, "sleep", slept.append)
    turns.rest()
    assert slept == [turns.REST_STEP_S] * 4


def test_a_thread_that_never_rests_is_waited_for_no_longer_than_the_limit():
    is_over = threading.Event()

    def spin():
        while not is_over.is_set():
            pass

    spinning = threading.Thread(target=spin)
    spinning.start()
    try:
        started = time.monotonic()
        turns.rest(limit_s=0.05)
        assert time.monotonic() - started >= 0.05
    finally:
        is_over.set()
        spinning.join()


CORES = {
    "the first": ({0, 1, 2, 3}, {}, (0, 1), {0}),
    "counted round": ({0, 1, 2, 3}, {}, (5, 1), {1}),
    "of those that it may use": ({2, 6, 7}, {}, (1, 1), {6}),
    "several, round the end": ({0, 1, 2, 3}, {}, (3, 2), {3, 0}),
    "all are needed": ({0, 1}, {}, (1, 2), {0, 1}),
    "one is the quickest": ({0, 1, 7}, {0: "446", 1: "446", 7: "1024"}, (3, 1), {7}),
    "as many as are the quickest": ({0, 4, 5}, {0: "446", 4: "1024", 5: "1024"}, (0, 2), {4, 5}),
    "more than are the quickest": ({0, 4, 5}, {0: "446", 4: "1024", 5: "1024"}, (0, 3), None),
    "more than there are": ({0, 1}, {}, (0, 4), None),
    "the quickest alone": ({0, 1, 2, 3}, {0: "446", 1: "446", 2: "1024", 3: "1024"}, (1, 1), {3}),
    "nonsense is no difference": ({0, 1}, {0: "fast"}, (0, 1), {0}),
}


@pytest.mark.parametrize(("usable", "capacities", "asked", "expected"), CORES.values(), ids=CORES)
def test_cores_are_chosen_alike_by_all(tmp_path, monkeypatch, usable, capacities, asked, expected):
    for core, capacity in capacities.items():
        path = tmp_path / turns.CAPACITY.replace("%d", str(core))
        path.parent.mkdir(parents=True)
        path.write_text(f"{capacity}\n")
    chosen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: chosen.append(cores))
    turns.use_cores(*asked, system=tmp_path)
    assert chosen == ([] if expected is None else [expected])


def test_a_system_without_affinity_uses_all(monkeypatch):
    before = os.sched_getaffinity(0)
    monkeypatch.delattr(os, "sched_setaffinity")
    turns.use_cores(0, 1)
    assert os.sched_getaffinity(0) == before
