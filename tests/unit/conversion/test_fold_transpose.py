import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from pipeline.conversion import tflite_graph
from pipeline.conversion.fold_transpose import fold_transpose

VALUES = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
# axes of a mean behind a transpose (order): what averages the same before it
FOLDED = {
    "height and width of NCHW, stored as NHWC": ((0, 3, 1, 2), (2, 3)),
    "counted from the end": ((0, 3, 1, 2), (-2, -1)),
    "channels alone": ((0, 3, 1, 2), (1,)),
}


def run(content):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], VALUES)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize(("order", "axes"), FOLDED.values(), ids=FOLDED)
def test_the_transpose_goes_and_the_mean_stays_the_same(make_tflite, order, axes):
    folded = fold_transpose(make_tflite(order, axes))
    assert tflite_graph.operators(tflite_graph.read(folded)) == ["MEAN"]
    expected = VALUES.transpose(order).mean(axis=tuple(axes))
    np.testing.assert_allclose(run(folded), expected, atol=1e-6)


def test_a_mean_whose_other_axes_change_places_is_left_as_it_is(make_tflite):
    content = make_tflite((1, 0, 2, 3), (2, 3))
    assert fold_transpose(content) == content


def test_a_transpose_that_something_else_reads_stays(make_tflite):
    content = make_tflite((0, 3, 1, 2), (2, 3), read_twice=True)
    assert fold_transpose(content) == content


def test_a_mean_that_keeps_its_axes_is_left_as_it_is(make_tflite):
    content = make_tflite((0, 3, 1, 2), (2, 3), keep_dims=True)
    assert fold_transpose(content) == content


def test_equal_files_fold_to_equal_bytes(make_tflite):
    content = make_tflite((0, 3, 1, 2), (2, 3))
    assert fold_transpose(content) == fold_transpose(bytes(content))
