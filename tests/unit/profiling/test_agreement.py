import numpy as np
import pytest

from pipeline.errors import ParityError
from pipeline.profiling import agreement
from pipeline.runtimes import structured


def outputs(classes, num_classes=3):
    """Outputs whose predictions are these classes."""
    return np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


def test_the_first_of_equal_outputs_is_the_prediction():
    tied = np.array([[1, 1, 0], [0, 2, 2]], np.float32)
    assert agreement.predictions(tied).tolist() == [0, 1]


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


def test_one_value_has_no_class_to_agree_on():
    values = np.array([[1.0], [2.0]], np.float32)
    assert agreement.agreement(values, values).top1_agreement is None


def test_every_output_counts_and_the_first_has_the_classes():
    reference = structured.join(
        {"scores": outputs([0, 1]), "boxes": np.array([[3.0], [4.0]], np.float32)}
    )
    candidate = reference.copy()
    candidate["boxes"][1] = 2
    found = agreement.agreement(candidate, reference)
    assert (found.max_abs_error, found.top1_agreement) == (2.0, 1.0)
    assert found.sqnr_db == pytest.approx(10 * np.log10((2 + 25) / 4))
    candidate["scores"] = outputs([0, 2])
    assert agreement.agreement(candidate, reference).top1_agreement == 0.5


def test_outputs_are_compared_by_name_whatever_their_order():
    first, second = outputs([0, 1]), np.array([[3.0], [4.0]], np.float32)
    reference = structured.join({"scores": first, "boxes": second})
    swapped = structured.join({"boxes": second, "scores": first})
    assert agreement.agreement(swapped, reference).max_abs_error == 0
    assert agreement.aligned(swapped, reference).dtype.names == ("scores", "boxes")


OTHERS = {
    "another name": (
        structured.join({"a": outputs([0]), "c": outputs([0])}),
        r"have shape a \[1, 3\], c \[1, 3\], the reference's a \[1, 3\], b \[1, 3\]; mend the conv",
    ),
    "another shape": (
        structured.join({"a": outputs([0]), "b": outputs([0], 4)}),
        r"have shape a \[1, 3\], b \[1, 4\]",
    ),
    "one output alone": (outputs([0]), r"have shape \[1, 3\], the reference's a"),
}


@pytest.mark.parametrize(("other", "message"), OTHERS.values(), ids=OTHERS)
def test_outputs_of_another_net_are_not_compared(other, message):
    reference = structured.join({"a": outputs([0]), "b": outputs([0])})
    with pytest.raises(ParityError, match=message):
        agreement.agreement(other, reference)


class TestAcross:
    def test_it_counts_equal_samples_changed_classes_and_the_largest_difference(self):
        reference = np.array([[3, 0], [0, 4], [1, 0], [0, 1]], np.float32)
        found = agreement.across(
            np.array([[3, 0], [0, 4], [0.75, 1], [0, 1.25]], np.float32), reference
        )
        assert found == agreement.Across(
            n=4, bit_exact_ratio=0.5, max_abs_error=1.0, max_step=None, num_changed=1
        )
        assert found.changed_ratio == 0.25

    def test_the_last_bit_counts(self):
        reference = np.ones((2, 3), np.float32)
        moved = reference.copy()
        moved[1, 2] = np.nextafter(np.float32(1), np.float32(2))
        assert agreement.across(moved, reference).bit_exact_ratio == 0.5

    def test_a_difference_in_steps_is_a_whole_number(self):
        scale = 0.1  # not a binary fraction: floats of one grid differ by nearly a step
        levels = np.array([[1, 5], [2, -3]])
        reference = (levels * scale).astype(np.float32)
        other = ((levels + np.array([[0, 3], [-1, 0]])) * scale).astype(np.float32)
        assert agreement.across(other, reference, (scale,)).max_step == 3

    def test_several_outputs_must_all_agree_and_all_have_steps(self):
        reference = structured.join({"a": outputs([0, 1]), "b": outputs([2, 2])})
        other = structured.join({"a": outputs([0, 1]), "b": outputs([2, 1])})
        found = agreement.across(other, reference, (0.5, 0.25))
        assert (found.bit_exact_ratio, found.num_changed, found.max_step) == (0.5, 0, 4)
        assert agreement.across(other, reference, (0.5, None)).max_step is None
        assert agreement.across(other, reference, ()).max_step is None

    def test_one_value_has_no_class_that_could_change(self):
        found = agreement.across(np.array([[1.0]]), np.array([[2.0]]))
        assert (found.num_changed, found.changed_ratio) == (None, None)
