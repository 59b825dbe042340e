"""Spoken digits: read straight from the archive, split by speaker, one line for what is wrong."""

import io
import itertools
import tarfile
import wave

import numpy as np
import pytest

from pipeline import files, params
from pipeline.data import fsdd, source, splits
from pipeline.errors import DataError

SPEAKERS = ("ann", "bob", "cy", "dee")


def wav(samples, rate=8000):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, np.int16).tobytes())
    return content.getvalue()


def recordings(speakers=SPEAKERS, num=2):
    """A distinct short wav for each digit, speaker and index."""
    names = itertools.product(range(10), speakers, range(num))
    return {
        f"fsdd/{digit}_{speaker}_{index}.wav": wav(np.arange(1, 400 + number))
        for number, (digit, speaker, index) in enumerate(names)
    }


@pytest.fixture
def make(tmp_path):
    """Write an archive of members (name -> content) and return its path."""

    def write(members):
        path = tmp_path / "fsdd.tar.gz"
        with tarfile.open(path, "w:gz") as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def cfg(data_cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where .slipway/cache is

    def of(archive, /, **changes):
        usual = {
            "source": "fsdd",
            "path": str(archive),
            "digest": files.digest_file(archive),
            "train_ratio": None,
            "validation_ratio": None,
            "test_speakers": ("ann",),
            "validation_speakers": ("bob",),
        }
        return data_cfg(**{**usual, **changes})

    return of


def test_a_raw_sample_is_one_second_of_int16(make, cfg):
    samples = source.read(cfg(make({**recordings(), "fsdd/README.md": b"words"})))
    assert samples.inputs.shape == (80, 8000)
    assert samples.inputs.dtype == np.int16
    assert samples.label_names == tuple("0123456789")
    first = next(iter(samples.inputs))  # 399 samples between zeros
    assert np.flatnonzero(first).tolist() == list(range(3800, 4199))
    assert (samples.labels[0], samples.groups[0]) == (0, "ann")


def test_whole_speakers_are_held_out(make, cfg):
    settings = cfg(make(recordings()), num_calibration=7)
    samples = source.read(settings)
    made = splits.make(samples, settings)
    sizes = {name: len(split.labels) for name, split in made.items()}
    assert sizes == {"train": 40, "validation": 20, "test": 20, "calibration": 7}
    of = {row.tobytes(): who for row, who in zip(samples.inputs, samples.groups, strict=True)}
    heard = {name: {of[row.tobytes()] for row in split.inputs} for name, split in made.items()}
    assert heard["test"] == {"ann"}
    assert heard["validation"] == {"bob"}
    assert heard["train"] == {"cy", "dee"}
    assert np.array_equal(made["calibration"].inputs.load(), made["train"].inputs.load()[:7])


def test_the_archives_order_does_not_matter(make, cfg, tmp_path):
    members = recordings()
    settings = cfg(make(members))
    first = splits.make(source.read(settings), settings)
    settings = cfg(make(dict(reversed(members.items()))))
    second = splits.make(source.read(settings), settings)
    for name in splits.NAMES:
        splits.write(tmp_path / "a.npz", first[name])
        splits.write(tmp_path / "b.npz", second[name])
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_recording_under_two_speakers_is_in_one_split_only(make, cfg):
    members = recordings()
    members["fsdd/3_ann_0.wav"] = members["fsdd/3_cy_0.wav"] = members["fsdd/3_bob_0.wav"]
    settings = cfg(make(members))
    made = splits.make(source.read(settings), settings)
    where = {name: {row.tobytes() for row in made[name].inputs} for name in ("train", "validation")}
    where["test"] = {row.tobytes() for row in made["test"].inputs}
    assert not where["train"] & where["test"]
    assert not where["validation"] & where["test"]
    assert len(made["test"].labels) == 22  # all three of them


def test_an_unknown_speaker_lists_the_known(make, cfg):
    settings = cfg(make(recordings()), validation_speakers=("bob", "zoe"))
    with pytest.raises(
        DataError,
        match=r"data.validation_speakers: there is no speaker 'zoe'; known: ann, bob, cy, dee",
    ):
        splits.make(source.read(settings), settings)


def test_no_speaker_left_to_train_is_one_line(make, cfg):
    settings = cfg(make(recordings()), validation_speakers=("bob", "cy", "dee"))
    with pytest.raises(DataError, match="split train has no sample of class '0'"):
        splits.make(source.read(settings), settings)


GOOD = wav(range(400))
BAD = {
    "a truncated wav": (
        {"0_ann_0.wav": GOOD[:300]},
        r"fsdd\.tar\.gz: 0_ann_0\.wav holds 128 of the 400 samples that its header says",
    ),
    "random bytes": (
        {"0_ann_0.wav": np.random.default_rng(0).bytes(900)},
        r"0_ann_0\.wav is no readable wav",
    ),
    "another sample rate": (
        {"0_ann_0.wav": wav(range(400), 16000)},
        r"has a sample rate of 16000 Hz, 8000 Hz is needed",
    ),
    "another name": ({"zero-ann.wav": GOOD}, r"zero-ann\.wav is not called DIGIT_SPEAKER_INDEX"),
    "no wav": ({"a.txt": b"x"}, r"fsdd\.tar\.gz holds no wav"),
}


@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_a_bad_recording_is_one_line(make, tmp_path, members, message):
    with pytest.raises(DataError, match=message) as caught:
        fsdd.read(make(members), tmp_path / "cache")
    assert "\n" not in str(caught.value)


WRONG_SETTINGS = {
    "labels": ({"labels": ("a",)}, "fsdd has its own, leave them out"),
    "several inputs": ({"preprocessing": {"a": ()}}, "fsdd has one input"),
    "another rate": (
        {
            "preprocessing": (
                params.Mfcc(
                    sample_rate_hz=16000,
                    num_coefficients=10,
                    num_mel_bins=40,
                    frame_length_ms=40,
                    frame_shift_ms=20,
                ),
            )
        },
        "mfcc has sample_rate_hz 16000, fsdd is recorded at 8000",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_settings_that_do_not_fit_are_one_line(make, cfg, changes, message):
    with pytest.raises(DataError, match=message):
        source.read(cfg(make(recordings()), **changes))


def test_another_kind_of_task_is_refused(make, cfg):
    with pytest.raises(DataError, match=r"fsdd is for task.kind classification, got regression"):
        source.read(cfg(make(recordings())), "regression")


def test_it_comes_by_url_too(make, cfg, tmp_path):
    path = make(recordings())
    settings = cfg(path, path=None, url=path.as_uri())
    assert len(source.read(settings).labels) == 80
    assert list((tmp_path / ".slipway/cache").glob("*.tar.gz"))


def test_the_shared_recordings_split_as_documented(data_path, cfg):
    path = data_path / "fsdd/fsdd_recordings.tar.gz"
    settings = cfg(
        path,
        test_speakers=("nicolas", "theo"),
        validation_speakers=("yweweler",),
        num_calibration=200,
    )
    samples = source.read(settings)
    made = splits.make(samples, settings)
    sizes = {name: len(split.labels) for name, split in made.items()}
    assert sizes == {"train": 1500, "validation": 500, "test": 1000, "calibration": 200}
    assert np.bincount(made["test"].labels).tolist() == [100] * 10
    assert sorted(set(samples.groups)) == [
        "george",
        "jackson",
        "lucas",
        "nicolas",
        "theo",
        "yweweler",
    ]
