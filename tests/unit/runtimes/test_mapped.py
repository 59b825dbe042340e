"""Mapped arrays: the same as read ones, held to their checksums, without their memory."""

import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.runtimes import mapped

ARRAYS = {
    "numbers": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "text": np.array(["one", "zwölf"]),
    "scalar": np.array("a word"),
    "empty": np.zeros((0, 5), np.uint8),
    "several": np.array([(1, [2, 3])], dtype=[("a", np.int8), ("b", np.float32, (2,))]),
}


def test_mapped_arrays_equal_read_ones(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, allow_pickle=False, **ARRAYS)
    found = mapped.arrays(str(path))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert (found[name] == array).all()
    with pytest.raises(ValueError, match="read-only"):
        found["numbers"][0] = 1


def test_a_large_array_takes_no_memory_until_it_is_used(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, inputs=np.zeros((1 << 10, 1 << 14), np.uint8))  # 16 MiB
    tracemalloc.start()
    try:
        inputs = mapped.arrays(str(path))["inputs"]
        assert inputs[5].sum() == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_a_flipped_byte_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, inputs=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        mapped.arrays(str(path))


def header_of_more(path):
    with zipfile.ZipFile(path, "w") as file:
        array = b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9,)}"
        file.writestr("inputs.npy", array.ljust(127) + b"\n" + bytes(8))


def compressed(path):
    np.savez_compressed(path, inputs=np.zeros(9))


def objects(path):
    np.savez(path, inputs=np.array([{}, []], dtype=object))


def other(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("inputs.txt", "1 2 3")


REFUSED = {
    "fewer values than the header says": (header_of_more, "is longer or shorter than its header"),
    "compressed": (compressed, "inputs.npy is not a stored array"),
    "Python objects": (objects, "inputs.npy holds Python objects"),
    "no array": (other, "inputs.txt is not a stored array"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_mapped_is_refused(tmp_path, write, message):
    write(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=message):
        mapped.arrays(str(tmp_path / "a.npz"))


def test_headers_are_parsed_one_thread_at_a_time(tmp_path, monkeypatch):
    """Two at a time are a SystemError of CPython now and then (gh-106905)."""
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    inside, together = [], []

    def noted(parse):
        def parse_slowly(*args, **kwargs):
            inside.append(1)
            together.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            return parse(*args, **kwargs)

        return parse_slowly

    monkeypatch.setitem(mapped._HEADERS, (1, 0), noted(mapped._HEADERS[1, 0]))
    monkeypatch.setattr(np, "load", noted(np.load))

    def read(_):
        with mapped.loaded(path) as found:
            return len(found["numbers"]) + len(mapped.arrays(str(path))["numbers"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(8))) == [4] * 8
    assert set(together) == {1}
