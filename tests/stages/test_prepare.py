"""Stage ``prepare``: four splits and a manifest, the same wherever and whenever it runs."""

import msgspec
import numpy as np
import pytest

from pipeline import files, manifest, params
from pipeline.chain import prepare
from pipeline.data import splits
from pipeline.errors import DataError, InputsError


def replaced(p, **changes):
    return msgspec.structs.replace(p, data=msgspec.structs.replace(p.data, **changes))


@pytest.fixture
def npz_params(tmp_path):
    """Params for a tiny npz of one's own."""
    path = tmp_path / "mine" / "samples.npz"
    path.parent.mkdir()
    inputs = np.random.default_rng(0).random((48, 4, 4, 3), np.float32)
    np.savez(path, inputs=inputs, labels=np.arange(48) % 3)
    return replaced(
        params.load(),
        source="npz",
        path=str(path),
        digest=files.digest_file(path),
        labels=("a", "b", "c"),
        num_calibration=4,
        preprocessing=(params.ChannelsFirst(),),
    )


def test_digits(tmp_path):
    prepare.run(tmp_path / "data", params.load())
    found = manifest.verify(tmp_path / "data")
    assert set(found.files) == {f"{name}.npz" for name in splits.NAMES}
    assert (found.model, found.stage, found.inputs) == ("digits", "prepare", ())
    assert found.labels == tuple("0123456789")
    assert [step["step"] for step in found.preprocessing] == [
        "scale",
        "resize",
        "add_channel",
        "channels_first",
    ]
    assert set(found.tools) == {"numpy", "scikit-learn"}
    train = splits.read(tmp_path / "data" / "train.npz")
    assert train.tensors().shape == (550, 1, 32, 32)


def test_npz_twice_in_two_places_gives_the_same_manifest(tmp_path, npz_params):
    prepare.run(tmp_path / "first", npz_params)
    elsewhere = tmp_path / "elsewhere.npz"
    elsewhere.write_bytes((tmp_path / "mine" / "samples.npz").read_bytes())
    prepare.run(tmp_path / "second", replaced(npz_params, path=str(elsewhere)))
    first, second = (tmp_path / name / "manifest.json" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path) not in first.read_text()
    found = manifest.verify(tmp_path / "first")
    assert found.inputs == (manifest.Input("data", npz_params.data.digest),)
    assert found.labels == ("a", "b", "c")
    assert splits.read(tmp_path / "first" / "test.npz").tensors().shape[1:] == (3, 4, 4)


def test_changed_data_is_refused_and_nothing_is_written(tmp_path, npz_params):
    (tmp_path / "mine" / "samples.npz").write_bytes(b"other")
    with pytest.raises(InputsError, match=r"data.digest pins"):
        prepare.run(tmp_path / "data", npz_params)
    assert not (tmp_path / "data").exists()


def test_preprocessing_that_does_not_fit_is_refused_here(tmp_path, npz_params):
    p = replaced(npz_params, preprocessing=(params.AddChannel(), params.ChannelsFirst()))
    with pytest.raises(DataError, match=r"\(channels_first\): needs height, width, channel"):
        prepare.run(tmp_path / "data", p)
    assert not (tmp_path / "data").exists()
