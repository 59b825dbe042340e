"""The user's npz: what is taken, and the one line for each thing that is wrong."""

import sys
import zipfile

import numpy as np
import pytest

from pipeline import files
from pipeline.data import digits, npz, source
from pipeline.errors import DataError, DependencyError, InputsError

INPUTS = np.arange(48, dtype=np.float64).reshape(16, 3)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


LABELS = np.arange(16) % 2
REFUSED = {
    "NaN": (
        {"inputs": changed(INPUTS, (5, 1), np.nan)},
        r"NaN or inf \(as float32\) in 1 samples, first in row 5",
    ),
    "inf": ({"inputs": changed(INPUTS, (0, 0), -np.inf)}, "first in row 0"),
    "beyond float32": ({"inputs": changed(INPUTS, (3, 0), 1e39)}, "first in row 3"),
    "negative label": (
        {"labels": changed(LABELS, 7, -1)},
        r"label -1 in row 7 is outside 0\.\.1",
    ),
    "label beyond the names": (
        {"labels": changed(LABELS, 4, 2), "label_names": np.array(["a", "b"])},
        r"label 2 in row 4 is outside 0\.\.1; mend the labels, or data.labels",
    ),
    "enormous label": ({"labels": changed(LABELS, 4, 2**60)}, r"in row 4 is outside 0\.\.15"),
    "float labels": ({"labels": LABELS * 1.0}, "labels have dtype float64; give integers"),
    "bool labels": ({"labels": LABELS > 0}, "labels have dtype bool; give integers"),
    "lengths that differ": (
        {"labels": LABELS[:-1]},
        r"labels have shape \(15,\) beside 16 inputs; give one label a sample",
    ),
    "one-hot labels": ({"labels": np.eye(2, dtype=int)[LABELS]}, r"labels have shape \(16, 2\)"),
    "complex inputs": ({"inputs": INPUTS * 1j}, "inputs have dtype complex128"),
    "text inputs": ({"inputs": INPUTS.astype(str)}, "inputs have dtype <U32"),
    "ragged inputs": (
        {"inputs": np.array([np.zeros(n) for n in range(1, 17)], dtype=object)},
        r"array of Python objects \(ragged shapes\?\)",
    ),
    "no samples": ({"inputs": INPUTS[:0], "labels": LABELS[:0]}, r"inputs have shape \(0, 3\)"),
    "samples without an axis": ({"inputs": INPUTS[:, 0]}, r"inputs have shape \(16,\)"),
    "few samples of a class": (
        {"labels": changed(LABELS, 0, 1)},
        "class '0' has 7 samples; give at least 8",
    ),
    "a class without samples": ({"labels": LABELS * 2}, "class '1' has 0 samples"),
    "one class": ({"labels": LABELS * 0}, "there is one class only, '0'"),
    "equal names": ({"label_names": np.array(["a", "a"])}, "are not distinct"),
    "names that are no strings": (
        {"label_names": np.array([1, 2])},
        "label_names have dtype int64",
    ),
    "no labels": (
        {"labels": None},
        r"has no array 'labels', only \['inputs'\]; write it by numpy.savez",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_one_line(npz_file, changes, message):
    path = npz_file(**changes)
    with pytest.raises(DataError, match=message) as caught:
        npz.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


UNREADABLE = {
    "text": (b"hello", "is not a readable .npz"),
    "nothing": (b"", "is not a readable .npz"),
    "half a file": (None, "is not a readable .npz"),
    "a pickle": (b"\x80\x04N.", "is not a readable .npz"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_refused(npz_file, content, message):
    path = npz_file()
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    with pytest.raises(DataError, match=message):
        npz.read(path)


def test_a_flipped_byte_is_refused(npz_file):
    path = npz_file()
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # inside the values: the zip's checksum tells
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not a readable .npz: Bad CRC"):
        npz.read(path)


def test_a_zip_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("inputs", "1,2,3")
    with pytest.raises(DataError, match="inputs is no numpy array; write the file with"):
        npz.read(tmp_path / "a.npz")


def test_a_bare_npy_is_refused(tmp_path):
    np.save(tmp_path / "inputs.npy", INPUTS)
    with pytest.raises(DataError, match=r"is one array \(.npy\)"):
        npz.read(tmp_path / "inputs.npy")


TAKEN = {
    "uint8 stays": (np.uint8, np.uint8),
    "float32 stays": (np.float32, np.float32),
    "float64 becomes float32": (np.float64, np.float32),
}


@pytest.mark.parametrize(("given", "kept"), TAKEN.values(), ids=TAKEN)
def test_valid_samples_are_taken(npz_file, given, kept):
    samples = npz.read(npz_file(inputs=INPUTS.astype(given), labels=LABELS.astype(np.uint8)))
    assert samples.inputs.dtype == kept
    assert np.array_equal(samples.inputs, INPUTS)
    assert samples.labels.dtype == np.int64
    assert samples.labels.tolist() == LABELS.tolist()
    assert samples.label_names == ("0", "1")


def test_names_of_params_go_before_those_of_the_file(npz_file):
    path = npz_file(label_names=np.array(["cat", "dog"]))
    assert npz.read(path).label_names == ("cat", "dog")
    assert npz.read(path, ("off", "on")).label_names == ("off", "on")


def test_pinned_digest(npz_file, data_cfg):
    path = npz_file()
    cfg = data_cfg(source="npz", path=str(path), digest=files.digest_file(path))
    assert len(source.read(cfg).labels) == 16
    other = data_cfg(source="npz", path=str(path), digest="sha256:" + "0" * 64)
    with pytest.raises(InputsError, match=r"data.path: .* data.digest pins .*inputs lock"):
        source.read(other)
    path.unlink()
    with pytest.raises(InputsError, match=r"data.path: there is no file"):
        source.read(cfg)


def test_digits_are_the_known_ones(data_cfg):
    samples = source.read(data_cfg())
    assert samples.inputs.shape == (1797, 8, 8)
    assert samples.inputs.dtype == np.float32
    assert (samples.inputs.min(), samples.inputs.max()) == (0, 16)
    assert np.bincount(samples.labels).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    assert samples.label_names == tuple("0123456789")


def test_digits_take_no_labels(data_cfg):
    with pytest.raises(DataError, match=r"data.labels go with data.source npz"):
        source.read(data_cfg(labels=("a", "b")))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DependencyError, match=r"scikit-learn is not installed.*slipway\[build\]"):
        digits.read()


def by_name(**arrays):
    """Changes of `npz_file` that give inputs by name: `inputs` itself is left out."""
    return {"inputs": None, **{f"inputs.{name}": array for name, array in arrays.items()}}


IMAGES = np.arange(64, dtype=np.uint8).reshape(16, 2, 2)


def test_several_inputs_are_fields_of_one_array(npz_file):
    found = npz.read(npz_file(**by_name(image=IMAGES, row=INPUTS))).inputs
    assert found.shape == (16,)
    assert found.dtype == np.dtype([("image", np.uint8, (2, 2)), ("row", np.float32, (3,))])
    np.testing.assert_array_equal(found["image"], IMAGES)


WRONG_INPUTS = {
    "other numbers of samples": (
        by_name(image=IMAGES, row=INPUTS[:-1]),
        r"inputs have \{'image': 16, 'row': 15\} samples; give each input as many",
    ),
    "NaN in one of them": (
        by_name(image=IMAGES, row=changed(INPUTS, (5, 1), np.nan)),
        r"inputs\.row have NaN or inf \(as float32\) in 1 samples, first in row 5",
    ),
    "one that has no values": (by_name(row=INPUTS[:, 0]), r"inputs\.row have shape \(16,\)"),
    "a plain one beside them": (
        {"inputs.row": INPUTS},
        r"has both inputs and inputs\.row; give one input as inputs, several as inputs\.NAME",
    ),
    "no name": (by_name(**{"": INPUTS}), r"'inputs\.' names no input; use printable ASCII"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_several_inputs_that_do_not_fit_are_refused(npz_file, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        npz.read(npz_file(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [INPUTS[:, 0], INPUTS, LABELS], ids=["one", "three", "integers"])
def test_values_to_regress_are_float32(npz_file, labels):
    found = npz.read(npz_file(labels=labels), kind="regression")
    assert found.labels.dtype == np.float32
    np.testing.assert_array_equal(found.labels, labels)
    assert found.label_names == ()


WRONG_VALUES = {
    "NaN": (changed(INPUTS, (7, 0), np.nan), r"labels have NaN or inf .* first in row 7"),
    "too few": (INPUTS[:5], r"labels have shape \(5, 3\) beside 16 inputs; give .* \[N, K\]"),
    "images": (INPUTS[:, :, None], r"labels have shape \(16, 3, 1\)"),
    "text": (INPUTS.astype(str), "labels have dtype <U32; give numbers"),
}


@pytest.mark.parametrize(("labels", "message"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_values_that_cannot_be_regressed_are_refused(npz_file, labels, message):
    with pytest.raises(DataError, match=message):
        npz.read(npz_file(labels=labels), kind="regression")


def test_samples_without_labels_are_taken_where_none_are_needed(npz_file):
    found = npz.read(npz_file(labels=None), kind="agreement")
    assert (found.labels.tolist(), found.label_names) == ([0] * 16, ())


def test_names_of_classes_are_refused_where_there_are_none(npz_file):
    with pytest.raises(DataError, match=r"data.labels name classes \['a'\], task.kind regression"):
        npz.read(npz_file(labels=INPUTS), ("a",), "regression")


def test_anomalies_have_names_of_their_own(npz_file):
    assert npz.read(npz_file(), kind="anomaly").label_names == ("normal", "anomaly")
    with pytest.raises(DataError, match=r"label 2 in row 4 is outside 0\.\.1"):
        npz.read(npz_file(labels=changed(LABELS, 4, 2)), kind="anomaly")
