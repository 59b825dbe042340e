import io

import numpy as np
import pytest

from pipeline.runtimes import structured

A = np.arange(6, dtype=np.float32).reshape(3, 2)
B = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def test_what_is_joined_comes_apart_as_it_was():
    joined = structured.join({"a": A, "b/scores:0": B})
    assert (joined.shape, joined.dtype.names) == ((3,), ("a", "b/scores:0"))
    for found, expected in zip(structured.parts(joined), (A, B), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_plain_array_is_its_only_part():
    (part,) = structured.parts(A)
    assert part is A


def test_it_is_stored_without_pickle_and_sliced_and_concatenated_by_sample():
    joined = structured.join({"a": A, "b": B})
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, inputs=joined)
    content.seek(0)
    with np.load(content, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["inputs"], joined)
    again = np.concatenate([joined[:1], joined[1:]])
    assert again.tobytes() == joined.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_makes_a_row_not_finite(value):
    joined = structured.join({"a": A, "b": B})
    assert structured.finite_rows(joined).all()
    joined["a"][1, 1] = value
    assert structured.finite_rows(joined).tolist() == [True, False, True]
    assert structured.finite_rows(joined["a"]).tolist() == [True, False, True]
