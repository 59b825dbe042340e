import shutil

import numpy as np
import pytest

from pipeline import params
from pipeline.errors import ManifestError, ParityError
from pipeline.profiling import golden, measure

WEIGHTS = np.array([[1, -2, 0.5], [3, 4, 1]], np.float32)
RAW = np.random.default_rng(0).uniform(-4, 4, (20, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def profiled(make_artifact, make_inputs, target, tmp_path_factory):
    """An artifact with its golden.npz, as stage profile leaves it."""
    artifact = make_artifact(WEIGHTS)
    outputs = measure.outputs(artifact, make_inputs(RAW), target)
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    golden.make_golden(path, RAW, outputs, "fp32")
    return artifact, path


def test_golden_holds_eight_raw_inputs_and_the_artifacts_own_outputs(profiled):
    with np.load(profiled[1], allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["inputs"], RAW[:8])
        np.testing.assert_allclose(arrays["outputs"], RAW[:8] / 2 @ WEIGHTS, rtol=1e-5)
        assert 0 < arrays["tolerance"] < 0.01
        assert "order" in str(arrays["reason"])


def test_the_artifact_repeats_itself(profiled, target):
    assert golden.check_golden(*profiled, target) == 0


def test_another_model_is_found_out(profiled, make_artifact, target):
    moved = make_artifact(WEIGHTS + 0.01)
    with pytest.raises(
        ParityError, match=r"differ by 0.0\d+ on onnxruntime, allowed .*do not ship"
    ):
        golden.check_golden(moved, profiled[1], target)


def test_another_number_of_classes_is_found_out(profiled, make_artifact, target):
    with pytest.raises(ParityError, match=r"shape \[8, 2\], \[8, 3\] is recorded"):
        golden.check_golden(make_artifact(WEIGHTS[:, :2]), profiled[1], target)


def test_nan_is_found_out(profiled, make_artifact, target):
    with pytest.raises(ParityError, match="differ by nan"):
        golden.check_golden(make_artifact(WEIGHTS * np.nan), profiled[1], target)


def test_equal_arguments_give_equal_bytes(profiled, tmp_path):
    with np.load(profiled[1], allow_pickle=False) as arrays:
        golden.make_golden(tmp_path / "again.npz", arrays["inputs"], arrays["outputs"], "fp32")
    assert (tmp_path / "again.npz").read_bytes() == profiled[1].read_bytes()


@pytest.mark.parametrize("precision", params.Precision.__args__)
def test_every_precision_has_a_tolerance_with_its_reason(precision, tmp_path):
    golden.make_golden(tmp_path / "g.npz", RAW, np.full((20, 3), 50, np.float32), precision)
    with np.load(tmp_path / "g.npz", allow_pickle=False) as arrays:
        assert float(arrays["tolerance"]) == pytest.approx(50 * golden.TOLERANCES[precision][0])
        assert str(arrays["reason"]) == golden.TOLERANCES[precision][1]


def test_outputs_below_one_do_not_shrink_the_tolerance(tmp_path):
    golden.make_golden(tmp_path / "g.npz", RAW, np.zeros((20, 3), np.float32), "fp32")
    with np.load(tmp_path / "g.npz", allow_pickle=False) as arrays:
        assert float(arrays["tolerance"]) == golden.TOLERANCES["fp32"][0]


def test_a_broken_file_is_refused(profiled, target, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    with pytest.raises(ManifestError, match=r"broken.npz cannot be read: .*profile it again"):
        golden.check_golden(profiled[0], tmp_path / "broken.npz", target)


def test_another_file_is_refused(profiled, target, tmp_path):
    shutil.copy(profiled[1], tmp_path / "other.npz")
    np.savez(tmp_path / "other.npz", inputs=RAW)
    with pytest.raises(ManifestError, match=r"other.npz does not hold \['inputs', 'outputs'"):
        golden.check_golden(profiled[0], tmp_path / "other.npz", target)
