"""What every `Store` promises, held by one suite over all of them."""

import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.errors import RegistryError
from pipeline.registry.store import DirectoryStore


class MemoryStore:
    """The fake: two dictionaries."""

    def __init__(self):
        self.blobs = {}
        self.documents = {}

    def put_blob(self, source):
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        self.blobs[files.digest_bytes(content)] = content
        return files.digest_bytes(content)

    def get_blob(self, digest):
        if digest not in self.blobs:
            raise RegistryError(f"blob {digest[:19]}.. cannot be read")
        return io.BytesIO(self.blobs[digest])

    def publish_document(self, key, content):
        return self.documents.setdefault(key, content) is content

    def read_document(self, key):
        return self.documents.get(key)

    def keys(self, kind):
        return sorted(self.blobs if kind == "blobs" else self.documents)


@pytest.fixture(params=["directory", "memory"])
def store(request, tmp_path):
    return DirectoryStore(tmp_path / "registry") if request.param == "directory" else MemoryStore()


def content_of(store, digest):
    with store.get_blob(digest) as blob:
        return blob.read()


def test_a_new_store_is_empty(store):
    assert store.keys("blobs") == store.keys("releases") == []
    assert store.read_document("digits/1.0.0") is None


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(contents=st.lists(st.binary(max_size=200), max_size=4))
def test_blobs_come_back_byte_for_byte_under_their_digests(store, contents):
    digests = [store.put_blob(content) for content in contents]
    assert digests == [files.digest_bytes(content) for content in contents]
    assert [content_of(store, digest) for digest in digests] == contents
    assert set(digests) <= set(store.keys("blobs"))


def test_a_file_is_the_same_blob_as_its_bytes(store, tmp_path):
    content = b"x" * (files.CHUNK_BYTES + 1)
    (tmp_path / "file").write_bytes(content)
    assert store.put_blob(tmp_path / "file") == store.put_blob(content)
    assert store.keys("blobs") == [files.digest_bytes(content)]


def test_an_absent_blob_is_an_error(store):
    with pytest.raises(RegistryError, match=r"blob sha256:000000000000\.\. cannot be read"):
        store.get_blob("sha256:" + 64 * "0")


def test_a_document_is_written_once(store):
    assert store.publish_document("digits/1.0.0", b"first")
    assert not store.publish_document("digits/1.0.0", b"second")
    assert store.read_document("digits/1.0.0") == b"first"


def test_documents_are_listed_by_name_and_version(store):
    keys = ["digits/0.0.0+3f9a", "digits/1.0.0-rc.1", "faces/1.0.0"]
    for key in keys:
        store.publish_document(key, key.encode())
    assert store.keys("releases") == keys
