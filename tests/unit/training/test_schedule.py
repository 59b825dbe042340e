import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.schedule import learning_rate_factor

FACTORS = {
    "the first step of a warm-up of four is a fifth": (0, 20, 0.2, 0.2),
    "the last step of the warm-up": (3, 20, 0.2, 0.8),
    "the step after the warm-up has the full rate": (4, 20, 0.2, 1.0),
    "half-way down the cosine": (12, 20, 0.2, 0.5),
    "a quarter down the cosine": (8, 20, 0.2, 0.8535533905932737),
    "the last step is not zero": (19, 20, 0.2, 0.009607359798384785),
    "one step after the last is zero": (20, 20, 0.2, 0.0),
    "no warm-up starts at the full rate": (0, 10, 0.0, 1.0),
    "a single step learns": (0, 1, 0.0, 1.0),
    "a warm-up of nearly everything still reaches the full rate": (9, 10, 0.99, 1.0),
}


@pytest.mark.parametrize(
    ("step", "num_steps", "warmup_ratio", "expected"), FACTORS.values(), ids=FACTORS
)
def test_known_factors(step, num_steps, warmup_ratio, expected):
    assert learning_rate_factor(step, num_steps, warmup_ratio) == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(0, 0.99))
def test_it_rises_to_one_and_falls_and_is_never_zero(num_steps, warmup_ratio):
    factors = [learning_rate_factor(step, num_steps, warmup_ratio) for step in range(num_steps)]
    peak = factors.index(max(factors))
    assert factors[peak] == 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0
