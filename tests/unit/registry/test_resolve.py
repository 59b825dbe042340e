import itertools
import shutil

import msgspec
import pytest

from pipeline import files, manifest, measurement
from pipeline.errors import ManifestError, RegistryError
from pipeline.manifest import File
from pipeline.measurement import Latency
from pipeline.registry import release, resolve
from pipeline.registry.publish import publish

REMEDY = "publish the release again"


@pytest.fixture
def put(tiny_project, directory_store):
    """Publish new content under a version (None: the default one)."""
    counter = itertools.count()

    def _put(version=None, targets=("x86", "pi")):
        for target in targets:
            tiny_project.add(target, f"weights {next(counter)} of {target}".encode())
        tiny_project.commit()
        chosen = {target: tiny_project.releases[target] for target in targets}
        return publish(tiny_project.root, directory_store, version, chosen)

    return _put


def blob_path(store, digest):
    name = digest.removeprefix("sha256:")
    return store.root / "blobs/sha256" / name[:2] / name


def overwrite(path, content):
    path.unlink()
    path.write_bytes(content)


def rewrite(store, published, **changes):
    """Replace a published document, as an attacker of the storage would."""
    made = msgspec.structs.replace(published, **changes)
    made = msgspec.structs.replace(made, digest=release.digest_of(made.targets))
    path = store.root / f"releases/{published.name}/{published.version}.json"
    overwrite(path, files.encode_json(made))
    return made


def with_file(published, name, file):
    part = published.targets["x86"]
    part = msgspec.structs.replace(part, files=part.files | {name: file})
    return {"targets": published.targets | {"x86": part}}


class TestResolve:
    def test_the_newest_by_precedence(self, put, directory_store):
        for version in ("1.10.0", "1.9.0", "2.0.0-rc.1", None):
            put(version)
        found, part = resolve.resolve(directory_store, "digits", "x86")
        assert found.version == "2.0.0-rc.1"
        assert part == found.targets["x86"]

    def test_the_last_published_of_equal_precedence(self, put, directory_store):
        builds = [put() for _ in range(6)]
        assert [build.sequence for build in builds] == [1, 2, 3, 4, 5, 6]
        assert sorted(builds, key=lambda build: build.version) != builds, "no order by chance"
        assert resolve.find(directory_store, "digits") == builds[-1]
        assert [found.version for found in resolve.releases(directory_store)] == [
            build.version for build in builds
        ]

    def test_the_newest_that_has_the_target(self, put, directory_store):
        put("1.0.0")
        put("1.1.0", targets=["x86"])
        assert resolve.resolve(directory_store, "digits", "pi")[0].version == "1.0.0"
        assert resolve.resolve(directory_store, "digits", "x86")[0].version == "1.1.0"

    def test_an_exact_version(self, put, directory_store):
        first = put("1.0.0")
        put("1.1.0")
        assert resolve.resolve(directory_store, "digits", "pi", "1.0.0")[0] == first

    def test_releases_are_listed_by_name_the_newest_last(self, put, directory_store):
        versions = ["1.0.0", "1.0.0-rc.1", "1.0.1"]
        for version in versions:
            put(version)
        found = [release.version for release in resolve.releases(directory_store)]
        assert found == ["1.0.0-rc.1", "1.0.0", "1.0.1"]

    def test_an_unknown_name_lists_the_known(self, put, directory_store):
        put("1.0.0")
        with pytest.raises(RegistryError, match=r"model 'faces' is not in this.*; known: digits"):
            resolve.resolve(directory_store, "faces", "x86")

    @pytest.mark.parametrize("name", ["../digits", "digits/1.0.0", "", "*"])
    def test_a_name_that_is_none_is_unknown(self, put, directory_store, name):
        put("1.0.0")
        with pytest.raises(RegistryError, match="is not in this registry"):
            resolve.resolve(directory_store, name, "x86", "1.0.0")

    def test_an_empty_registry_knows_none(self, directory_store):
        with pytest.raises(RegistryError, match="known: none"):
            resolve.find(directory_store, "digits")

    def test_an_unknown_version_lists_the_known(self, put, directory_store):
        put("1.0.0")
        put("1.1.0")
        with pytest.raises(RegistryError, match=r"no version '2\.0\.0'; known: 1\.1\.0, 1\.0\.0$"):
            resolve.resolve(directory_store, "digits", "x86", "2.0.0")

    def test_a_long_list_is_cut(self, directory_store):
        for number in range(12):
            directory_store.publish_document(f"digits/1.{number}.0", b"{}")
        with pytest.raises(RegistryError, match=r"known: 1\.11\.0, .*1\.2\.0 and 2 more$"):
            resolve.find(directory_store, "digits", "2.0.0")

    def test_an_unknown_target_lists_the_known(self, put, directory_store):
        put("1.0.0", targets=["x86"])
        put("1.1.0", targets=["pi"])
        with pytest.raises(RegistryError, match="digits has no target 'mcu'; known: pi, x86"):
            resolve.resolve(directory_store, "digits", "mcu")
        with pytest.raises(RegistryError, match=r"digits 1\.0\.0 has no target 'pi'; known: x86"):
            resolve.resolve(directory_store, "digits", "pi", "1.0.0")

    def test_a_skipped_target_gives_its_reason(self, tiny_project, directory_store):
        tiny_project.add_unshipped("mcu", "too large")
        publish(tiny_project.root, directory_store, None, tiny_project.releases)
        with pytest.raises(RegistryError, match=r"no target 'mcu' \(too large\); known: pi, x86"):
            resolve.resolve(directory_store, "digits", "mcu")

    def test_a_damaged_document_is_not_passed_over(self, put, directory_store):
        put("1.0.0")
        directory_store.publish_document("digits/1.1.0", b"{")
        with pytest.raises(ManifestError, match=r"release digits 1\.1\.0 is malformed"):
            resolve.find(directory_store, "digits")


@pytest.fixture
def unproven(tiny_project, directory_store):
    """A published target that was built and never ran; its digest is of the engine alone."""
    shutil.rmtree(tiny_project.releases.pop("pi"))
    tiny_project.add("gpu", b"engine", kind="built", latency_ms=Latency(), quality=None, drop=None)
    (tiny_project.releases["gpu"] / "golden.npz").unlink()
    tiny_project.rewrite_manifest("gpu")
    tiny_project.commit()
    return publish(tiny_project.root, directory_store, "1.0.0", tiny_project.releases)


class TestUnproven:
    def test_a_pull_wants_to_be_told_that_it_may(self, unproven, directory_store, tmp_path):
        assert unproven.targets["gpu"].unproven
        words = (
            r"^digits 1\.0\.0 for gpu is unproven: built, and never run on its hardware; pull a "
            r"measured version, or this one with --unproven$"
        )
        with pytest.raises(RegistryError, match=words):
            resolve.pull(directory_store, "digits", "gpu", None, tmp_path / "pulled")
        assert not (tmp_path / "pulled").exists()

    def test_told_so_it_delivers_all_but_golden_outputs(self, unproven, directory_store, tmp_path):
        to = tmp_path / "pulled"
        resolve.pull(directory_store, "digits", "gpu", None, to, accept_unproven=True)
        assert unproven.signed is False
        assert sorted(files.list_files(to)) == ["manifest.json", "measurement.json", "model.onnx"]
        assert measurement.read(to / "measurement.json").kind == "built"

    def test_the_flag_changes_nothing_for_what_was_measured(
        self, unproven, directory_store, tmp_path
    ):
        assert not unproven.targets["x86"].unproven
        resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        assert (tmp_path / "pulled/golden.npz").is_file()

    @pytest.mark.parametrize("changes", [{"unproven": False}, {"kind": "measured"}], ids=str)
    def test_a_release_that_calls_it_proven_is_refused(self, unproven, directory_store, changes):
        part = msgspec.structs.replace(unproven.targets["gpu"], **changes)
        rewrite(directory_store, unproven, targets=unproven.targets | {"gpu": part})
        with pytest.raises(RegistryError, match="called unproven; do not use it"):
            resolve.resolve(directory_store, "digits", "gpu")

    def test_the_registry_is_whole_with_it(self, unproven, directory_store):
        assert unproven
        assert resolve.verify(directory_store) == []


class TestPull:
    def test_delivers_the_artifact_its_golden_inputs_and_its_measurement(
        self, put, directory_store, tiny_project, tmp_path
    ):
        published = put("1.0.0")
        to = tmp_path / "pulled"
        assert resolve.pull(directory_store, "digits", "x86", None, to) == published
        directory = tiny_project.releases["x86"]
        assert {name: (to / name).read_bytes() for name in files.list_files(to)} == {
            "golden.npz": (directory / "golden.npz").read_bytes(),
            "manifest.json": (directory / "artifact/manifest.json").read_bytes(),
            "measurement.json": (directory / "measurement.json").read_bytes(),
            "model.onnx": (directory / "artifact/model.onnx").read_bytes(),
        }
        assert manifest.read(to).files["model.onnx"].digest == files.digest_file(to / "model.onnx")
        assert to.stat().st_mode & 0o777 == 0o755

    def test_large_and_empty_files_and_folders(self, tiny_project, directory_store, tmp_path):
        artifact = tiny_project.releases["x86"] / "artifact"
        content = {
            "exact": b"x" * files.CHUNK_BYTES,
            "more": b"x" * (2 * files.CHUNK_BYTES + 1),
            "deep/er/empty": b"",
        }
        for name, value in content.items():
            (artifact / name).parent.mkdir(parents=True, exist_ok=True)
            (artifact / name).write_bytes(value)
        (artifact / "manifest.json").unlink()
        manifest.write(artifact, model="digits", stage="convert")
        measured = tiny_project.releases["x86"] / "measurement.json"
        text = msgspec.json.decode(measured.read_bytes())
        text["artifact"] = files.digest_file(artifact / "manifest.json")
        measured.write_bytes(files.encode_json(text))
        tiny_project.rewrite_manifest("x86")
        publish(tiny_project.root, directory_store, None, tiny_project.releases)
        resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        for name, value in content.items():
            assert (tmp_path / "pulled" / name).read_bytes() == value
        assert resolve.verify(directory_store) == []

    def test_an_empty_directory_may_be_there(self, put, directory_store, tmp_path):
        put()
        (tmp_path / "pulled").mkdir()
        resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        assert (tmp_path / "pulled/model.onnx").is_file()

    @pytest.mark.parametrize("kind", ["file", "full directory", "symlink", "dangling symlink"])
    def test_a_destination_in_use_is_refused(self, put, directory_store, tmp_path, kind):
        put()
        to, elsewhere = tmp_path / "pulled", tmp_path / "elsewhere"
        if kind == "file":
            to.touch()
        elif kind == "full directory":
            to.mkdir()
            (to / "mine").touch()
        else:
            if kind == "symlink":
                elsewhere.mkdir()
            to.symlink_to(elsewhere)
        before = files.list_files(tmp_path)
        with pytest.raises(RegistryError, match="exists already; remove it, or pull to a new dir"):
            resolve.pull(directory_store, "digits", "x86", None, to)
        assert files.list_files(tmp_path) == before

    def test_a_parent_must_be_there(self, put, directory_store, tmp_path):
        put()
        with pytest.raises(RegistryError, match="absent is not a directory; make it"):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / "absent/pulled")

    @pytest.mark.parametrize("spoil", ["other bytes", "truncated", "longer", "missing"])
    @pytest.mark.parametrize(
        "name", ["artifact/model.onnx", "artifact/manifest.json", "golden.npz", "measurement.json"]
    )
    def test_spoiled_blobs_leave_nothing(self, put, directory_store, tmp_path, name, spoil):
        published = put("1.0.0")
        path = blob_path(directory_store, published.targets["x86"].files[name].digest)
        content = path.read_bytes()
        spoiled = {"other bytes": b"X" + content[1:], "truncated": content[:-1]}
        path.unlink()
        if spoil != "missing":
            path.write_bytes(spoiled.get(spoil, content + b"X"))
        match = "cannot be read" if spoil == "missing" else "has other bytes than its manifest says"
        with pytest.raises(RegistryError, match=match):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        assert {path.name for path in tmp_path.iterdir()} == {"project", "registry"}

    @pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "artifact/../../escaped"])
    def test_a_hostile_release_writes_nothing(self, put, directory_store, tmp_path, name):
        published = put("1.0.0")
        golden = published.targets["x86"].files["golden.npz"]
        rewrite(directory_store, published, **with_file(published, name, golden))
        with pytest.raises(RegistryError, match="which leaves the directory; do not use it"):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        assert {path.name for path in tmp_path.iterdir()} == {"project", "registry"}

    def test_a_hostile_manifest_writes_nothing(self, put, directory_store, tmp_path):
        published = put("1.0.0")
        golden = published.targets["x86"].files["golden.npz"]
        hostile = manifest.Manifest(model="digits", stage="x", files={"../escaped": golden})
        content = files.encode_json(hostile)
        digest = directory_store.put_blob(content)
        part = published.targets["x86"]
        entry = File(digest=digest, size_bytes=len(content))
        names = part.files | {"artifact/manifest.json": entry}
        part = msgspec.structs.replace(part, manifest=digest, files=names)
        rewrite(directory_store, published, targets={"x86": part})
        with pytest.raises(ManifestError, match=r"file name '\.\./escaped' leaves the directory"):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")
        assert {path.name for path in tmp_path.iterdir()} == {"project", "registry"}

    def test_a_file_that_the_artifact_does_not_know_is_refused(
        self, put, directory_store, tmp_path
    ):
        published = put("1.0.0")
        golden = published.targets["x86"].files["golden.npz"]
        rewrite(directory_store, published, **with_file(published, "artifact/more", golden))
        with pytest.raises(RegistryError, match=r"more is not what artifact/manifest\.json says"):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / "pulled")

    def test_a_place_that_cannot_be_written_is_one_line(self, put, directory_store, tmp_path):
        put()
        with pytest.raises(RegistryError, match="cannot be written: File name too long"):
            resolve.pull(directory_store, "digits", "x86", None, tmp_path / ("x" * 250))


class TestVerify:
    def test_a_sound_registry_has_no_problems(self, put, directory_store):
        put("1.0.0")
        put()
        assert resolve.verify(directory_store) == []

    def test_an_empty_one_has_none(self, directory_store):
        assert resolve.verify(directory_store) == []

    @pytest.mark.parametrize("name", ["artifact/model.onnx", "manifest.json", "reference.json"])
    def test_other_bytes_are_found_in_every_file(self, put, directory_store, name):
        digest = put("1.2.0").targets["x86"].files[name].digest
        overwrite(blob_path(directory_store, digest), b"tampered")
        assert resolve.verify(directory_store) == [
            f"blob {digest[:19]}.. of digits 1.2.0 has other bytes than its manifest says; {REMEDY}"
        ]

    def test_a_missing_blob_names_every_release(self, put, directory_store):
        put("1.0.0")
        digest = put("1.1.0").targets["x86"].files["golden.npz"].digest
        blob_path(directory_store, digest).unlink()
        assert resolve.verify(directory_store) == [
            f"blob {digest[:19]}.. of digits 1.0.0, digits 1.1.0 is missing or unreadable; {REMEDY}"
        ]

    def test_a_blob_of_no_release_is_hashed_too(self, put, directory_store):
        put()
        digest = directory_store.put_blob(b"left by a killed publisher")
        assert resolve.verify(directory_store) == []
        overwrite(blob_path(directory_store, digest), b"tampered")
        (problem,) = resolve.verify(directory_store)
        assert "of no release has other bytes than its manifest says; delete it" in problem

    def test_a_malformed_document_is_found_beside_the_rest(self, put, directory_store):
        digest = put("1.0.0").targets["x86"].files["golden.npz"].digest
        directory_store.publish_document("digits/1.1.0", b"{")
        blob_path(directory_store, digest).unlink()
        malformed, missing = resolve.verify(directory_store)
        assert malformed.startswith("release digits 1.1.0 is malformed")
        assert missing.startswith(f"blob {digest[:19]}..")

    def test_a_wrong_size_is_found(self, put, directory_store):
        published = put("1.0.0")
        golden = msgspec.structs.replace(published.targets["x86"].files["golden.npz"], size_bytes=1)
        rewrite(directory_store, published, **with_file(published, "golden.npz", golden))
        assert resolve.verify(directory_store) == [
            "digits 1.0.0 for x86: golden.npz has 6 bytes, the release says 1; do not use it"
        ]

    def test_an_artifact_that_its_manifest_does_not_know_is_found(self, put, directory_store):
        published = put("1.0.0")
        other = published.targets["pi"].files["artifact/model.onnx"]
        changes = with_file(published, "artifact/model.onnx", other)
        rewrite(directory_store, published, **changes)
        (problem,) = resolve.verify(directory_store)
        assert problem.startswith("digits 1.0.0 for x86: model.onnx is not what artifact/manifest")
