"""Which loads a profile asks for, and what their raw results say."""

import msgspec
import numpy as np
import pytest

from pipeline import params
from pipeline.measurement import Latency
from pipeline.profiling import loads, statistics
from pipeline.profiling.bench import PRESETS, Preset
from pipeline.runtimes import scenarios

MS, S = 1_000_000, 1_000_000_000
PRESET = Preset(num_restarts=2, warmup_s=0.1, timed_s=0.5, min_samples=6)
PROFILE = msgspec.convert(
    {
        "num_threads": 2,
        "scenarios": [
            {"scenario": "MultiStream"},
            {"scenario": "Server", "queries_per_s": 50.0, "num_streams": 2},
            {"scenario": "Offline", "batch_size": 4},
        ],
        "sweep": {"batch_size": [1, 8], "num_threads": [1, 2], "num_streams": [1, 3]},
    },
    params.Profile,
)
SERVER = loads.Request("Server", 1, 2, 1, 1, 50.0, 2)
OFFLINE = loads.Request("Offline", 8, 1, 1, 1, None, 1)


def reply(latencies_ms=(), **changed):
    """What a runner says of a load of one second."""
    found = {
        "latencies_ns": [round(value * MS) for value in latencies_ms],
        "num_queries": len(latencies_ms), "num_samples": len(latencies_ms), "duration_ns": 1 * S,
        "flags": [], "facts": {},
    }  # fmt: skip
    return {**found, **changed}


def test_a_profile_asks_for_its_scenarios_and_every_combination_of_its_sweep():
    found = loads.requests(PROFILE, PRESET)
    assert [(r.scenario, r.num_threads, r.num_restarts) for r in found[:3]] == [
        ("MultiStream", 2, 2), ("Server", 2, 2), ("Offline", 2, 2),
    ]  # fmt: skip
    assert [(r.num_threads, r.num_streams, r.batch_size) for r in found[3:]] == [
        (1, 1, 1), (1, 1, 8), (1, 3, 1), (1, 3, 8), (2, 1, 1), (2, 1, 8), (2, 3, 1), (2, 3, 8),
    ]  # fmt: skip
    assert {(r.scenario, r.num_restarts) for r in found[3:]} == {("Offline", 1)}
    assert loads.num_calls(found) == 3 * 2 + 8


def test_a_profile_without_loads_asks_for_none():
    assert loads.requests(params.Profile(), PRESET) == []


def test_nothing_is_asked_for_twice():
    twice = (params.Scenario(scenario="Offline"),) * 2
    assert len(loads.requests(params.Profile(scenarios=twice), PRESET)) == 1


def test_what_a_scenario_asks_for_the_sweep_does_not_ask_for_again():
    offline = params.Scenario(scenario="Offline", batch_size=8)
    sweep = params.Sweep(batch_size=(1, 8))
    found = loads.requests(params.Profile(scenarios=(offline,), sweep=sweep), PRESET)
    assert [(r.batch_size, r.num_restarts) for r in found] == [(8, 2), (1, 1)]


def test_eight_samples_a_query_are_of_multi_stream_alone():
    found = {r.scenario: r.samples_per_query for r in loads.requests(PROFILE, PRESET)}
    assert found == {"MultiStream": 8, "Server": 1, "Offline": 1}


@pytest.mark.parametrize("request_", loads.requests(PROFILE, PRESET), ids=str)
def test_what_is_asked_for_is_a_plan_of_the_runner(request_):
    plan = scenarios.Plan(**request_.document(PRESET, 1))
    assert (plan.warmup_ns, plan.timed_ns, plan.min_queries) == (100 * MS, 500 * MS, 6)
    assert (plan.seed, plan.num_streams) == (1, request_.num_streams)


def measured(asked, answers):
    """Measure with these answers by (scenario, seed); also what was called for, in order."""
    calls = []

    def call(document):
        calls.append((document["scenario"], document["seed"]))
        return answers[calls[-1]]

    return loads.measure(asked, PRESET, call), calls


def test_restarts_go_round_by_round_and_are_pooled():
    answers = {
        ("Server", 0): reply([1.0] * 30), ("Server", 1): reply([3.0] * 10, flags=["not_steady"]),
        ("Offline", 0): reply(num_queries=1, num_samples=800),
    }  # fmt: skip
    (server, offline), calls = measured([SERVER, OFFLINE], answers)
    assert calls == [("Server", 0), ("Offline", 0), ("Server", 1)]
    assert (server.num_queries, server.throughput_per_s) == (40, 20.0)
    assert (server.latency_ms.p50, server.flags, server.reason) == (1.0, ("not_steady",), None)
    assert (server.queries_per_s, server.num_streams) == (50.0, 2)
    assert (offline.throughput_per_s, offline.batch_size) == (800.0, 8)
    assert offline.latency_ms == Latency()


def test_what_is_refused_says_why_and_is_not_asked_for_again():
    refusal = {"reason": "the file takes no batch of 8"}
    answers = {("Server", 0): refusal, ("Offline", 0): reply(num_queries=1, num_samples=9)}
    (server, offline), calls = measured([SERVER, OFFLINE], answers)
    assert calls == [("Server", 0), ("Offline", 0)]
    assert (server.reason, server.num_queries) == ("the file takes no batch of 8", 0)
    assert offline.reason is None


COUNTS = {
    "too few for anything": (10, (None, None, None)),
    "enough for a median": (11, (1.0, None, None)),
    "one too few for a p90": (63, (1.0, None, None)),
    "enough for a p90": (64, (1.0, 1.0, None)),
    "one too few for a p99": (661, (1.0, 1.0, None)),
    "enough for a p99": (662, (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("num_restarts", [1, 2])
@pytest.mark.parametrize(("count", "expected"), COUNTS.values(), ids=COUNTS)
def test_a_percentile_without_enough_queries_is_absent(count, expected, num_restarts):
    latencies = [[1.0] * count] if num_restarts == 1 else [[1.0] * 5, [1.0] * (count - 5)]
    found = loads.load_of(SERVER, [reply(each) for each in latencies]).latency_ms
    assert (found.p50, found.p90, found.p99) == expected
    assert (found.p50_lower is not None) == (num_restarts == 2 and found.p50 is not None)


def test_percentiles_are_those_of_all_queries():
    values = np.random.default_rng(0).exponential(2.0, 2000).round(3)
    found = loads.load_of(SERVER, [reply(values[:900]), reply(values[900:])])
    assert found.latency_ms.p90 == pytest.approx(np.percentile(values, 90))
    assert found.latency_ms.p99 == pytest.approx(np.percentile(values, 99))


def test_an_overloaded_server_has_no_percentiles_and_says_what_it_could_do():
    full = reply([40.0] * 700, flags=["overloaded"], duration_ns=20 * S)
    found = loads.load_of(SERVER, [reply([1.0] * 50), full])
    assert found.latency_ms == Latency()
    assert found.flags == ("overloaded",)
    assert found.reason == (
        "overloaded: 50 queries/s were asked for, 35.71 were answered; ask for fewer, or raise "
        "num_streams"
    )


def test_a_run_that_was_too_short_says_so_and_keeps_what_its_queries_are_enough_for():
    found = loads.load_of(SERVER, [reply([1.0] * 20, flags=["too_short"], duration_ns=60 * S)])
    assert found.reason == "too short: 20 queries in 60 s was all there was time for"
    assert (found.latency_ms.p50, found.latency_ms.p90) == (1.0, None)


INVALID = {
    "throttled": "the machine throttled meanwhile, so the run is invalid",
    "clock_jump": (
        "the clock jumped, or the machine was suspended, meanwhile, so the run is invalid"
    ),
}


@pytest.mark.parametrize(("flag", "reason"), INVALID.items())
def test_a_machine_that_was_held_down_makes_a_load_invalid(flag, reason):
    bad = reply([1.0] * 50, flags=[flag, "overloaded"])
    found = loads.load_of(SERVER, [reply([1.0] * 50), bad])
    assert (found.latency_ms, found.reason) == (Latency(), reason)
    assert found.flags == tuple(sorted([flag, "overloaded"]))


BUSY = {"nobody else": (0.02, ()), "others": (0.3, ("host_busy",)), "unknown": (None, ())}


@pytest.mark.parametrize(("others_ratio", "flags"), BUSY.values(), ids=BUSY)
def test_a_busy_host_is_told(others_ratio, flags):
    one = reply([1.0] * 20, others_ratio=others_ratio)
    assert loads.load_of(SERVER, [one, reply([1.0] * 20)]).flags == flags


SAID = {
    "a rate": (SERVER, "Server, 50/s, 2 streams"),
    "a batch": (OFFLINE, "Offline, batch 8"),
    "threads": (loads.Request("MultiStream", 1, 1, 4, 8, None, 1), "MultiStream, 4 threads"),
}


@pytest.mark.parametrize(("request_", "words"), SAID.values(), ids=SAID)
def test_a_load_is_said_in_a_few_words(request_, words):
    assert str(request_) == words


GUARANTEED = {"quick": [50], "ci": [50, 90], "official": [50, 90, 95, 97, 99]}


@pytest.mark.parametrize(("name", "percents"), GUARANTEED.items())
def test_a_preset_takes_enough_samples_for_its_percentiles_of_any_net(name, percents):
    preset = PRESETS[name]
    count = preset.num_restarts * preset.min_samples
    assert [p for p, least in statistics.MIN_SAMPLES.items() if count >= least] == percents


def test_ci_and_official_have_a_p99_of_a_net_of_one_millisecond():
    for name in ("ci", "official"):
        preset = PRESETS[name]
        assert preset.num_restarts * preset.timed_s / 1e-3 >= statistics.MIN_SAMPLES[99]
        assert preset.num_restarts >= 5
    assert PRESETS["official"].timed_s >= 10


def test_every_preset_that_params_may_name_is_there():
    assert set(PRESETS) == set(params.Profile.__annotations__["preset"].__args__)
