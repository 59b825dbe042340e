import json
import shutil
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import files, manifest
from pipeline.errors import DigestMismatchError, ManifestError


@pytest.fixture
def artifact(tmp_path):
    directory = tmp_path / "artifact"
    (directory / "deep").mkdir(parents=True)
    (directory / "model.onnx").write_bytes(b"weights")
    (directory / "deep" / "labels.txt").write_text("zero\none\n")
    manifest.write(directory, model="m", stage="convert", params={"bits": 8})
    return directory


def test_it_names_every_file_by_digest_and_not_itself(artifact):
    found = manifest.read(artifact)
    assert set(found.files) == {"model.onnx", "deep/labels.txt"}
    assert found.files["model.onnx"] == manifest.File(files.digest_bytes(b"weights"), 7)


def test_moving_a_directory_does_not_change_its_manifest(artifact, tmp_path):
    before = (artifact / manifest.FILE_NAME).read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.copytree(artifact, moved)
    (moved / manifest.FILE_NAME).unlink()
    manifest.write(moved, model="m", stage="convert", params={"bits": 8})
    assert (moved / manifest.FILE_NAME).read_bytes() == before


def test_one_changed_byte_changes_the_manifest(artifact):
    before = manifest.read(artifact)
    (artifact / "model.onnx").write_bytes(b"weighty")
    assert manifest.write(artifact, model="m", stage="convert", params={"bits": 8}) != before


DAMAGE = {
    "a flipped byte": (
        lambda d: (d / "model.onnx").write_bytes(b"weighTs"),
        "model.onnx is sha256",
    ),
    "a truncated file": (lambda d: (d / "model.onnx").write_bytes(b"weig"), "model.onnx is sha256"),
    "a missing file": (lambda d: (d / "model.onnx").unlink(), "missing model.onnx"),
    "an extra file": (lambda d: (d / "more").write_bytes(b""), "extra more"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_and_named(artifact, damage, words):
    manifest.verify(artifact)
    damage(artifact)
    with pytest.raises(DigestMismatchError, match=words):
        manifest.verify(artifact)


def test_all_differences_are_listed_at_once(artifact):
    (artifact / "model.onnx").write_bytes(b"x")
    (artifact / "deep" / "labels.txt").unlink()
    with pytest.raises(DigestMismatchError, match=r"missing deep/labels.txt; model.onnx is"):
        manifest.verify(artifact)


def test_an_incomplete_directory_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"manifest\.json is missing, so .* is incomplete"):
        manifest.read(tmp_path)


def test_an_unknown_version_is_refused_with_both_numbers(artifact):
    path = artifact / manifest.FILE_NAME
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(ManifestError, match="schema_version 7, this slipway reads 1"):
        manifest.read(artifact)


def test_unknown_keys_are_ignored_on_read(artifact):
    path = artifact / manifest.FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": True}))
    assert manifest.read(artifact).model == "m"


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "a\\b", "./a", "."])
def test_a_file_name_that_leaves_the_directory_is_refused(name):
    content = manifest.Manifest(model="m", stage="s", files={name: manifest.File("sha256:0", 0)})
    with pytest.raises(ManifestError, match="leaves the directory"):
        manifest.decode(files.encode_json(content), "manifest")


def test_a_symbolic_link_is_refused(artifact):
    (artifact / "link").symlink_to(artifact / "model.onnx")
    with pytest.raises(ManifestError, match="symbolic link"):
        manifest.scan(artifact)


def test_a_missing_input_names_its_role(tmp_path):
    with pytest.raises(ManifestError, match=r"trained: .* is missing; run the stage"):
        manifest.inputs_of(trained=tmp_path / "nothing")


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_manifest_or_one_clear_line(content):
    with suppress(ManifestError):
        assert manifest.decode(content, "here").schema_version == manifest.SCHEMA_VERSION


def test_json_is_canonical_whatever_the_order():
    one, other = {"b": 1, "a": [1.5, None]}, {"a": [1.5, None], "b": 1}
    assert files.encode_json(one) == files.encode_json(other)
    assert files.encode_json(one).endswith(b"}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.encode_json({"a": float("nan")})


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        files.write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
