import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.profiling import statistics

RATES = {50: 0.5, 90: 0.1, 95: 0.05, 97: 0.03, 99: 0.01}
ENOUGH = {
    "10 samples have no p50": (50, 10, False),
    "11 samples have a p50": (50, 11, True),
    "63 samples have no p90": (90, 63, False),
    "64 samples have a p90": (90, 64, True),
    "129 samples have no p95": (95, 129, False),
    "130 samples have a p95": (95, 130, True),
    "218 samples have no p97": (97, 218, False),
    "219 samples have a p97": (97, 219, True),
    "661 samples have no p99": (99, 661, False),
    "662 samples have a p99": (99, 662, True),
}


@pytest.mark.parametrize(("percent", "n", "there"), ENOUGH.values(), ids=ENOUGH)
def test_a_percentile_needs_its_samples(percent, n, there):
    found = statistics.percentile(np.arange(n, dtype=float), percent)
    assert (found is not None) is there


@pytest.mark.parametrize("percent", RATES)
def test_counts_are_the_least_that_early_stopping_allows(percent):
    """MLPerf early stopping at confidence 0.99 with one sample beyond the percentile."""
    n = statistics.MIN_SAMPLES[percent]
    assert stats.binom.cdf(1, n, RATES[percent]) <= 0.01
    assert stats.binom.cdf(1, n - 1, RATES[percent]) > 0.01


@given(seed=st.integers(0, 1000), percent=st.sampled_from([50, 90, 95, 97, 99]))
@settings(max_examples=20)
def test_percentiles_are_numpys(seed, percent):
    samples = np.random.default_rng(seed).lognormal(size=662)
    assert statistics.percentile(samples, percent) == np.quantile(samples, percent / 100)


@pytest.mark.parametrize("confidence", [95.0, 97.5])
@pytest.mark.parametrize("df", range(1, 11))
def test_students_t_is_scipys(confidence, df):
    quantile = stats.t.ppf((1 + confidence / 100) / 2, df)
    assert statistics.STUDENT_T[confidence][df - 1] == pytest.approx(quantile, abs=5e-4)


def test_a_surer_interval_of_a_ratio_is_wider_about_the_same_value():
    generator = np.random.default_rng(0)
    rounds = [[generator.lognormal(size=60) for _ in range(4)] for _ in range(2)]
    usual, surer = (statistics.ratio_interval(*rounds, 0, level) for level in (95.0, 97.5))
    assert surer.value == usual.value
    assert surer.lower < usual.lower < usual.upper < surer.upper


def draw(generator, median, rounds, between, within, n=60):
    """Restarts that differ by ``between`` (log), whose samples have a one-sided tail."""
    restarts = []
    for drift in rounds:
        noise = np.abs(generator.normal(0, within, n)) - within * stats.norm.ppf(0.75)
        level = np.log(median) + drift + generator.normal(0, between)
        restarts.append(np.exp(level + noise))
    return restarts


NOISES = {
    "restarts differ more than samples": (0.05, 0.02),
    "samples differ more than restarts": (0.01, 0.1),
}


@pytest.mark.parametrize(("between", "within"), NOISES.values(), ids=NOISES)
def test_the_interval_of_a_median_holds_the_truth_in_95_of_100_cases(between, within):
    generator, hits = np.random.default_rng(1), 0
    for seed in range(100):
        found = statistics.median_interval(draw(generator, 2.0, [0] * 3, between, within), seed)
        hits += found.lower <= 2.0 <= found.upper
    assert hits >= 90  # of a true 95, 3 standard errors of 2.2 below are 88


def test_the_interval_of_a_ratio_holds_the_truth_though_every_round_drifts():
    generator, hits = np.random.default_rng(2), 0
    for seed in range(100):
        drift = generator.normal(0, 0.2, 3)
        candidate = draw(generator, 0.7, drift, 0.02, 0.05)
        reference = draw(generator, 1.0, drift, 0.02, 0.05)
        found = statistics.ratio_interval(candidate, reference, seed)
        hits += found.lower <= 0.7 <= found.upper
        assert found.upper / found.lower < 1.6  # the common drift of 20 % a round cancels
    assert hits >= 90


def test_a_percentile_bootstrap_over_three_restarts_could_not_reach_95():
    """Why the interval has Student's t: three restarts all lie on one side in 1 of 4 cases."""
    generator = np.random.default_rng(3)
    restarts = generator.normal(0, 1, (4000, 3))
    inside = (restarts.min(axis=1) <= 0) & (restarts.max(axis=1) >= 0)
    assert inside.mean() == pytest.approx(0.75, abs=0.03)


@given(factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_other_units_scale_the_interval(factor, seed):
    restarts = draw(np.random.default_rng(seed), 1.0, [0] * 3, 0.02, 0.1, n=30)
    plain = statistics.median_interval(restarts, 0)
    scaled = statistics.median_interval([factor * r for r in restarts], 0)
    for name in ("value", "lower", "upper"):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(plain, name), rel=1e-9)
    assert plain.lower <= plain.value <= plain.upper


@pytest.mark.parametrize("num_restarts", [2, 3, 8])
def test_restarts_without_inner_noise_give_students_interval(num_restarts):
    """With one level a restart the width is the textbook's: t s / sqrt(R), of the logarithms."""
    logs = np.random.default_rng(num_restarts).normal(0, 0.05, num_restarts)
    found = statistics.median_interval([np.full(20, np.exp(level)) for level in logs], 0)
    half = stats.t.ppf(0.975, num_restarts - 1) * logs.std(ddof=1) / np.sqrt(num_restarts)
    # 2,000 resamples give a standard error to 1.6 %, three of which are 5 %
    assert np.log(found.upper / found.lower) / 2 == pytest.approx(half, rel=0.05)


def test_equal_samples_have_no_width():
    found = statistics.median_interval([np.full(20, 3.0)] * 3, 0)
    assert (found.value, found.lower, found.upper) == pytest.approx((3, 3, 3))


def test_the_same_seed_gives_the_same_interval():
    restarts = draw(np.random.default_rng(0), 1.0, [0] * 3, 0.02, 0.1)
    assert statistics.median_interval(restarts, 5) == statistics.median_interval(restarts, 5)
    assert statistics.median_interval(restarts, 5) != statistics.median_interval(restarts, 6)


def test_more_restarts_narrow_the_interval():
    generator = np.random.default_rng(0)
    widths = []
    for num_restarts in (3, 10):
        found = [
            statistics.median_interval(draw(generator, 1.0, [0] * num_restarts, 0.05, 0.02), s)
            for s in range(10)
        ]
        widths.append(np.median([i.upper - i.lower for i in found]))
    assert widths[1] < widths[0] / 2


def test_a_ratio_is_the_geometric_mean_of_the_rounds():
    candidate = [np.full(12, value) for value in (2.0, 4.0, 8.0)]
    reference = [np.full(12, value) for value in (1.0, 4.0, 16.0)]
    found = statistics.ratio_interval(candidate, reference, 0)
    assert found.value == pytest.approx((2 * 1 * 0.5) ** (1 / 3))


def test_a_model_against_itself_has_ratio_one_inside():
    generator = np.random.default_rng(4)
    a, b = (draw(generator, 1.0, [0] * 3, 0.01, 0.05) for _ in range(2))
    found = statistics.ratio_interval(a, b, 0)
    assert found.lower < 1 < found.upper


def turns_of(generator, truth, num_rounds, num_turns=30):
    """Ratios by turn on a machine whose cores now and then go at half their speed."""
    rounds = []
    for _ in range(num_rounds):
        is_slow = generator.random((2, num_turns)) < 0.1
        noise = generator.normal(0, 0.01, num_turns) + generator.normal(0, 0.005)
        rounds.append(truth * np.exp(noise + np.log(2) * (is_slow[0] * 1.0 - is_slow[1])))
    return rounds


def test_the_interval_by_turns_holds_the_truth_though_the_machine_changes_its_speed():
    generator, hits, sure = np.random.default_rng(5), 0, 0
    for seed in range(100):
        found = statistics.turns_ratio_interval(turns_of(generator, 1.1, 4), seed)
        hits += found.lower <= 1.1 <= found.upper
        sure += 1.05 < found.lower <= found.upper < 1.15
    assert hits >= 90
    assert sure >= 90


def test_a_ratio_by_turns_is_the_geometric_mean_of_the_rounds_medians():
    rounds = [np.array(turns) for turns in ([1.0, 2.0, 9.0], [8.0], [0.4, 0.5, 0.5, 0.5])]
    found = statistics.turns_ratio_interval(rounds, 0)
    assert found.value == pytest.approx((2 * 8 * 0.5) ** (1 / 3))


def test_few_samples_have_no_latency_at_all():
    found = statistics.latency([np.ones(3)] * 3, batched=False, seed=0)
    assert (found.p50, found.p50_lower, found.p90) == (None, None, None)


def test_batches_have_a_p50_and_no_tail():
    restarts = [np.linspace(1, 2, 300)] * 3
    alone = statistics.latency(restarts, batched=False, seed=0)
    assert alone.p90 == pytest.approx(1.9, abs=0.01)
    assert alone.p99 == pytest.approx(1.99, abs=0.01)
    batched = statistics.latency(restarts, batched=True, seed=0)
    assert (batched.p50, batched.p90, batched.p99) == (alone.p50, None, None)
