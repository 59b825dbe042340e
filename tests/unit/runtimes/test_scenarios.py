"""Loads on scripted sessions: what is asked for happens, and is told as it was."""

import gc
import json
import threading
from itertools import repeat

import numpy as np
import pytest

from pipeline.runtimes import clock, scenarios
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Tensor

US, MS, S = 1_000, 1_000_000, 1_000_000_000
PLAN = {"warmup_ns": 0, "timed_ns": 200 * MS, "min_queries": 5}
STEADILY_1_MS = repeat(1 * MS)
ONE, TWO = (np.full((1, 2), value, np.float32) for value in (1, 2))


class Session:
    """A session of two floats whose runs take scripted time; it notes who runs it."""

    def __init__(self, costs_ns=STEADILY_1_MS, batch_size=1):
        self.facts = {"runtime": "scripted", "version": "1"}
        self.costs_ns, self.now_ns = iter(costs_ns), 5 * S
        self.inputs = (Tensor("x", "float32", (batch_size, 2)),)
        self.outputs = self.inputs
        self.requests, self.threads = [], {threading.get_ident()}

    def now(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += max(round(seconds * S), 1 * US)

    def run(self, inputs):
        self.requests.append(inputs)
        self.threads.add(threading.get_ident())
        self.now_ns += next(self.costs_ns)
        return inputs


def run(load, costs_ns=STEADILY_1_MS, samples=((ONE,), (TWO,))):
    """Run a load of one stream on scripted time."""
    session = Session(costs_ns)
    request = {**PLAN, **load}
    found = scenarios.run(
        lambda: session, [list(s) for s in samples], request, session.now, session.sleep
    )
    return found, session


LOADS = {
    "MultiStream": {"scenario": "MultiStream", "samples_per_query": 8},
    "Server": {"scenario": "Server", "queries_per_s": 200.0},
    "Offline": {"scenario": "Offline"},
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_what_a_load_gives_is_json(load):
    found, _ = run(load)
    assert json.loads(json.dumps(found)) == found
    assert found["reason"] is None
    assert found["facts"]["runtime"] == "scripted"
    assert found["steady"] is True
    assert found["flags"] == []


def test_a_multi_stream_query_takes_as_long_as_its_samples():
    found, _ = run({"scenario": "MultiStream", "samples_per_query": 8})
    assert set(found["latencies_ns"]) == {8 * MS}
    assert (found["num_queries"], found["num_samples"]) == (25, 200)  # in 200 ms
    assert found["throughput_per_s"] == pytest.approx(1000)


def test_multi_stream_in_batches_runs_as_many_requests_as_fill_a_query():
    found, session = run({"scenario": "MultiStream", "samples_per_query": 8, "batch_size": 4})
    assert session.requests[0][0].shape == (4, 2)
    assert set(found["latencies_ns"]) == {2 * MS}
    assert found["num_samples"] == 8 * found["num_queries"]


def test_offline_throughput_counts_every_sample_of_every_batch():
    found, session = run({"scenario": "Offline", "batch_size": 4}, repeat(2 * MS))
    assert session.requests[-1][0].shape == (4, 2)
    assert found["throughput_per_s"] == pytest.approx(2000)
    assert (found["num_queries"], found["latencies_ns"]) == (1, [])
    assert found["num_samples"] == 4 * found["facts"]["num_batches"] == 400


def test_server_answers_every_arrival_of_its_seed():
    found, _ = run(LOADS["Server"])
    other, _ = run({**LOADS["Server"], "seed": 1})
    assert found["num_queries"] == len(found["latencies_ns"])
    assert found["facts"]["num_unanswered"] == 0
    assert found["latencies_ns"] == run(LOADS["Server"])[0]["latencies_ns"]
    assert found["latencies_ns"] != other["latencies_ns"]


RATES = {
    "half of what the stream can do": (500.0, 0.5, False),
    "nearly all": (970.0, 0.97, False),
    "more than it can do": (1030.0, 1.03, True),
    "far more": (10_000.0, 10, True),
}


@pytest.mark.parametrize(("rate", "ratio", "overloaded"), RATES.values(), ids=RATES)
def test_a_queue_that_grows_without_bound_is_told(rate, ratio, overloaded):
    found, _ = run({"scenario": "Server", "queries_per_s": rate})
    assert found["facts"]["load_ratio"] == pytest.approx(ratio, rel=0.01)
    assert ("overloaded" in found["flags"]) is overloaded


def test_a_server_far_behind_gives_up_after_twice_the_time():
    found, _ = run({"scenario": "Server", "queries_per_s": 10_000.0})
    asked = found["num_queries"] + found["facts"]["num_unanswered"]
    assert asked == pytest.approx(2000, rel=0.1)
    assert found["num_queries"] == pytest.approx(400, abs=2)  # of 1 ms each
    assert found["throughput_per_s"] == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_slow_net_still_gets_the_least_number_of_queries(load):
    found, _ = run({**load, "queries_per_s": load.get("queries_per_s") and 0.5}, repeat(300 * MS))
    count = found["facts"].get("num_batches", found["num_queries"])
    assert count >= PLAN["min_queries"]
    assert "too_short" not in found["flags"]


SLOW = {
    "MultiStream": {**LOADS["MultiStream"], "min_queries": 100},  # of 8 x 0.3 s
    "Server": {**LOADS["Server"], "queries_per_s": 0.5, "min_queries": 100},
    "Offline": {**LOADS["Offline"], "min_queries": 1000},
}


@pytest.mark.parametrize("load", SLOW.values(), ids=SLOW)
def test_a_run_that_ends_at_its_limit_says_that_it_is_too_short(load):
    found, _ = run(load, repeat(300 * MS))
    assert "too_short" in found["flags"]
    assert found["duration_ns"] < 63 * S


def test_one_arrival_in_an_hour_cannot_be_waited_for():
    with pytest.raises(
        scenarios.LoadError,
        match=r"^Server: not one query arrives within 60 s at queries_per_s 0.000277778; ask for",
    ):
        run({"scenario": "Server", "queries_per_s": 1 / 3600})


SHORT = {
    "queries of 80 us": ("MultiStream", 10 * US, True),
    "queries of 160 us, of short requests": ("MultiStream", 20 * US, False),
    "one sample in 20 us": ("Server", 20 * US, True),
    "none that has a latency": ("Offline", 20 * US, False),
}


@pytest.mark.parametrize(("scenario", "cost_ns", "is_short"), SHORT.values(), ids=SHORT)
def test_queries_below_100_us_are_told(scenario, cost_ns, is_short):
    found, _ = run(LOADS[scenario], repeat(cost_ns))
    assert ("short_queries" in found["flags"]) is is_short


def test_what_never_gets_steady_is_told():
    costs = (cost for _ in repeat(0) for cost in (10 * MS, 15 * MS))
    assert "not_steady" in run(LOADS["Offline"], costs)[0]["flags"]


def test_a_suspend_is_told(monkeypatch):
    readings = iter([clock.Reading(0, 0, 0), clock.Reading(1 * S, 61 * S, 61 * S)])
    monkeypatch.setattr(clock, "read", readings.__next__)
    found, _ = run(LOADS["Offline"])
    assert found["flags"] == ["clock_jump"]
    assert found["clock_suspended_ns"] == 60 * S


REFUSED = {
    "an unknown scenario": ({"scenario": "Burst"}, "scenario 'Burst' is not known; known: Multi"),
    "a setting of another version": ({"scenario": "Offline", "burst": 2}, "not one of ours: "),
    "batches that do not fill a query": (
        {"scenario": "MultiStream", "samples_per_query": 8, "batch_size": 3},
        "samples_per_query must be a multiple of batch_size 3, got 8",
    ),
    "a server without a rate": ({"scenario": "Server"}, "Server needs queries_per_s above 0"),
    "a server in batches": (
        {"scenario": "Server", "queries_per_s": 9.0, "batch_size": 2},
        "takes batch_size 1, got 9.0 and 2",
    ),
}


@pytest.mark.parametrize(("load", "words"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_load_is_misuse(load, words):
    with pytest.raises(scenarios.LoadError, match=words):
        scenarios.run(pytest.fail, [[ONE]], {**PLAN, **load})  # no session is opened for it


def test_a_model_that_takes_no_batch_is_a_reason_of_one_line():
    def refuse():
        raise RunnerError("the model takes no batch of 8:\n its first axis is fixed")

    found = scenarios.run(refuse, [[ONE]], {**PLAN, "scenario": "Offline", "batch_size": 8})
    assert found == {"reason": "the model takes no batch of 8: its first axis is fixed"}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_request_that_fails_is_no_reason(load):
    class Failing(Session):
        def run(self, _inputs):
            raise RunnerError("out of memory")

    session = Failing()
    with pytest.raises(RunnerError, match="out of memory"):
        scenarios.run(lambda: session, [[ONE]], {**PLAN, **load}, session.now, session.sleep)


def test_our_own_mistakes_are_no_reason():
    def crash():
        raise TypeError("a defect")

    with pytest.raises(TypeError, match="a defect"):
        scenarios.run(crash, [[ONE]], {**PLAN, "scenario": "Offline"})


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_every_stream_is_opened_and_run_in_a_thread_of_its_own(load):
    opened = []

    def open_session():
        opened.append(Session(repeat(0)))
        return opened[-1]

    before = threading.active_count()
    request = {**PLAN, **load, "timed_ns": 5 * MS, "num_streams": 3}
    found = scenarios.run(open_session, [[ONE]], request)
    assert found["reason"] is None
    assert [len(session.threads) for session in opened] == [1, 1, 1]
    assert len(set.union(*(session.threads for session in opened))) == 3
    assert threading.active_count() == before


@pytest.mark.parametrize("load", [LOADS["MultiStream"], LOADS["Offline"]])
def test_streams_run_at_once(load, monkeypatch):
    """Each run waits for one of the other stream: alone, none would end."""
    monkeypatch.setattr(clock, "warm_up", lambda *_: clock.WarmUp(0, True, 1))
    meeting = threading.Barrier(2, timeout=20)

    class Meeting(Session):
        def run(self, inputs):
            meeting.wait()
            return super().run(inputs)

    request = {**PLAN, **load, "timed_ns": 0, "min_queries": 8, "num_streams": 2}
    assert scenarios.run(lambda: Meeting(repeat(0)), [[ONE]], request)["num_samples"] >= 8


def test_a_multi_stream_query_is_split_evenly(monkeypatch):
    monkeypatch.setattr(clock, "warm_up", lambda *_: clock.WarmUp(0, True, 1))
    opened = []

    def open_session():
        opened.append(Session(repeat(0)))
        return opened[-1]

    load = {"scenario": "MultiStream", "samples_per_query": 8, "num_streams": 3}
    request = {**PLAN, **load, "timed_ns": 0, "min_queries": 2}
    assert scenarios.run(open_session, [[ONE]], request)["num_queries"] == 2
    assert [len(session.requests) for session in opened] == [2 * 3, 2 * 3, 2 * 2]


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_garbage_collection_rests_meanwhile(load):
    seen = []

    class Watching(Session):
        def run(self, inputs):
            seen.append(gc.isenabled())
            return super().run(inputs)

    session = Watching()
    scenarios.run(lambda: session, [[ONE]], {**PLAN, **load}, session.now, session.sleep)
    assert not any(seen)
    assert gc.isenabled()


BATCHES = {
    "one sample a request": (3, 1, [[0], [1], [2]]),
    "a rest is left out": (5, 2, [[0, 1], [2, 3]]),
    "too few start again": (2, 3, [[0, 1, 0]]),
    "exactly one": (3, 3, [[0, 1, 2]]),
}


@pytest.mark.parametrize(("num", "size", "expected"), BATCHES.values(), ids=BATCHES)
def test_samples_are_joined_along_their_first_axis(num, size, expected):
    samples = [[np.full((1, 2), i), np.full((1, 3, 1), 10 * i)] for i in range(num)]
    found = scenarios.batches_of(samples, size)
    assert [request[0][:, 0].tolist() for request in found] == expected
    assert [request[1].shape for request in found] == [(size, 3, 1)] * len(expected)


def test_samples_are_encoded_one_by_one_for_a_session_of_batches():
    asked = []

    def load_model(num_threads, batch_size):
        asked.append((num_threads, batch_size))
        return Session(repeat(0), batch_size)

    tensors = np.arange(6, dtype=np.float64).reshape(3, 2)
    load = {"scenario": "Offline", "batch_size": 2, "num_threads": 3, "timed_ns": 0}
    found = scenarios.run_load(load_model, tensors, {**PLAN, **load})
    assert found["reason"] is None
    assert asked == [(3, 2)] * 2  # one to encode for, one stream
    with pytest.raises(RunnerError, match=r"'x' takes shape \[1, 2\], the preprocessed sample has"):
        scenarios.run_load(load_model, tensors[:, :1], {**PLAN, **load})
