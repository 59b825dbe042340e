import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from pipeline.profiling import intervals

TOLERANCE = 1e-6  # two root finders on one smooth function
ALIKE = np.zeros(200, np.int64)  # one stratum


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (538, 545)])
def test_the_half_width_of_a_share_is_scipys_wilson_interval(right, n):
    oracle = stats.binomtest(right, n).proportion_ci(method="wilson")
    found = intervals.wilson_half_width(right / n, n)
    assert found == pytest.approx((oracle.high - oracle.low) / 2)


def oracle_bound(lost, gained, n, sign):
    """Tango's bound, the constrained maximum likelihood found numerically, not by formula."""

    def score(delta):
        def loss(q):
            chances = np.array([q + delta, q, 1 - 2 * q - delta])
            counts = np.array([lost, gained, n - lost - gained])
            return -np.sum(counts * np.log(np.maximum(chances, 1e-300)))

        low, high = max(0.0, -delta), (1 - delta) / 2
        q = optimize.minimize_scalar(loss, bounds=(low, high), options={"xatol": 1e-12}).x
        return (lost - gained - n * delta) / np.sqrt(n * (2 * q + delta - delta**2)) - sign

    value = (lost - gained) / n
    ends = (-0.999, value - 1e-9) if sign > 0 else (value + 1e-9, 0.999)
    return optimize.brentq(score, *ends)


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(5, 2, 100), (2, 5, 100), (12, 1, 545), (30, 28, 200), (1, 0, 40)]
)
def test_the_paired_interval_is_tangos(lost, gained, n):
    lower, upper = intervals.paired_share(lost, gained, n)
    assert lower == pytest.approx(oracle_bound(lost, gained, n, intervals.Z), abs=1e-4)
    assert upper == pytest.approx(oracle_bound(lost, gained, n, -intervals.Z), abs=1e-4)


@pytest.mark.parametrize("n", [10, 360, 545])
def test_no_discordant_pair_still_has_a_width(n):
    lower, upper = intervals.paired_share(0, 0, n)
    width = intervals.Z**2 / (n + intervals.Z**2)
    assert (lower, upper) == pytest.approx((-width, width), abs=TOLERANCE)


@pytest.mark.parametrize(("n", "excess"), [(1_000, 0.2), (9_000, 0.03), (1_000_000, 0.001)])
def test_the_width_comes_down_to_walds_as_discordant_pairs_grow(n, excess):
    """Wald: z sqrt(discordant) / n, too narrow at few pairs. Here 1 in 100 is discordant."""
    lower, upper = intervals.paired_share(n // 200, n // 200, n)
    wald = intervals.Z * (n / 100) ** 0.5 / n
    assert 1 <= (upper - lower) / 2 / wald <= 1 + excess


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_value_and_mirrors(rest, lost, gained):
    n = rest + lost + gained
    lower, upper = intervals.paired_share(lost, gained, n)
    assert -1 <= lower <= (lost - gained) / n <= upper <= 1
    assert intervals.paired_share(gained, lost, n) == pytest.approx((-upper, -lower), abs=TOLERANCE)


def test_the_paired_interval_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(360, [0.02, 0.01, 0.97], size=400)
    bounds = [intervals.paired_share(lost, gained, 360) for lost, gained, _ in drawn]
    hits = sum(lower <= 0.01 <= upper for lower, upper in bounds)
    assert 0.92 <= hits / 400 <= 0.99


def test_a_bootstrap_of_a_mean_is_near_students_interval():
    values = np.random.default_rng(0).normal(3, 1, 200)
    draws = intervals.resamples(2000, ALIKE, seed=0)
    mean = float(values.mean())
    lower, upper = intervals.bootstrap(lambda rows: values[rows].mean(), mean, draws)
    half_width = stats.t.ppf(0.975, 199) * values.std(ddof=1) / 200**0.5
    assert upper - lower == pytest.approx(2 * half_width, rel=0.08)
    assert lower < mean < upper


def test_a_bootstrap_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        values = generator.exponential(1, 200)
        draws = intervals.resamples(300, ALIKE, seed=0)
        mean = float(values.mean())
        lower, upper = intervals.bootstrap(lambda rows, v=values: v[rows].mean(), mean, draws)
        hits += lower <= 1 <= upper
    assert 0.90 <= hits / 200 <= 0.985


def test_resamples_keep_the_size_of_every_stratum():
    strata = np.array([0] * 5 + [3] * 20)
    for rows in intervals.resamples(50, strata, seed=0):
        assert np.bincount(strata[rows]).tolist() == [5, 0, 0, 20]


def test_the_same_seed_draws_the_same_rows():
    first, second = (np.stack(list(intervals.resamples(5, ALIKE, seed=seed))) for seed in (7, 7))
    np.testing.assert_array_equal(first, second)
    assert (first != np.stack(list(intervals.resamples(5, ALIKE, seed=8)))).any()


def test_an_interval_always_holds_its_value():
    lower, upper = intervals.bootstrap(lambda _: 1.0, 2.0, intervals.resamples(9, ALIKE, seed=0))
    assert (lower, upper) == (1.0, 2.0)
