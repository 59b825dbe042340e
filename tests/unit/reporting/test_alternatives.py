import msgspec
import pytest

from pipeline import params
from pipeline.measurement import Energy
from pipeline.planning.selection import select
from pipeline.reporting.alternatives import alternatives
from pipeline.reporting.answer import Answer


def test_a_wider_budget_wins_only_for_what_is_cheaper_than_every_winner_before(samples):
    found = {a.candidate: a for a in alternatives(samples.many())}
    assert list(found) == [
        "pruned-half-qat-int8-static", "pruned-most-int8-static", "pruned-int8-dynamic",
    ]  # fmt: skip
    first = found["pruned-half-qat-int8-static"]
    assert (first.max_quality_drop, first.wins) == (3.3, True)
    assert first.widening == pytest.approx(1.3)
    assert first.cost_ratio == pytest.approx(0.75)
    last = found["pruned-int8-dynamic"]
    assert (last.wins, last.cheaper) == (False, "pruned-most-int8-static")


def test_what_breaks_another_limit_as_well_is_no_alternative(samples):
    assert [a.candidate for a in alternatives(samples.none())] == ["dense-int8-static"]
    assert alternatives(samples.none())[0].cost_ratio is None


@pytest.mark.parametrize("name", ["one candidate", "failed", "estimated", "built"])
def test_where_nothing_waits_there_is_none(samples, name):
    assert alternatives(samples.SHAPES[name]()) == ()


def test_selecting_with_the_budget_it_names_makes_it_ship(samples):
    """The claim itself: each alternative that wins is what `select` chooses at its budget."""
    answer = samples.many()
    measurements = list(answer.candidates)
    for found in alternatives(answer):
        budget = params.Select(max_quality_drop=found.max_quality_drop)
        chosen = select(measurements, "dense-fp32", budget, "t").chosen
        assert (chosen == found.candidate) == found.wins
        if not found.wins:
            assert chosen == found.cheaper


def test_when_size_decides_the_ratio_is_of_sizes(samples):
    found = samples.many()
    s = select(list(found.candidates), "dense-fp32", params.Select(objective="size"), found.target)
    answer = Answer(target="t", status="ships", selection=s, candidates=found.candidates)
    first = alternatives(answer)[0]
    assert first.candidate == "pruned-half-qat-int8-static"
    assert first.cost_ratio == pytest.approx(30_000 / 40_000)


def test_kinds_of_evidence_are_not_compared(samples):
    found = samples.many()
    estimated = [
        msgspec.structs.replace(m, kind="estimated") if m.candidate == "pruned-most-int8-static"
        else m
        for m in found.candidates
    ]  # fmt: skip
    answer = msgspec.structs.replace(found, candidates=tuple(estimated))
    assert "pruned-most-int8-static" not in {a.candidate for a in alternatives(answer)}


def test_when_energy_decides_a_model_of_it_is_not_compared_with_a_meters(samples):
    def read(m, kind):
        figures = Energy(
            value_mj=m.size_bytes / 1000, meter="m", kind=kind, window_s=10, num_runs=1
        )
        return msgspec.structs.replace(m, energy=figures)

    found = samples.many()
    for others, expected in (("package", 0.75), ("modelled", None)):
        measured = [
            read(m, others if m.candidate == "pruned-half-qat-int8-static" else "package")
            for m in found.candidates
        ]
        s = select(measured, "dense-fp32", params.Select(objective="energy"), found.target)
        answer = Answer(target="t", status="ships", selection=s, candidates=tuple(measured))
        ratios = {a.candidate: a.cost_ratio for a in alternatives(answer)}
        assert ratios.get("pruned-half-qat-int8-static") == expected
