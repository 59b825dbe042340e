"""The arrays of an uncompressed .npz, mapped and not read: memory does not grow with the file."""

import struct
import threading
import zipfile
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Literal

import numpy as np

CHUNK_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member; its name and extra field follow
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# numpy parses a header by `ast`, in which two threads at a time make CPython raise SystemError,
# until 3.11.8 and 3.12.2 (gh-106905).
_PARSING = threading.RLock()


@contextmanager
def loaded(file: Any) -> Iterator[Any]:
    """Open a .npz as `numpy.load` does, one thread at a time."""
    with _PARSING, np.load(file, allow_pickle=False) as found:
        yield found


def arrays(path: str) -> Dict[str, Any]:
    """Map every array of a .npz, read-only, after comparing each member with its checksum.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is missing, has other bytes than its
            checksums say, or holds something else than stored arrays of numbers and text.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:  # noqa: PTH123 - a str
        return {
            info.filename[: -len(".npy")]: _map(path, archive, info) for info in archive.infolist()
        }


def _map(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    if info.compress_type != zipfile.ZIP_STORED or not info.filename.endswith(".npy"):
        raise ValueError("%s is not a stored array" % info.filename)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError("%s has npy version %s" % (info.filename, version))
        with _PARSING:
            shape, fortran_order, dtype = _HEADERS[version](member)
        if dtype.hasobject:
            raise ValueError("%s holds Python objects" % info.filename)
        within = member.tell()
        while member.read(CHUNK_BYTES):  # to the end, where zipfile compares the checksum
            pass
    order: Literal["C", "F"] = "F" if fortran_order else "C"
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if within + num_bytes != info.file_size:
        raise ValueError("%s is longer or shorter than its header says" % info.filename)
    if not num_bytes:
        return np.empty(shape, dtype, order)
    with open(path, "rb") as file:  # noqa: PTH123 - a str
        file.seek(info.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + within
    mapped = np.memmap(path, dtype, "r", offset, shape, order)
    return np.asarray(mapped)
