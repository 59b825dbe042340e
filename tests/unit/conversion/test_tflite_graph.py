import numpy as np
import pytest

from pipeline.conversion import tflite_graph
from pipeline.errors import ConversionError


@pytest.fixture
def content(make_tflite):
    return make_tflite((0, 3, 1, 2), (2, 3))


def test_operators_have_their_names(content):
    assert tflite_graph.operators(tflite_graph.read(content)) == ["TRANSPOSE", "MEAN"]


def test_borders_are_shapes_and_types_of_inputs_and_outputs(content):
    model = tflite_graph.read(content)
    float32 = model.subgraphs[0].tensors[0].type
    assert tflite_graph.borders(model) == [
        ([2, 3, 4, 5], float32, [], []),
        ([2, 5], float32, [], []),
    ]


def test_a_file_written_reads_back(content):
    assert tflite_graph.write(tflite_graph.read(content)) == content


def test_only_constant_integers_are_constants(content):
    model = tflite_graph.read(content)
    graph = model.subgraphs[0]
    found = [tflite_graph.constant(model, graph, index) for index in range(5)]
    assert [values is not None for values in found] == [False, True, False, True, False]
    assert found[1].tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused_in_one_line(content, ratio):
    with pytest.raises(ConversionError, match=r"^the .tflite file is damaged or cut off: .*; rest"):
        tflite_graph.read(content[: int(len(content) * ratio)])


def test_random_bytes_are_no_tflite_file():
    with pytest.raises(ConversionError, match=r"^the file is no .tflite file; give one"):
        tflite_graph.read(np.random.default_rng(0).bytes(4096))


def test_random_bytes_behind_the_identifier_are_a_damaged_file():
    noise = bytearray(np.random.default_rng(0).bytes(4096))
    noise[4:8] = b"TFL3"
    with pytest.raises(ConversionError, match=r"damaged or cut off"):
        tflite_graph.read(bytes(noise))


def test_an_empty_file_is_no_tflite_file():
    with pytest.raises(ConversionError, match=r"no .tflite file"):
        tflite_graph.read(b"")
