import pytest

from pipeline import files
from pipeline.errors import RegistryError

HOSTILE_KEYS = {
    "no version": "digits",
    "parent": "../1.0.0",
    "version that climbs": "digits/../../1.0.0",
    "absolute": "/digits/1.0.0",
    "upper case": "Digits/1.0.0",
    "not a version": "digits/latest",
    "zero byte": "digits/1.0.0\0",
}


def test_layout_is_the_documented_one(directory_store):
    digest = directory_store.put_blob(b"bytes")
    directory_store.publish_document("digits/1.0.0", b"{}")
    name = digest.removeprefix("sha256:")
    assert files.list_files(directory_store.root) == [
        f"blobs/sha256/{name[:2]}/{name}",
        "releases/digits/1.0.0.json",
    ]


def test_what_is_published_is_readable_by_all_and_writable_by_none(directory_store):
    directory_store.put_blob(b"bytes")
    directory_store.publish_document("digits/1.0.0", b"{}")
    for name in files.list_files(directory_store.root):
        assert (directory_store.root / name).stat().st_mode & 0o777 == 0o444


def test_a_damaged_blob_is_mended_by_the_next_put(directory_store):
    digest = directory_store.put_blob(b"bytes")
    path = next(directory_store.root.glob("blobs/sha256/*/*"))
    path.unlink()
    path.write_bytes(b"tampered")
    directory_store.put_blob(b"bytes")
    assert files.digest_file(path) == digest


def test_a_known_blob_is_not_written_again(directory_store):
    directory_store.put_blob(b"bytes")
    path = next(directory_store.root.glob("blobs/sha256/*/*"))
    before = path.stat().st_ino
    directory_store.put_blob(b"bytes")
    assert path.stat().st_ino == before


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_a_key_that_leaves_the_directory_is_refused(directory_store, key):
    with pytest.raises(RegistryError, match="named by a lower-case name and a semantic version"):
        directory_store.publish_document(key, b"{}")
    with pytest.raises(RegistryError, match="named by a lower-case name and a semantic version"):
        directory_store.read_document(key)
    assert files.list_files(directory_store.root.parent) == []


@pytest.mark.parametrize("digest", ["sha256:../../x", "md5:00", "sha256:" + 63 * "0", ""])
def test_a_digest_that_is_none_is_refused(directory_store, digest):
    with pytest.raises(RegistryError, match="a digest must be sha256 and 64 hex digits"):
        directory_store.get_blob(digest)


def test_foreign_files_are_passed_over(directory_store):
    directory_store.publish_document("digits/1.0.0", b"{}")
    for name in ("releases/digits/notes.json", "releases/README", "blobs/sha256/ab/short"):
        path = directory_store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    assert directory_store.keys("releases") == ["digits/1.0.0"]
    assert directory_store.keys("blobs") == []


def test_a_place_that_cannot_be_written_is_one_line(directory_store):
    directory_store.root.write_text("a file, not a directory", encoding="utf-8")
    with pytest.raises(RegistryError, match=r"registry .*registry cannot be written: .*hard links"):
        directory_store.put_blob(b"bytes")


def test_a_document_that_cannot_be_read_is_one_line(directory_store):
    (directory_store.root / "releases/digits/1.0.0.json").mkdir(parents=True)
    with pytest.raises(RegistryError, match=r"1\.0\.0\.json cannot be read: Is a directory"):
        directory_store.read_document("digits/1.0.0")


def test_a_failed_put_leaves_no_temporary_file(directory_store, tmp_path):
    with pytest.raises(RegistryError, match="cannot be written"):
        directory_store.put_blob(tmp_path / "absent")
    assert files.list_files(directory_store.root) == []
