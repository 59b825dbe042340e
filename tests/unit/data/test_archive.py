"""Archives from outside: what is read, and one line for each way to be broken or malicious."""

import gzip
import io
import struct
import tarfile
import zipfile

import pytest

from pipeline.data import archive
from pipeline.errors import DataError

SMALL = archive.Limits(max_member_bytes=1000, max_ratio=2, min_total_bytes=50_000)


def tar_of(path, members, mode="w:gz"):
    """Write a tar of ``(TarInfo or name, content)``."""
    with tarfile.open(path, mode) as file:
        for info, content in members:
            entry = tarfile.TarInfo(info) if isinstance(info, str) else info
            entry.size = entry.size or len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for info, content in members:
            file.writestr(info, content)
    return path


PLAIN = [
    ("data/a.wav", b"one"),
    ("./data/b.WAV", b"two"),
    ("data/notes.txt", b"x" * 2000),
    ("data/.hidden.wav", b"no"),
    ("__MACOSX/.x/c.wav", b"no"),
]
FORMATS = {
    "tar": ("a.tar", lambda path: tar_of(path, PLAIN, "w")),
    "tar.gz": ("a.tar.gz", lambda path: tar_of(path, PLAIN)),
    "tar.bz2": ("a.tar.bz2", lambda path: tar_of(path, PLAIN, "w:bz2")),
    "zip": ("a.zip", lambda path: zip_of(path, PLAIN)),
    "stored zip": ("a.zip", lambda path: zip_of(path, PLAIN, zipfile.ZIP_STORED)),
}


@pytest.mark.parametrize(("name", "make"), FORMATS.values(), ids=FORMATS)
def test_files_of_the_suffix_are_read_and_hidden_ones_are_not(tmp_path, name, make):
    path = make(tmp_path / name)
    assert archive.is_archive(path)
    found = list(archive.members(path, (".wav",), SMALL))
    assert [(member.name, member.content) for member in found] == [
        ("data/a.wav", b"one"),
        ("data/b.WAV", b"two"),
    ]


def test_nothing_is_written_to_disk(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", PLAIN)
    list(archive.members(path, (".wav",)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def entry(name, kind=tarfile.REGTYPE, linkname="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, linkname, size
    return info


def link_in_zip():
    info = zipfile.ZipInfo("a.wav")
    info.external_attr = 0o120777 << 16
    return info


BAD_TARS = {
    "a symlink out of the archive": (
        [(entry("a.wav", tarfile.SYMTYPE, "/etc/passwd"), b"")],
        r"a\.wav is a link to /etc/passwd; an archive of samples holds plain files only",
    ),
    "a hard link out of the archive": (
        [(entry("a.wav", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
        r"a\.wav is a link to \.\./\.\./etc/passwd",
    ),
    "a symlink of another suffix": (
        [(entry("notes", tarfile.SYMTYPE, "/etc/passwd"), b"")],
        "notes is a link to /etc/passwd",
    ),
    "a device": ([(entry("a.wav", tarfile.CHRTYPE), b"")], "a.wav is no plain file"),
    "an absolute name": ([("/etc/a.wav", b"x")], r"the name '/etc/a\.wav' leads out"),
    "a name with ..": ([("data/../../a.wav", b"x")], r"the name 'data/\.\./\.\./a\.wav' leads"),
    "a name of Windows": ([("C:\\a.wav", b"x")], r"the name 'C:.*a\.wav' leads out"),
    "a member that is too large": (
        [("a.wav", b"\0" * 1001)],
        r"a\.wav has 1,001 bytes unpacked, a sample may have 1,000",
    ),
    "the same name twice": ([("a.wav", b"1"), ("./a.wav", b"2")], r"a\.wav is there twice"),
}


@pytest.mark.parametrize(("members", "message"), BAD_TARS.values(), ids=BAD_TARS)
def test_a_bad_tar_is_one_line(tmp_path, members, message):
    path = tar_of(tmp_path / "a.tar.gz", members)
    with pytest.raises(DataError, match=message) as caught:
        list(archive.members(path, (".wav",), SMALL))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


BAD_ZIPS = {
    "a symlink": ([(link_in_zip(), "/etc/passwd")], "a.wav is a link or a device"),
    "an absolute name": ([("/etc/a.wav", b"x")], "leads out of the archive"),
    "a name with ..": ([("../a.wav", b"x")], "leads out of the archive"),
    "a member that is too large": ([("a.wav", b"\0" * 1001)], "has 1,001 bytes unpacked"),
    "many members that are too large together": (
        [(f"{number}.wav", b"\0" * 999) for number in range(60)],
        "unpacks to more than 2 times its size, as a zip bomb does",
    ),
}


@pytest.mark.parametrize(("members", "message"), BAD_ZIPS.values(), ids=BAD_ZIPS)
def test_a_bad_zip_is_one_line(tmp_path, members, message):
    path = zip_of(tmp_path / "a.zip", members)
    with pytest.raises(DataError, match=message) as caught:
        list(archive.members(path, (".wav",), SMALL))
    assert "\n" not in str(caught.value)


def test_a_zip_that_understates_a_member_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("a.wav", b"\0" * 100_000)])
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size in the central directory
    content[at : at + 4] = struct.pack("<I", 10)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no whole tar or zip archive"):
        list(archive.members(path, (".wav",), SMALL))


def test_a_gzip_bomb_stops_at_the_limit_whatever_lies_in_it(tmp_path):
    """1 GiB of zeros in 1 MB, as a member nobody asks for and behind the end of the tar."""
    path = tmp_path / "a.tar.gz"
    zeros = bytes(1 << 20)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry("big.bin", size=1 << 30).tobuf())
        for _ in range(1 << 10):
            file.write(zeros)
    assert path.stat().st_size < 1 << 23
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        list(archive.members(path, (".wav",)))


def test_a_tar_header_that_is_a_bomb_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(entry("name", tarfile.GNUTYPE_LONGNAME, size=1 << 40).tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(DataError, match=r"a header of 1,099,511,627,776 bytes is over 1,048,576"):
        list(archive.members(path, (".wav",)))


CUTS = {"the start": 0.02, "the middle": 0.5, "the last bytes": 0.999}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.zip", "a.tar"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_truncated_archive_is_one_line(tmp_path, name, cut):
    noise = bytes(range(256)) * 3
    members = [(f"{number}.wav", noise + bytes([number])) for number in range(200)]
    make = zip_of if name.endswith("zip") else tar_of
    modes = {"a.tar": "w", "a.tar.bz2": "w:bz2"}
    path = make(tmp_path / name, members, *([modes[name]] if name in modes else []))
    content = path.read_bytes()
    if name == "a.tar":
        content = content[: -(len(content) - 200 * 1536)]  # without its end
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DataError, match=r"is no whole tar or zip archive: .*; fetch or pack it"):
        list(archive.members(path, (".wav",)))


def test_a_tar_cut_between_two_members_is_no_smaller_archive(tmp_path):
    path = tar_of(tmp_path / "a.tar", [("a.wav", b"x" * 512), ("b.wav", b"y" * 512)], "w")
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(DataError, match="its end is missing"):
        list(archive.members(path, (".wav",)))


def test_a_flipped_byte_behind_the_last_member_is_found(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", PLAIN)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of gzip's checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no whole tar or zip archive: CRC"):
        list(archive.members(path, (".wav",)))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8bxx", b"PK\x03\x04xx"])
def test_what_is_no_archive_is_one_line(tmp_path, content):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no whole tar or zip archive"):
        list(archive.members(path, (".wav",)))


def test_a_missing_archive_is_one_line(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        list(archive.members(tmp_path / "none.tar", (".wav",)))
