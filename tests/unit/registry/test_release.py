import msgspec
import pytest

from pipeline import files
from pipeline.errors import ManifestError, RegistryError
from pipeline.manifest import File
from pipeline.registry import release
from pipeline.registry.publish import publish

HOSTILE_NAMES = {
    "absolute": "/etc/passwd",
    "parent": "../escaped",
    "parent inside": "artifact/../../escaped",
    "backslash": "artifact\\..\\x",
    "doubled slash": "artifact//x",
    "dot": ".",
    "here": "./x",
    "empty": "",
    "trailing slash": "artifact/x/",
    "zero byte": "artifact/x\0y",
    "line break": "artifact/x\ny",
}


@pytest.fixture
def published(tiny_project, directory_store):
    return publish(tiny_project.root, directory_store, None, tiny_project.releases)


def altered(published, **changes):
    """The document with other fields in the part for x86, and a digest that fits again."""
    part = msgspec.structs.replace(published.targets["x86"], **changes)
    targets = published.targets | {"x86": part}
    made = msgspec.structs.replace(published, targets=targets, digest=release.digest_of(targets))
    return files.encode_json(made)


def decode(content, published):
    return release.decode(content, published.name, published.version)


def test_a_document_comes_back_as_it_was(published):
    assert decode(files.encode_json(published), published) == published


def test_unknown_keys_are_ignored(published):
    document = msgspec.to_builtins(published) | {"later": 1}
    assert decode(files.encode_json(document), published) == published


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_name_that_leaves_the_directory_is_refused(published, name):
    names = published.targets["x86"].files | {name: File(digest=published.digest, size_bytes=1)}
    with pytest.raises(RegistryError, match="which leaves the directory; do not use it"):
        decode(altered(published, files=names), published)


def test_a_file_that_is_also_a_directory_is_refused(published):
    names = published.targets["x86"].files
    names = names | {"golden.npz/x": File(digest=published.digest, size_bytes=1)}
    with pytest.raises(RegistryError, match=r"has 'golden\.npz' as a file and as a directory"):
        decode(altered(published, files=names), published)


def test_an_artifact_cannot_hold_what_a_pull_puts_beside_it(published):
    names = published.targets["x86"].files
    names = names | {"artifact/golden.npz": File(digest=published.digest, size_bytes=1)}
    with pytest.raises(RegistryError, match=r"must not hold golden\.npz: a pull puts its own"):
        decode(altered(published, files=names), published)


def test_a_digest_that_is_none_is_refused(published):
    names = published.targets["x86"].files
    names = names | {"artifact/model.onnx": File(digest="../../x", size_bytes=1)}
    with pytest.raises(RegistryError, match=r"artifact/model\.onnx has the digest '\.\./\.\./x'"):
        decode(altered(published, files=names), published)


def test_a_part_without_an_artifact_is_refused(published):
    names = dict(published.targets["x86"].files)
    del names["artifact/manifest.json"]
    with pytest.raises(RegistryError, match=r"for x86 has no artifact/manifest\.json"):
        decode(altered(published, files=names), published)


def test_a_part_that_names_another_artifact_is_refused(published):
    with pytest.raises(RegistryError, match=r"names the artifact sha256:.*, its manifest\.json is"):
        decode(altered(published, manifest=published.digest), published)


def test_targets_that_do_not_fit_the_digest_are_refused(published):
    content = files.encode_json(published).replace(b'"measured"', b'"estimated"')
    with pytest.raises(RegistryError, match="has other targets than its digest sha256:"):
        decode(content, published)


def test_a_document_under_another_name_is_refused(published):
    with pytest.raises(RegistryError, match=r"release digits 9\.9\.9 calls itself 'digits' '0\.0"):
        release.decode(files.encode_json(published), "digits", "9.9.9")


def test_a_target_id_that_is_none_is_refused(published):
    targets = {"../x": published.targets["x86"]}
    made = msgspec.structs.replace(published, targets=targets, digest=release.digest_of(targets))
    with pytest.raises(RegistryError, match=r"has the target id '\.\./x'"):
        decode(files.encode_json(made), published)


def test_another_schema_version_is_refused(published):
    made = msgspec.structs.replace(published, schema_version=9)
    with pytest.raises(ManifestError, match="has schema_version 9, this slipway reads 1"):
        decode(files.encode_json(made), published)


def test_what_is_no_document_is_refused(published):
    with pytest.raises(ManifestError, match=r"release digits .* is malformed"):
        decode(b"{", published)
