"""What `slipway run` takes beside a .npz: a wav, an image; read as the data source reads them."""

import numpy as np
import pytest

from pipeline import preprocessing, raw
from pipeline.device import run, samples
from pipeline.errors import DeviceError

MFCC = {
    "step": "mfcc",
    "sample_rate_hz": 8000,
    "num_coefficients": 4,
    "num_mel_bins": 20,
    "frame_length_ms": 40.0,
    "frame_shift_ms": 20.0,
}
LABELS = ("zero", "one", "two", "three")


@pytest.fixture
def listener(make_artifact):
    """Hears one second at 8 kHz: scores are the sums of the coefficients over time."""
    silence = np.zeros(8000, np.int16)
    return make_artifact({"x": (49, 4)}, silence, (MFCC,), LABELS, axis=2)


@pytest.fixture
def viewer(make_artifact):
    """Sees 6x8 colour images: scores are the sums of red, green and blue."""
    steps = (
        {"step": "resize", "height": 6, "width": 8},
        {"step": "scale", "factor": 1 / 255 / 48},
        {"step": "channels_first"},
    )
    black = np.zeros((6, 8, 3), np.uint8)
    return make_artifact({"x": (3, 6, 8)}, black, steps, ("red", "green", "blue"))


def test_a_wav_prints_the_classes_of_its_mfcc(listener, wav):
    said = (np.sin(np.arange(3000) / 5) * 9000).astype(np.int16)
    path = wav(said)
    (found,) = run.classify(listener, path)
    clip = raw.waveform(path.read_bytes(), 8000, 8000, "said")
    scores = preprocessing.apply([MFCC], clip[np.newaxis]).sum((0, 1))
    assert [label for label, _ in found] == [LABELS[i] for i in np.argsort(-scores)[:3]]


def test_an_image_prints_the_classes_of_its_pixels(viewer, image):
    seen = np.full((60, 80, 3), [20, 200, 90])
    (found,) = run.classify(viewer, image(seen, "seen.jpg"))
    assert [label for label, _ in found] == ["green", "blue", "red"]


def test_an_image_is_read_as_the_data_source_does(viewer, image):
    path = image(np.random.default_rng(0).integers(0, 256, (60, 80, 3)))
    steps = ({"step": "resize", "height": 6, "width": 8},)
    (found,) = samples.read(path, viewer, steps)
    assert np.array_equal(found, raw.pixels(path.read_bytes(), 3, (6, 8), "seen"))


def test_a_grey_image_goes_where_raw_samples_have_no_channel(make_artifact, image):
    artifact = make_artifact({"x": (6, 8)}, np.zeros((6, 8), np.uint8), ())
    grey = np.arange(48).reshape(6, 8)
    (found,) = samples.read(image(grey), artifact, ())
    assert np.array_equal(found, grey)


def test_several_inputs_come_by_name(make_artifact, tmp_path):
    artifact = make_artifact(
        {"left": (3,), "right": (3,)},
        np.zeros(1, [("left", np.float32, (3,)), ("right", np.float32, (3,))])[0],
        {"right": (), "left": ({"step": "scale", "factor": 2.0},)},
        ("a", "b", "c"),
    )
    arrays = {"inputs.right": np.array([[0, 3, 0]]), "inputs.left": np.array([[0, 1, 3]])}
    np.savez(tmp_path / "both.npz", **arrays)
    (found,) = run.classify(artifact, tmp_path / "both.npz")
    assert [label for label, _ in found] == ["c", "b", "a"]  # 6, 5, 0
    np.savez(tmp_path / "one.npz", **{"inputs.left": np.zeros((1, 3))})
    with pytest.raises(DeviceError, match=r"samples have inputs \['left'\].*steps for"):
        list(run.classify(artifact, tmp_path / "one.npz"))
    np.savez(tmp_path / "odd.npz", **{**arrays, "inputs.left": np.zeros((2, 3))})
    with pytest.raises(DeviceError, match=r"inputs have \{.*'inputs.left': 2.*give each input as"):
        list(run.classify(artifact, tmp_path / "odd.npz"))


def test_a_wav_for_several_inputs_is_refused(make_artifact, wav):
    one = np.zeros(1, [("left", np.float32, (3,)), ("right", np.float32, (3,))])[0]
    artifact = make_artifact({"left": (3,), "right": (3,)}, one, {"left": (), "right": ()})
    with pytest.raises(DeviceError, match=r"takes several inputs \(left, right\) without a step"):
        list(run.classify(artifact, wav([1, 2])))


def test_another_sample_rate_is_refused(listener, wav):
    with pytest.raises(DeviceError, match=r"said\.wav has a sample rate of 16000 Hz, 8000 Hz is"):
        list(run.classify(listener, wav([1, 2, 3], rate=16000)))


@pytest.mark.parametrize("content", [b"", b"\x00random\xff bytes" * 9], ids=["empty", "random"])
@pytest.mark.parametrize(
    ("name", "artifact"),
    [("said.wav", "listener"), ("seen.png", "viewer"), ("seen.jpg", "viewer")],
)
def test_random_bytes_are_one_line(request, tmp_path, name, artifact, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeviceError, match=rf"{name} is no readable (wav|image)") as caught:
        list(run.classify(request.getfixturevalue(artifact), tmp_path / name))
    assert "\n" not in str(caught.value)


def test_truncated_files_are_one_line(listener, wav):
    path = wav(range(3000))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DeviceError, match=r"said\.wav holds 478 of the 3000 samples"):
        list(run.classify(listener, path))


def test_a_truncated_jpeg_is_one_line(viewer, image):
    path = image(np.random.default_rng(0).integers(0, 256, (60, 80, 3)), "seen.jpg")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DeviceError, match=r"seen\.jpg is no readable image: .*truncated"):
        list(run.classify(viewer, path))


def test_other_channels_are_refused(make_artifact, image):
    steps = ({"step": "resize", "height": 6, "width": 8},)
    artifact = make_artifact({"x": (6, 8, 1)}, np.zeros((6, 8, 1), np.uint8), steps)
    with pytest.raises(DeviceError, match=r"seen\.png has colours, one grey channel is needed"):
        list(run.classify(artifact, image(np.eye(8)[:6, :, None] * [255, 0, 0])))


def test_another_size_without_a_resize_is_refused(make_artifact, image):
    artifact = make_artifact({"x": (6, 8, 3)}, np.zeros((6, 8, 3), np.uint8), ())
    with pytest.raises(DeviceError, match=r"seen\.png is 9x6, .* takes 8x6 and has no step resize"):
        list(run.classify(artifact, image(np.zeros((6, 9, 3)))))


UNLIKE = {
    "a wav where there is no sample rate": (
        np.zeros(8000, np.int16),
        "wav",
        r"takes int16 \[8000\] without a step mfcc; give a \.npz",
    ),
    "an image where floats are taken": (
        np.zeros((8, 8), np.float32),
        "image",
        r"an image is uint8 .* takes float32 \[8, 8\]; give a \.npz",
    ),
    "an image where the channel is first": (
        np.zeros((3, 8, 8), np.uint8),
        "image",
        r"takes uint8 \[3, 8, 8\]; give a \.npz",
    ),
}


@pytest.mark.parametrize(("sample", "kind", "message"), UNLIKE.values(), ids=UNLIKE)
def test_what_is_unlike_the_golden_samples_is_refused(
    make_artifact, wav, image, sample, kind, message
):
    artifact = make_artifact({"x": sample.shape}, sample, ())
    path = wav([1, 2]) if kind == "wav" else image(np.zeros((8, 8)))
    with pytest.raises(DeviceError, match=message):
        list(run.classify(artifact, path))


def test_without_golden_samples_a_npz_is_asked_for(viewer, image):
    path = image(np.zeros((6, 8, 3)))
    (viewer / "golden.npz").unlink()
    with pytest.raises(DeviceError, match=r"golden\.npz cannot be read \(FileNotFoundError\)"):
        list(run.classify(viewer, path))


def test_a_missing_wav_is_one_line(listener, tmp_path):
    with pytest.raises(DeviceError, match=r"none\.wav cannot be read: No such file"):
        list(run.classify(listener, tmp_path / "none.wav"))


def test_what_is_no_classifier_has_no_top_classes(make_artifact, tmp_path):
    artifact = make_artifact({"x": (5,)}, np.zeros(5, np.float32), (), ("normal", "anomaly"))
    np.savez(tmp_path / "a.npz", inputs=np.zeros((1, 5)))
    with pytest.raises(DeviceError, match="gives 5 values and has 2 labels; it is no classifier"):
        list(run.classify(artifact, tmp_path / "a.npz"))


def test_a_model_file_with_weights_beside_it_is_loaded_by_its_name(make_artifact, tmp_path):
    """OpenVINO's model.xml has a model.bin; here the .bin only lies there."""
    artifact = make_artifact({"x": (3,)}, np.zeros(3, np.float32), (), ("a", "b", "c"))
    from pipeline import manifest

    golden = (artifact / "golden.npz").read_bytes()
    measured = (artifact / "measurement.json").read_bytes()
    (artifact / "golden.npz").unlink()
    (artifact / "measurement.json").unlink()
    (artifact / "model.bin").write_bytes(b"weights")
    manifest.write(artifact, model="m", stage="convert", labels=("a", "b", "c"))
    (artifact / "golden.npz").write_bytes(golden)
    (artifact / "measurement.json").write_bytes(measured)
    np.savez(tmp_path / "a.npz", inputs=np.array([[0, 1, 2]]))
    ((found, *_),) = run.classify(artifact, tmp_path / "a.npz")
    assert found[0] == "c"
    (artifact / "model.bin").write_bytes(b"other")
    with pytest.raises(DeviceError, match=r"model\.bin is not what its manifest says"):
        list(run.classify(artifact, tmp_path / "a.npz"))
