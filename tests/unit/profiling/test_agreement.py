import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from pipeline.profiling import agreement

TOLERANCE = 1e-6  # two root finders on one smooth function


def outputs(classes, num_classes=3):
    """Outputs whose predictions are these classes."""
    return np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (538, 545)])
def test_quality_is_scipys_wilson_interval(right, n):
    labels = np.zeros(n, np.int64)
    found = agreement.quality(outputs([0] * right + [1] * (n - right)), labels)
    oracle = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert found.value == pytest.approx(100 * right / n)
    assert found.half_width == pytest.approx(50 * (oracle.high - oracle.low))
    assert (found.metric, found.direction, found.unit, found.n) == ("accuracy", "higher", "%", n)


def test_the_first_of_equal_outputs_is_the_prediction():
    tied = np.array([[1, 1, 0], [0, 2, 2]], np.float32)
    assert agreement.quality(tied, np.array([0, 1])).value == 100


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
    lower, upper = agreement.paired_interval(lost, gained, n)
    assert lower == pytest.approx(oracle_bound(lost, gained, n, agreement.Z), abs=1e-4)
    assert upper == pytest.approx(oracle_bound(lost, gained, n, -agreement.Z), abs=1e-4)


@pytest.mark.parametrize("n", [10, 360, 545])
def test_no_discordant_pair_still_has_a_width(n):
    lower, upper = agreement.paired_interval(0, 0, n)
    width = agreement.Z**2 / (n + agreement.Z**2)
    assert (lower, upper) == pytest.approx((-width, width), abs=TOLERANCE)


@pytest.mark.parametrize(("n", "excess"), [(1_000, 0.2), (9_000, 0.03), (1_000_000, 0.001)])
def test_the_width_comes_down_to_walds_as_discordant_pairs_grow(n, excess):
    """Wald: z sqrt(discordant) / n, too narrow at few pairs. Here 1 in 100 is discordant."""
    lower, upper = agreement.paired_interval(n // 200, n // 200, n)
    wald = agreement.Z * (n / 100) ** 0.5 / n
    assert 1 <= (upper - lower) / 2 / wald <= 1 + excess


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_value_and_mirrors(rest, lost, gained):
    n = rest + lost + gained
    lower, upper = agreement.paired_interval(lost, gained, n)
    assert -1 <= lower <= (lost - gained) / n <= upper <= 1
    assert agreement.paired_interval(gained, lost, n) == pytest.approx(
        (-upper, -lower), abs=TOLERANCE
    )


def test_the_paired_interval_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(360, [0.02, 0.01, 0.97], size=400)
    bounds = [agreement.paired_interval(lost, gained, 360) for lost, gained, _ in drawn]
    hits = sum(lower <= 0.01 <= upper for lower, upper in bounds)
    assert 0.92 <= hits / 400 <= 0.99


def test_drop_counts_pairs():
    labels = np.zeros(10, np.int64)
    reference = outputs([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    candidate = outputs([1, 2, 1, 0, 0, 0, 0, 0, 0, 2])  # three lost, one gained, one wrong twice
    found = agreement.drop(candidate, reference, labels)
    assert (found.value, found.num_discordant, found.n) == (pytest.approx(20), 4, 10)
    assert found.lower < 20 < found.upper


def test_agreement_is_the_equations():
    reference = np.array([[3, 0], [0, 4]], np.float32)
    candidate = np.array([[3, 0], [0.5, 3.5]], np.float32)
    found = agreement.agreement(candidate, reference)
    assert found.max_abs_error == 0.5
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 0.5))
    assert found.top1_agreement == 1.0


def test_equal_outputs_have_no_error_and_no_finite_sqnr():
    same = outputs([0, 1, 2])
    found = agreement.agreement(same, same)
    assert (found.max_abs_error, found.sqnr_db, found.top1_agreement) == (0.0, None, 1.0)


def test_agreement_counts_predictions():
    found = agreement.agreement(outputs([0, 1, 2, 2]), outputs([0, 1, 2, 0]))
    assert found.top1_agreement == 0.75
