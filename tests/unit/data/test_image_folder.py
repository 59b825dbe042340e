"""Images in folders and archives: classes, sizes, channels, and one line for a bad one."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline import files, params
from pipeline.data import source, splits
from pipeline.errors import DataError, InputsError

RESIZE = params.Resize(height=6, width=8)


def encoded(number, kind="png", size=(8, 6), mode="RGB"):
    """A picture of its own for each number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, {"jpg": "JPEG"}.get(kind, kind))
    return content.getvalue()


KINDS = ("png", "jpg", "bmp", "webp")
CLASSES = {
    f"{name}/{number}.{KINDS[number % 4]}": encoded(number + 100 * index, KINDS[number % 4])
    for index, name in enumerate(("cat", "dog"))
    for number in range(10)
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Write files (name -> content) below a folder and return it."""

    def write(members, root="images"):
        for name, content in members.items():
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / root

    return write


@pytest.fixture
def cfg(data_cfg):
    def of(found, /, **changes):
        pin = files.digest_folder if found.is_dir() else files.digest_file
        return data_cfg(**{
            "source": "image_folder", "path": str(found), "digest": pin(found), **changes
        })  # fmt: skip

    return of


def test_a_folder_is_a_class_and_a_raw_sample_is_uint8(folder, cfg):
    samples = source.read(cfg(folder({**CLASSES, "readme.txt": b"x", "cat/.DS_Store": b"x"})))
    assert samples.inputs.shape == (20, 6, 8, 3)
    assert samples.inputs.dtype == np.uint8
    assert samples.label_names == ("cat", "dog")
    assert np.bincount(samples.labels).tolist() == [10, 10]
    first = next(iter(samples.inputs))  # cat/0.png
    assert np.array_equal(first, np.asarray(Image.open(io.BytesIO(CLASSES["cat/0.png"]))))


def packed_zip(path, members, root=""):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(root + name, content)
    return path


def packed_tar(path, members, root=""):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(root + name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def written(tmp_path, settings, kind="classification"):
    made = splits.make(source.read(settings, kind), settings)
    paths = []
    for name, split in made.items():
        splits.write(tmp_path / f"{name}.npz", split)
        paths.append((tmp_path / f"{name}.npz").read_bytes())
    return paths


@pytest.mark.parametrize("root", ["", "animals/train/"])
def test_a_folder_and_its_archives_give_the_same_splits(folder, cfg, tmp_path, root):
    expected = written(tmp_path, cfg(folder(CLASSES)))
    for path in (
        packed_zip(tmp_path / "a.zip", CLASSES, root),
        packed_tar(tmp_path / "a.tgz", dict(reversed(CLASSES.items())), root),
    ):
        assert written(tmp_path, cfg(path)) == expected


def test_names_of_params_order_the_classes(folder, cfg):
    path = folder(CLASSES)
    samples = source.read(cfg(path, labels=("dog", "cat")))
    assert samples.label_names == ("dog", "cat")
    assert samples.labels[0] == 1  # a cat
    with pytest.raises(DataError, match=r"the folders cat, dog, data.labels has dog, horse"):
        source.read(cfg(path, labels=("dog", "horse")))


def test_images_of_many_sizes_are_brought_to_the_first_resize(folder, cfg):
    large = {"cat/large.png": encoded(7, size=(80, 60)), "dog/tall.jpg": encoded(8, "jpg", (3, 50))}
    path = folder({**CLASSES, **large})
    steps = (RESIZE, params.Scale(factor=0.5))
    samples = source.read(cfg(path, preprocessing=steps))
    assert samples.inputs.shape == (22, 6, 8, 3)
    with pytest.raises(DataError, match=r"cat/large\.png is 80x60x3, cat/0\.png is 8x6x3; add a"):
        source.read(cfg(path))


def test_grey_images_have_one_channel_if_asked(folder, cfg):
    members = {f"{c}/{n}.png": encoded(n, mode="L") for c in "ab" for n in range(8)}
    path = folder(members)
    assert source.read(cfg(path, channels=1)).inputs.shape == (16, 6, 8, 1)
    assert source.read(cfg(path)).inputs.shape == (16, 6, 8, 3)


def test_without_labels_the_folder_may_be_flat(folder, cfg):
    flat = {name.replace("/", "-"): content for name, content in CLASSES.items()}
    path = folder(flat)
    settings = cfg(path)
    samples = source.read(settings, "agreement")
    assert (samples.labels.tolist(), samples.label_names) == ([0] * 20, ())
    made = splits.make(samples, settings)
    assert made["train"].labels.tolist() == [0] * 10
    with pytest.raises(DataError, match=r"data.labels name classes \['a'\], task.kind agreement"):
        source.read(cfg(path, labels=("a",)), "agreement")
    with pytest.raises(DataError, match=r"lies in no class's folder.*task.kind agreement"):
        source.read(settings)


def test_anomalies_need_the_normal_folder_named_first(folder, cfg):
    path = folder(CLASSES)
    assert source.read(cfg(path, labels=("dog", "cat")), "anomaly").labels[0] == 1
    with pytest.raises(DataError, match=r"data.labels must name the folders .* normal samples"):
        source.read(cfg(path), "anomaly")
    with pytest.raises(DataError, match="has no values to regress"):
        source.read(cfg(path), "regression")


PNG = CLASSES["cat/0.png"]
JPG = encoded(5, "jpg", (64, 64))
BAD = {
    "a truncated jpeg": ({"cat/x.jpg": JPG[: len(JPG) // 2]}, r"cat/x\.jpg is no readable image: "),
    "random bytes": ({"cat/x.png": np.random.default_rng(0).bytes(999)}, r"cat/x\.png is no read"),
    "an empty file": ({"dog/x.webp": b""}, r"dog/x\.webp is no readable image: cannot identify"),
    "a picture beside the classes": ({"x.png": PNG}, r"x\.png lies in no class's folder"),
    "another size": (
        {"dog/x.png": encoded(9, size=(9, 6))},
        r"dog/x\.png is 9x6x3, cat/0\.png is 8x6x3; add a step resize",
    ),
}


@pytest.mark.parametrize("pack", ["folder", "zip", "tar"])
@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_a_bad_image_is_one_line_naming_it(folder, cfg, tmp_path, members, message, pack):
    every = {**CLASSES, **members}
    packs = {
        "folder": lambda: folder(every),
        "zip": lambda: packed_zip(tmp_path / "a.zip", every),
        "tar": lambda: packed_tar(tmp_path / "a.tar.gz", every),
    }
    path = packs[pack]()
    with pytest.raises(DataError, match=message) as caught:
        source.read(cfg(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_image_or_one_class_is_one_line(folder, cfg):
    with pytest.raises(DataError, match=r"holds no image \(\.bmp, \.jpeg.*name another folder"):
        source.read(cfg(folder({"cat/x.txt": b"x"}, "empty")))
    one = {name: content for name, content in CLASSES.items() if name.startswith("cat")}
    with pytest.raises(DataError, match="there is one class only, 'cat'"):
        source.read(cfg(folder(one, "one")))


def test_several_inputs_are_refused(folder, cfg):
    with pytest.raises(DataError, match="image_folder has one input"):
        source.read(cfg(folder(CLASSES), preprocessing={"a": (), "b": ()}))


def test_the_pin_of_a_folder_is_over_names_and_bytes(folder, cfg, tmp_path):
    path = folder(CLASSES)
    settings = cfg(path)
    (path / "cat/.DS_Store").write_bytes(b"a file manager was here")
    source.read(settings)
    path.rename(tmp_path / "moved")
    assert files.digest_folder(tmp_path / "moved") == settings.digest
    (tmp_path / "moved").rename(path)
    (path / "cat/0.png").rename(path / "cat/00.png")
    with pytest.raises(InputsError, match=r"data.path: .*images has sha256:.* pins"):
        source.read(settings)
    with pytest.raises(InputsError, match="there is no file or folder"):
        source.read(data_without(settings))


def data_without(settings):
    return params.Data(
        source="image_folder", path="nowhere", digest=settings.digest, seed=0, train_ratio=0.5,
        validation_ratio=0.2, num_calibration=1,
    )  # fmt: skip
