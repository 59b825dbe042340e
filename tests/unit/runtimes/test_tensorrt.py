import pytest

from pipeline.runtimes import cuda, tensorrt
from pipeline.runtimes.errors import RunnerError


@pytest.fixture
def without_gpu():
    found = cuda.find()
    if not isinstance(found, str):
        pytest.skip(f"{found.name} is here")
    return found


def test_without_a_gpu_loading_is_one_line(without_gpu, tmp_path):
    (tmp_path / "model.engine").write_bytes(b"vtrt" + bytes(60))
    with pytest.raises(RunnerError, match=r"^no CUDA device: .*; .* where a GPU is$") as raised:
        tensorrt.load(str(tmp_path / "model.engine"), 1)
    assert str(raised.value) == without_gpu


def test_without_a_gpu_there_is_no_compute_capability(without_gpu):
    assert without_gpu
    assert cuda.compute_capability() is None


def test_a_batch_is_refused_before_a_gpu_is_looked_for():
    with pytest.raises(RunnerError, match=r"^TensorRT takes no batch of 8: .*batch_size at 1$"):
        tensorrt.load("model.engine", 1, 8)
