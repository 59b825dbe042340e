"""Outputs of one model in several places, beside each other."""

import numpy as np
import pytest

from pipeline.profiling.across_places import Ran, agreed
from pipeline.runtimes import structured

FP32 = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55]], np.float32)
INT8 = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], np.float32)
OTHER = np.array([[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]], np.float32)
SCALED = {"name": "out", "dtype": "int8", "scale": 0.25, "zero_point": 0}


def test_the_first_that_runs_fp32_is_the_reference_and_the_first_that_runs_the_file_the_other():
    gone, refusing, micro, last = agreed(
        [
            Ran("gone"),
            Ran("refuses the file", reference_outputs=FP32),
            Ran("micro", INT8, (SCALED,)),
            Ran("last", OTHER, (SCALED,), FP32 + 9),
        ]
    )
    assert gone == refusing == ()
    assert [(each.model, each.against) for each in micro] == [("reference", "refuses the file")]
    assert [(each.model, each.against) for each in last] == [
        ("reference", "refuses the file"),
        ("file", "micro"),
    ]
    assert micro[0].found.max_abs_error == pytest.approx(0.15, abs=1e-6)
    assert micro[0].found.max_step is None
    assert micro[0].found.num_changed == 1
    own = last[1].found
    assert (own.n, own.max_step, own.num_changed, own.changed_ratio) == (3, 1, 1, 1 / 3)
    assert own.bit_exact_ratio == pytest.approx(2 / 3)


def test_without_a_reference_the_first_place_is_it():
    assert [len(each) for each in agreed([Ran("a", INT8), Ran("b", OTHER)])] == [0, 1]


STEPS = {
    "the same scale": ({}, 1),
    "another scale": ({"scale": 0.5}, None),
    "another zero": ({"zero_point": 3}, None),
    "floats": ({"dtype": "float32", "scale": None, "zero_point": None}, None),
    "the same by another name": ({"name": "Identity:0"}, 1),
}


@pytest.mark.parametrize(("changed", "steps"), STEPS.values(), ids=STEPS)
def test_steps_are_told_where_both_places_have_one_scale(changed, steps):
    _, (own,) = agreed([Ran("a", INT8, (SCALED,)), Ran("b", OTHER, (SCALED | changed,))])
    assert own.found.max_step == steps


def test_several_outputs_are_compared_by_name_in_whatever_order():
    tensors = [SCALED | {"name": "boxes"}, SCALED | {"name": "scores", "scale": 0.5}]
    first = structured.join({"boxes": INT8, "scores": FP32})
    second = structured.join({"scores": FP32 + 1, "boxes": OTHER})
    _, (own,) = agreed([Ran("a", first, tensors), Ran("b", second, tensors[::-1])])
    assert own.found.max_step == 2
    assert own.found.bit_exact_ratio == 0


def test_outputs_of_another_form_are_a_reason():
    _, (own,) = agreed([Ran("a", INT8), Ran("b", INT8[:, :1])])
    assert own.found is None
    assert "outputs have shape [3, 1], the reference's [3, 2]" in own.reason
