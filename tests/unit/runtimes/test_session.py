import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtimes import session, structured
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Tensor, decode, decode_all, encode, encode_all

INT8 = Tensor("x", "int8", (1, 4), scale=0.5, zero_point=3)
QUANTIZED = {
    "zero is the zero point": (0.0, 3),
    "one step": (0.5, 4),
    "a half goes to the even level": (0.25, 3),
    "the next half too": (0.75, 5),
    "too large saturates": (1e6, 127),
    "too small saturates": (-1e6, -128),
}


@pytest.mark.parametrize(("value", "level"), QUANTIZED.values(), ids=QUANTIZED)
def test_known_levels(value, level):
    found = encode(np.full((1, 4), value, np.float32), INT8)
    assert found.dtype == np.int8
    assert found.tolist() == [[level] * 4]


@given(
    dtype=st.sampled_from(["int8", "uint8", "int16"]),
    scale=st.floats(1e-4, 10),
    levels=st.lists(st.integers(-128, 127), min_size=4, max_size=4),
)
def test_decoded_levels_encode_to_themselves(dtype, scale, levels):
    zero_point = 128 if dtype == "uint8" else 0
    tensor = Tensor("x", dtype, (1, 4), scale, zero_point)
    encoded = (np.array([levels]) + zero_point).astype(dtype)
    np.testing.assert_array_equal(encode(decode(encoded, tensor), tensor), encoded)


@given(st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4))
def test_no_value_in_range_moves_by_more_than_half_a_step(values):
    sample = np.array([values], np.float32)
    assert np.abs(decode(encode(sample, INT8), INT8) - sample).max() <= 0.25


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_float_inputs_are_cast_and_come_back_as_float32(dtype):
    sample = np.array([[0.5, -1, 2, 0]], np.float32)
    encoded = encode(sample, Tensor("x", dtype, ("batch", 4)))
    assert encoded.dtype == np.dtype(dtype)
    assert decode(encoded, Tensor("x", dtype, (1, 4))).dtype == np.float32
    np.testing.assert_array_equal(encoded, sample)


@pytest.mark.parametrize("shape", [(1, 5), (4,), (1, 1, 4)])
def test_another_shape_is_refused(shape):
    with pytest.raises(
        RunnerError, match=r"'x' takes shape \[1, 4\], .*correct data.preprocessing"
    ):
        encode(np.zeros(shape, np.float32), INT8)


def test_an_integer_without_a_scale_is_refused():
    bare = Tensor("ids", "int32", (1, 4))
    with pytest.raises(RunnerError, match="'ids' is int32 but states no scale"):
        encode(np.zeros((1, 4), np.float32), bare)
    with pytest.raises(RunnerError, match="'ids' is int32 but states no scale"):
        decode(np.zeros((1, 4), np.int32), bare)


IMAGE = Tensor("image", "float32", ("batch", 2))
LEVEL = Tensor("level", "int8", (1, 1), scale=0.5, zero_point=3)
SAMPLE = structured.join(
    {"level": np.array([[1.0]], np.float32), "image": np.array([[7.0, 8.0]], np.float32)}
)


def test_several_inputs_are_encoded_by_name_in_the_sessions_order():
    image, level = encode_all(SAMPLE, (IMAGE, LEVEL))
    np.testing.assert_array_equal(image, [[7, 8]])
    assert (level.dtype, level.tolist()) == (np.int8, [[5]])


def test_inputs_of_one_shape_are_told_apart_by_name():
    sample = structured.join({name: np.full((1, 2), v, np.float32) for v, name in enumerate("ab")})
    tensors = [Tensor(name, "float32", (1, 2)) for name in "ba"]
    assert [found.tolist() for found in encode_all(sample, tensors)] == [[[1, 1]], [[0, 0]]]


def test_the_only_input_takes_what_has_no_name():
    (found,) = encode_all(np.array([[7.0, 8.0]], np.float32), (IMAGE,))
    assert found.tolist() == [[7, 8]]


OTHER_NAMES = {
    "one is missing": (SAMPLE[["level"]], (IMAGE, LEVEL), r"\['image', 'level'\], .*\['level'\]"),
    "one is too many": (SAMPLE, (IMAGE,), r"inputs \['image'\], the samples have \['image', 'lev"),
    "no names for several": (
        np.zeros((1, 2), np.float32),
        (IMAGE, LEVEL),
        r"have \['one without a name'\]; give each input its array inputs.NAME",
    ),
}


@pytest.mark.parametrize(("sample", "tensors", "words"), OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_inputs_of_other_names_are_refused_with_one_line(sample, tensors, words):
    with pytest.raises(RunnerError, match=words):
        encode_all(sample, tensors)


def test_several_outputs_are_decoded_into_fields_and_one_is_plain():
    outputs = [np.array([[7.0, 8.0]], np.float32), np.array([[5]], np.int8)]
    both = decode_all(outputs, (IMAGE, LEVEL))
    assert both.dtype == np.dtype([("image", np.float32, (2,)), ("level", np.float32, (1,))])
    assert (both["image"].tolist(), both["level"].tolist()) == ([[7, 8]], [[1]])
    one = decode_all(outputs[1:], (LEVEL,))
    assert (one.dtype, one.tolist()) == (np.float32, [[1]])


def test_one_of_several_outputs_without_the_batch_is_refused():
    odd = Tensor("odd", "float32", (3,))
    with pytest.raises(
        RunnerError, match=r"'odd' has shape \[3\], its first axis must be the batch"
    ):
        decode_all([np.zeros((1, 2), np.float32), np.zeros(3, np.float32)], (IMAGE, odd))


SHAPES = {
    "a free axis takes any batch": (("batch", 3), 8, True),
    "the batch asked for": ((8, 3), 8, True),
    "another batch": ((1, 3), 8, False),
    "a tensor without axes": ((), 8, False),
    "one sample fits everywhere": ((5, 3), 1, True),
}


@pytest.mark.parametrize(("shape", "batch", "fits"), SHAPES.values(), ids=SHAPES)
def test_a_batch_needs_room_in_every_tensor(shape, batch, fits):
    tensors = [session.Tensor("a", "float32", (batch, 3)), session.Tensor("b", "float32", shape)]
    if fits:
        session.check_batch(tensors, batch, "the file")
        return
    with pytest.raises(RunnerError, match=r"the file takes no batch of 8: the first axis of 'b'"):
        session.check_batch(tensors, batch, "the file")


def test_a_runtime_without_batches_says_so():
    session.refuse_batch(1, "tflite-micro")
    with pytest.raises(RunnerError, match=r"tflite-micro takes no batch of 2: .* batch_size at 1"):
        session.refuse_batch(2, "tflite-micro")


def test_the_inputs_of_a_batch_are_those_of_one_sample_but_for_the_first_axis():
    tensors = [session.Tensor("a", "int8", (8, 3), 0.5, 4), session.Tensor("b", "int8", ("n", 3))]
    assert [tensor.shape for tensor in session.of_one(tensors)] == [(1, 3), (1, 3)]
    assert session.of_one(tensors)[0][3:] == (0.5, 4)
