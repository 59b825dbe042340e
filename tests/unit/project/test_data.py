"""What `slipway init` makes of data that it is given: source, steps, labels, or one line."""

import io
import tarfile
import zipfile

import msgspec
import numpy as np
import pytest

from pipeline import params, preprocessing
from pipeline.data import npz, source
from pipeline.errors import PipelineError
from pipeline.manifest import Signature, Tensor
from pipeline.project import data

SCALE = {"step": "scale", "factor": 1 / 255}
FIRST = {"step": "channels_first"}
ADD = {"step": "add_channel"}


def signature(*shapes):
    """Inputs x0, x1 ... of these shapes."""
    inputs = (Tensor(f"x{n}", "float32", shape) for n, shape in enumerate(shapes))
    return Signature(inputs=tuple(inputs), outputs=())


def resize(height, width):
    return {"step": "resize", "height": height, "width": width}


@pytest.fixture
def write(tmp_path):
    """Write a .npz of the arrays and give its path."""

    def make(**arrays):
        np.savez(tmp_path / "given.npz", **arrays)
        return tmp_path / "given.npz"

    return make


def samples(*shape, num=200):
    return np.zeros((num, *shape), np.uint8)


# name: shape of the samples, shape that the net takes, the steps between
STEPS = {
    "as the net takes them, channel first": ((3, 8, 6), ("batch", 3, 8, 6), []),
    "as the net takes them, channel last": ((8, 6, 3), ("batch", 8, 6, 3), []),
    "images for a net of torch": ((8, 6, 3), ("batch", 3, 8, 6), [FIRST]),
    "grey images for a net of torch": ((8, 6), ("batch", 1, 8, 6), [ADD, FIRST]),
    "grey images for a net of TensorFlow": ((8, 6), (1, 8, 6, 1), [ADD]),
    "vectors": ((7,), ("batch", 7), []),
    "axes with a name take any length": ((3, 8, 6), ("batch", 3, "height", "width"), []),
    "images for axes with a name": ((8, 6, 3), ("batch", 3, "height", "width"), [FIRST]),
    "axes that say nothing take any length": ((3, 8, 6), (0, 3, 0, 0), []),
}


@pytest.mark.parametrize(("raw", "shape", "steps"), STEPS.values(), ids=STEPS)
def test_steps_lay_the_samples_out_as_the_net_takes_them(write, tmp_path, raw, shape, steps):
    found = data.of_onnx(signature(shape), write(inputs=samples(*raw)), tmp_path)
    assert found.section["preprocessing"] == steps
    laid = preprocessing.apply(steps, samples(*raw, num=2)).shape[1:]
    assert all(not want or isinstance(want, str) or want == have
               for want, have in zip(shape[1:], laid, strict=True))  # fmt: skip


def test_labels_are_seen_and_samples_are_counted(write, tmp_path):
    labelled = data.of_training(write(inputs=samples(4), labels=np.zeros(200)), tmp_path)
    assert labelled.is_labelled
    assert labelled.line == "given.npz: 200 samples, with labels"
    bare = data.of_training(write(inputs=samples(4, num=7)), tmp_path)
    assert not bare.is_labelled
    assert bare.line == "given.npz: 7 samples, without labels"


@pytest.mark.parametrize(("num", "calibration"), [(7, 1), (100, 27), (5000, 128)])
def test_few_samples_calibrate_with_fewer(write, tmp_path, num, calibration):
    found = data.of_training(write(inputs=samples(4, num=num)), tmp_path)
    assert found.num_calibration == calibration
    assert calibration < found.section["train_ratio"] * num


def test_the_section_is_one_that_params_takes(write, tmp_path):
    found = data.of_onnx(signature(("batch", 3, 8, 8)), write(inputs=samples(8, 8, 3)), tmp_path)
    cfg = msgspec.convert(found.section, params.Data)
    assert (cfg.source, cfg.path, cfg.seed) == ("npz", "given.npz", 0)
    assert cfg.preprocessing == (params.ChannelsFirst(),)


def test_the_path_is_as_seen_from_the_project(write, tmp_path):
    (tmp_path / "projects/mine").mkdir(parents=True)
    found = data.of_training(write(inputs=samples(4)), tmp_path / "projects/mine")
    assert found.section["path"] == "../../given.npz"


def test_each_of_several_inputs_gets_steps(write, tmp_path):
    path = write(**{"inputs.x0": samples(3), "inputs.x1": samples(2, 2), "labels": np.zeros(200)})
    found = data.of_onnx(signature(("batch", 3), ("batch", 2, 2)), path, tmp_path)
    assert found.section["preprocessing"] == {"x0": [], "x1": []}
    assert found.is_labelled
    assert found.line == "given.npz: 200 samples, with labels"


def test_without_data_a_project_that_trains_has_digits():
    found = data.of_training(None, None)
    cfg = msgspec.convert(found.section, params.Data)
    assert (cfg.source, cfg.path, cfg.num_calibration) == ("digits", None, 128)
    raw = source.read(cfg).inputs[:2]
    assert preprocessing.apply(found.section["preprocessing"], raw).shape == (2, 1, 32, 32)


def test_without_data_an_onnx_file_gets_random_inputs_and_is_told(tmp_path):
    found = data.of_onnx(signature(("batch", 3, 4, 4)), None, tmp_path)
    assert not found.is_labelled
    assert found.section["path"] == "random-inputs.npz"
    assert "no data given: 640 random inputs in random-inputs.npz; speed and size are" in found.line
    first = (tmp_path / "random-inputs.npz").read_bytes()
    made = npz.read(tmp_path / "random-inputs.npz", kind="agreement").inputs
    assert (made.shape, made.dtype) == ((640, 3, 4, 4), np.float32)
    assert 0 <= made.min() < 0.1
    assert 0.9 < made.max() < 1
    data.of_onnx(signature(("batch", 3, 4, 4)), None, tmp_path)
    assert (tmp_path / "random-inputs.npz").read_bytes() == first


def test_random_inputs_of_several_have_each_name(tmp_path):
    found = data.of_onnx(signature((1, 3), (1, 2, 2)), None, tmp_path)
    assert found.section["preprocessing"] == {"x0": [], "x1": []}
    made = npz.read(tmp_path / "random-inputs.npz", kind="agreement").inputs
    assert (made["x0"].shape, made["x1"].shape) == ((640, 3), (640, 2, 2))


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes, three images."""
    for name in ("cat/a.png", "cat/b.png", "dog/a.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(b"")
    return tmp_path / "pets"


# name: shape that the net takes, steps, data.channels
IMAGES = {
    "channel first": (("batch", 3, 8, 6), [resize(8, 6), SCALE, FIRST], None),
    "channel last": ((1, 8, 6, 3), [resize(8, 6), SCALE], None),
    "grey, channel first": (("batch", 1, 8, 6), [resize(8, 6), SCALE, FIRST], 1),
    "grey, channel last": (("batch", 8, 6, 1), [resize(8, 6), SCALE], 1),
}


@pytest.mark.parametrize(("shape", "steps", "channels"), IMAGES.values(), ids=IMAGES)
def test_images_are_resized_to_what_the_net_takes(folder, tmp_path, shape, steps, channels):
    found = data.of_onnx(signature(shape), folder, tmp_path)
    assert found.section["source"] == "image_folder"
    assert found.section["preprocessing"] == steps
    assert found.section.get("channels") == channels
    raw = np.zeros((2, 9, 9, channels or 3), np.uint8)
    assert preprocessing.apply(steps, raw).shape[1:] == shape[1:]


def test_folders_are_classes(folder, tmp_path):
    found = data.of_training(folder, tmp_path)
    assert found.is_labelled
    assert found.line == "pets/: 2 classes, 3 images"
    assert found.section["preprocessing"] == [resize(32, 32), SCALE, FIRST]


def test_images_without_folders_have_no_labels(folder, tmp_path):
    found = data.of_onnx(signature(("batch", 3, 8, 8)), folder / "cat", tmp_path)
    assert not found.is_labelled
    assert found.line == "cat/: no classes, 2 images"


def tar(path, names):
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"byte"))
    return path


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"byte")
    return path


@pytest.mark.parametrize(("make", "name"), [(tar, "given.tar.gz"), (zipped, "given.zip")])
def test_an_archive_is_what_lies_in_it(tmp_path, make, name):
    images = data.of_training(make(tmp_path / name, ["a/1.png", "b/1.png"]), tmp_path)
    assert (images.section["source"], images.is_labelled) == ("image_folder", True)
    spoken = data.of_training(make(tmp_path / name, ["r/0_ann_0.wav", "r/1_ann_0.wav"]), tmp_path)
    assert spoken.section["source"] == "fsdd"
    assert spoken.section["test_speakers"] == ["nicolas", "theo"]
    assert not set(spoken.section["validation_speakers"]) & {"nicolas", "theo"}
    assert "train_ratio" not in spoken.section


IMAGE, TWO = ("batch", 3, 8, 8), [("batch", 2), ("batch", 3)]
# name: what lies there, shapes that the net takes, what is said
REFUSED = {
    "nothing there": (lambda f: f / "none.npz", [IMAGE], r"none\.npz is missing; name a .npz, a"),
    "another file": (
        lambda f: text(f / "a.txt"), [IMAGE], r"a\.txt is no .npz, folder or archive of images",
    ),
    "a .npz that is none": (
        lambda f: text(f / "a.npz"), [IMAGE], r"a\.npz is not a readable .npz: it has another",
    ),
    "an archive that is none": (
        lambda f: text(f / "a.tar.gz"), [IMAGE], r"a\.tar\.gz is no whole tar or zip archive",
    ),
    "an archive cut short": (
        lambda f: cut(tar(f / "a.tar.gz", ["1.png"])), [IMAGE], "is no whole tar or zip archive",
    ),
    "no inputs": (
        lambda f: saved(f, x=np.zeros(3)), [IMAGE], r"has no array `inputs`, only \['x'\]",
    ),
    "objects": (
        lambda f: saved(f, inputs=np.array([{}], object)), [IMAGE], "holds an array of Python obj",
    ),
    "other samples": (
        lambda f: saved(f, inputs=np.zeros((5, 9, 9))), [IMAGE],
        r"a\.npz has samples of shape \[9, 9\], the net takes \[3, 8, 8\]; give samples of that",
    ),
    "one number": (
        lambda f: saved(f, inputs=np.zeros(())), [IMAGE], r"has samples of shape \[\], the net",
    ),
    "recordings for an ONNX file": (
        lambda f: tar(f / "a.tar.gz", ["0_ann_0.wav"]), [IMAGE], "goes with a net of your own; giv",
    ),
    "images for vectors": (
        lambda f: f, [("batch", 7)], r"images do not fit input x0 of shape \[7\]; give a .npz of",
    ),
    "images for axes with a name": (
        lambda f: f, [("batch", 3, "h", "w")], r"free axes \['batch', 3, 'h', 'w'\] .* a .npz",
    ),
    "images for several inputs": (
        lambda f: f, TWO, r"a net of several inputs takes a .npz with inputs\.x0, inputs\.x1",
    ),
    "one of several inputs": (
        lambda f: saved(f, **{"inputs.x0": np.zeros((5, 2))}), TWO,
        r"has inputs\.x0, the net takes inputs\.x0, inputs\.x1; give each input its array",
    ),
    "no data for axes with a name": (
        lambda _: None, [("batch", 3, "h", "w")], "free axes .* give --data with a .npz, whose",
    ),
    "no data for axes that say nothing": (lambda _: None, [(0, 3, 0, 0)], "has free axes"),
    "no data for large inputs": (
        lambda _: None, [("batch", 3, 9000, 9000)], "random inputs would take 622080 MB; give",
    ),
}  # fmt: skip


def text(path):
    path.write_bytes(b"hello" * 100)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])
    return path


def saved(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize(("make", "shapes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_one_line(tmp_path, make, shapes, message):
    with pytest.raises(PipelineError, match=message) as caught:
        data.of_onnx(signature(*shapes), make(tmp_path), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "random-inputs.npz").exists()


@pytest.mark.parametrize(
    "name",
    ["nothing there", "another file", "a .npz that is none", "an archive cut short", "no inputs"],
)
def test_a_net_of_your_own_refuses_the_same_files(tmp_path, name):
    make, _, message = REFUSED[name]
    with pytest.raises(PipelineError, match=message):
        data.of_training(make(tmp_path), tmp_path)
