import gc
from itertools import chain, repeat

import pytest

from pipeline.runtimes import clock

US, MS = 1_000, 1_000_000
PLAN = clock.Plan(warmup_ns=300 * MS, timed_ns=20 * MS, min_samples=4)


class ScriptedClock:
    """Time that passes only while the scripted request runs: each run takes the next cost."""

    def __init__(self, costs_ns):
        self.costs_ns = iter(costs_ns)
        self.now_ns = 0

    def now(self):
        return self.now_ns

    def run(self):
        self.now_ns += next(self.costs_ns)


def timed(costs_ns, plan=PLAN):
    scripted = ScriptedClock(costs_ns)
    return clock.time_runs(scripted.run, plan, scripted.now)


STEADY = {
    "five equal medians": ([100, 100, 100, 100, 100], True),
    "four are too few": ([100, 100, 100, 100], False),
    "2 % apart, up and down": ([100, 102, 100, 101, 100], True),
    "more than 2 % apart": ([100, 102.1, 100, 101, 100], False),
    "within 2 % but only rising": ([100, 100.3, 100.6, 100.9, 101.2], False),
    "within 2 % but only falling": ([101.2, 100.9, 100.6, 100.3, 100], False),
    "rising with one rest is no trend": ([100, 100.3, 100.3, 100.9, 101.2], True),
    "only the last five count": ([500, 300, 100, 101, 100, 101, 100], True),
    "one late disturbance": ([100, 100, 100, 100, 110], False),
}


@pytest.mark.parametrize(("medians", "expected"), STEADY.values(), ids=STEADY)
def test_steady_is_five_blocks_within_two_percent_without_a_trend(medians, expected):
    assert clock.is_steady(medians) is expected


BATCHES = {
    "a long run is timed alone": (100 * US, 1),
    "just below the limit two make a sample": (99 * US, 2),
    "30 us": (30 * US, 4),
    "3 us": (3 * US, 64),
}


@pytest.mark.parametrize(("cost", "runs"), BATCHES.values(), ids=BATCHES)
def test_a_sample_is_as_many_runs_as_make_100_us(cost, runs):
    found = timed(repeat(cost))
    assert found.runs_per_sample == runs
    assert set(found.samples_ns) == {runs * cost}
    assert runs * cost >= 100 * US


def test_a_batch_sized_on_cold_runs_is_sized_again_on_warm_ones():
    found = timed(chain([200 * US], repeat(10 * US)))
    assert found.runs_per_sample == 10
    assert set(found.samples_ns) == {100 * US}


def test_a_batch_is_never_sized_too_short():
    found = timed(chain([200 * US], repeat(15 * US)))
    assert found.runs_per_sample == 7
    assert set(found.samples_ns) == {105 * US}


def test_warm_up_ends_with_the_fifth_steady_block():
    # 1 sizes the batch; a block is 10 ms: 5 slow runs, then five blocks of 10
    found = timed(chain([2 * MS], repeat(2 * MS, 5), repeat(1 * MS)))
    assert found.steady
    assert found.num_warmup == 1 + 5 + 5 * 10
    assert set(found.samples_ns) == {1 * MS}


def test_what_never_gets_steady_is_timed_after_the_limit_and_says_so():
    found = timed(chain.from_iterable(repeat([10 * MS, 15 * MS])))
    assert not found.steady
    # blocks of one run; 25 ms a pair reach 300 ms after 24
    assert found.num_warmup == 1 + 24


def test_samples_last_as_long_as_asked():
    assert len(timed(repeat(1 * MS)).samples_ns) == 20


def test_a_slow_model_still_gives_the_least_number_of_samples():
    assert timed(repeat(500 * MS)).samples_ns == [500 * MS] * 4


def test_a_slowdown_of_exact_work_is_found_exactly():
    """Eleven runs where there were ten: 1.1 times the time, whatever the batch."""
    ten, eleven = timed(repeat(10 * 7 * US)), timed(repeat(11 * 7 * US))
    per_run = [sum(t.samples_ns) / len(t.samples_ns) / t.runs_per_sample for t in (ten, eleven)]
    assert per_run[1] / per_run[0] == pytest.approx(1.1, abs=1e-12)


def test_the_loop_around_nothing_costs_less_than_a_hundredth_of_a_sample():
    found = clock.time_runs(lambda: None, clock.Plan(0, 0, 1))
    assert 0 < found.loop_overhead_ns < 1 * US
    assert found.samples_ns[0] > 0.5 * clock.SAMPLE_NS


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_rests_and_is_as_before_afterwards(enabled):
    seen = []
    scripted = ScriptedClock(repeat(1 * MS))

    def run():
        seen.append(gc.isenabled())
        scripted.run()

    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        clock.time_runs(run, PLAN, scripted.now)
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if before else gc.disable()
    assert not any(seen)


def test_garbage_collection_comes_back_after_a_failure():
    with pytest.raises(StopIteration):
        timed([1 * MS])
    assert gc.isenabled()


S = 1_000 * MS
FIRST = clock.Reading(10 * S, 15 * S, 900 * S)
GAPS = {
    "ten quiet seconds": (clock.Reading(20 * S, 25 * S, 910 * S), (0, 0, False)),
    "NTP slews by 500 ppm": (clock.Reading(20 * S, 25 * S, 910 * S + 5 * MS), (0, 5 * MS, False)),
    "an hour of slewing": (
        clock.Reading(3610 * S, 3615 * S, 4500 * S + 1800 * MS), (0, 1800 * MS, False),
    ),
    "suspended for a minute": (
        clock.Reading(20 * S, 85 * S, 970 * S), (60 * S, 60 * S, True),
    ),
    "suspended, and the wall clock not yet set": (
        clock.Reading(20 * S, 85 * S, 910 * S), (60 * S, 0, True),
    ),
    "the wall clock is set forward": (clock.Reading(20 * S, 25 * S, 911 * S), (0, 1 * S, True)),
    "the wall clock is set back": (clock.Reading(20 * S, 25 * S, 810 * S), (0, -100 * S, True)),
    "no clock runs through a suspend": (
        clock.Reading(20 * S, None, 910 * S), (None, 0, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("after", "expected"), GAPS.values(), ids=GAPS)
def test_a_suspend_and_a_set_clock_show_beside_the_monotonic_one(after, expected):
    assert clock.gap(FIRST, after) == expected


def test_the_clocks_of_this_machine_go_together():
    before = clock.read()
    found = clock.gap(before, clock.read())
    assert not found.clock_jump
    assert found.clock_suspended_ns is None or abs(found.clock_suspended_ns) < 1 * MS


def test_a_jump_of_the_wall_clock_is_told_and_disturbs_no_sample():
    """The same run twice; during the second somebody sets the clock back by a year."""
    year = 365 * 24 * 3600 * S
    still = [clock.Reading(0, 0, year), clock.Reading(1 * S, 1 * S, year + 1 * S)]
    set_back = [still[0], clock.Reading(1 * S, 1 * S, 1 * S)]
    timings = []
    for readings in (still, set_back):
        scripted = ScriptedClock(repeat(1 * MS))
        timings.append(clock.time_runs(scripted.run, PLAN, scripted.now, iter(readings).__next__))
    quiet, disturbed = timings
    assert disturbed.samples_ns == quiet.samples_ns
    assert (quiet.clock_jump, disturbed.clock_jump) == (False, True)
    assert disturbed.document()["clock_drift_ns"] == -year
