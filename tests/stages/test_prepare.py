"""Stage ``prepare``: four splits and a manifest, the same wherever and whenever it runs."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from pipeline import files, manifest, params
from pipeline.chain import prepare
from pipeline.data import splits
from pipeline.errors import DataError, InputsError

ROOT = Path(__file__).parents[2]
MFCC = params.Mfcc(
    sample_rate_hz=8000,
    num_coefficients=10,
    num_mel_bins=40,
    frame_length_ms=40,
    frame_shift_ms=20,
)


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


def test_spoken_digits_become_mfcc_of_unknown_speakers(tmp_path, monkeypatch, data_path):
    monkeypatch.chdir(tmp_path)
    path = data_path / "fsdd/fsdd_recordings.tar.gz"
    p = replaced(
        params.load(ROOT / "params.yaml"),
        source="fsdd",
        path=str(path),
        digest=files.digest_file(path),
        train_ratio=None,
        validation_ratio=None,
        test_speakers=("nicolas", "theo"),
        validation_speakers=("yweweler",),
        preprocessing=(MFCC, params.AddChannel(), params.ChannelsFirst()),
    )
    prepare.run(tmp_path / "data", p)
    found = manifest.verify(tmp_path / "data")
    assert set(found.tools) == {"numpy", "kaldi-native-fbank"}
    assert found.preprocessing[0]["step"] == "mfcc"
    test = splits.read(tmp_path / "data" / "test.npz")
    assert test.inputs.shape == (1000, 8000)
    assert test.inputs.dtype == np.int16
    assert test.tensors(slice(0, 3)).shape == (3, 1, 49, 10)
    assert not list((tmp_path / ".slipway/cache").iterdir())


def image_folder(path, num):
    """Small pictures, each of its own, that become 96x96 in prepare."""
    for name in ("a", "b"):
        (path / name).mkdir(parents=True)
        for number in range(num // 2):
            pixels = np.full((8, 8, 3), [number % 256, number // 256, ord(name)], np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


def folder_params(path):
    return replaced(
        params.load(ROOT / "params.yaml"),
        source="image_folder",
        path=str(path),
        digest=files.digest_folder(path),
        num_calibration=16,
        preprocessing=(
            params.Resize(height=96, width=96),
            params.Scale(factor=1 / 255),
            params.ChannelsFirst(),
        ),
    )


def test_an_image_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare.run(tmp_path / "data", folder_params(image_folder(tmp_path / "images", 60)))
    found = manifest.verify(tmp_path / "data")
    assert found.labels == ("a", "b")
    assert set(found.tools) == {"numpy", "pillow"}
    train = splits.read(tmp_path / "data" / "train.npz")
    assert train.inputs.shape[1:] == (96, 96, 3)
    assert train.tensors().shape[1:] == (3, 96, 96)


PREPARE = """\
import re, sys
from pathlib import Path
import msgspec
from pipeline import params
from pipeline.chain import prepare

content = Path(sys.argv[2]).read_bytes()
prepare.run(Path(sys.argv[1]), msgspec.json.decode(content, type=params.Params))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """Four times as many images: 66 MB more to prepare, of which next to nothing is in memory."""
    peaks = []
    for num in (800, 3200):
        project = tmp_path / str(num)
        p = folder_params(image_folder(project / "images", num))
        (project / "params.json").write_bytes(msgspec.json.encode(p))
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, "data", "params.json"],
            cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        peaks.append(int(done.stdout.split()[-1]) * 1024)
        num_bytes = sum(path.stat().st_size for path in (project / "data").glob("*.npz"))
        assert num_bytes > num * 96 * 96 * 3
    # of a sample its key, label and name stay: far less than its 27,648 bytes
    assert peaks[1] - peaks[0] < 2400 * 2000, peaks
