import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reporting.pareto import front

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


def names(measurements):
    return [m.candidate for m in front(measurements)]


def points(samples, pairs, direction="higher"):
    return [
        samples.measured(str(index), float(latency), quality=samples.Quality(
            "q", direction, "", float(quality), 9, 0.1))
        for index, (latency, quality) in enumerate(pairs)
    ]  # fmt: skip


def test_what_is_slower_and_no_better_is_dominated(samples):
    assert names(points(samples, [(1, 5), (2, 5), (3, 9), (4, 8)])) == ["0", "2"]


def test_where_less_is_better_the_other_end_counts(samples):
    assert names(points(samples, [(1, 5), (2, 5), (3, 9), (4, 1)], "lower")) == ["0", "3"]


def test_equals_both_stay(samples):
    assert names(points(samples, [(1, 5), (1, 5)])) == ["0", "1"]


def test_without_a_latency_or_a_quality_there_is_no_place_on_it(samples):
    unknown = [samples.measured("a"), samples.measured("b", 1.0)]
    assert front(unknown) == ()


def test_two_kinds_are_a_mistake_of_the_caller(samples):
    with pytest.raises(AssertionError, match="never compared"):
        front([samples.measured("a", 1.0), samples.measured("b", 1.0, kind="estimated")])


@given(pairs=POINTS)
def test_nothing_on_it_is_beaten_and_everything_off_it_is(samples, pairs):
    found = points(samples, pairs)
    kept = {int(name) for name in names(found)}

    def beaten(index):
        latency, quality = pairs[index]
        return any(a <= latency and q >= quality and (a, q) != (latency, quality)
                   for a, q in pairs)  # fmt: skip

    assert kept == {index for index in range(len(pairs)) if not beaten(index)}
