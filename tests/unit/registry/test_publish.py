import shutil

import pytest

from pipeline import files
from pipeline.errors import DigestMismatchError, RegistryError
from pipeline.registry.publish import publish
from pipeline.registry.release import Figures


def put(project, store, version=None):
    return publish(project.root, store, version, project.releases)


def blobs(store):
    return set(store.keys("blobs"))


def test_a_release_says_what_it_holds(tiny_project, directory_store):
    release = put(tiny_project, directory_store)
    directory = tiny_project.releases["x86"]
    part = release.targets["x86"]
    assert (part.candidate, part.variant, part.precision) == ("dense-fp32", "dense", "fp32")
    assert (part.kind, part.unproven) == ("measured", False)
    assert part.manifest == files.digest_file(directory / "artifact/manifest.json")
    assert {name: file.digest for name, file in part.files.items()} == {
        name: files.digest_file(directory / name) for name in files.list_files(directory)
    }
    assert part.figures == Figures(
        latency_p50_ms=0.5,
        latency_ratio=0.25,
        size_bytes=15,
        quality_metric="accuracy",
        quality_unit="%",
        quality=97.0,
        quality_half_width=1.5,
        drop=0.5,
        drop_upper=1.25,
    )
    assert (release.name, release.signed, release.sequence) == ("digits", False, 1)
    assert release.lock_digest == files.digest_file(tiny_project.root / "dvc.lock")


def test_what_merely_was_built_is_unproven(tiny_project, directory_store):
    published = put(tiny_project, directory_store)
    assert (published.targets["pi"].kind, published.targets["pi"].unproven) == ("built", True)
    assert not published.targets["x86"].unproven


def test_what_never_ran_is_published_without_golden_outputs(tiny_project, directory_store):
    (tiny_project.releases["pi"] / "golden.npz").unlink()
    tiny_project.rewrite_manifest("pi")
    part = put(tiny_project, directory_store).targets["pi"]
    assert "golden.npz" not in part.files
    assert (part.figures.latency_p50_ms, part.figures.size_bytes) == (None, 14)


def test_the_default_version_is_of_the_content(tiny_project, directory_store):
    release = put(tiny_project, directory_store)
    assert release.version == f"0.0.0+{release.digest.removeprefix('sha256:')[:12]}"


def test_the_digest_is_of_the_targets_alone(make_project, directory_store):
    one, other = make_project("one"), make_project("other")
    for project in (one, other):
        project.add("x86")
    (other.root / "params.yaml").write_text("model: digits\nmore: 1\n", encoding="utf-8")
    other.add_unshipped("mcu", "too large")
    other.commit()
    first = put(one, directory_store)
    assert put(other, directory_store, "1.0.0").digest == first.digest
    other.add("x86", b"other weights")
    assert put(other, directory_store).digest != first.digest


def test_the_same_content_again_is_the_same_release(tiny_project, directory_store):
    first = put(tiny_project, directory_store)
    held = files.list_files(directory_store.root)
    assert put(tiny_project, directory_store) == first
    assert files.list_files(directory_store.root) == held


def test_content_with_a_version_needs_no_default_one(tiny_project, directory_store):
    tiny_project.commit()
    named = put(tiny_project, directory_store, "1.0.0")
    assert put(tiny_project, directory_store) == named
    assert directory_store.keys("releases") == ["digits/1.0.0"]


def test_a_default_release_can_be_given_a_version(tiny_project, directory_store):
    tiny_project.commit()
    first = put(tiny_project, directory_store)
    named = put(tiny_project, directory_store, "1.0.0")
    assert named.digest == first.digest
    assert (first.sequence, named.sequence) == (1, 2)
    assert len(directory_store.keys("releases")) == 2


def test_a_version_is_not_used_twice(tiny_project, directory_store):
    tiny_project.commit()
    put(tiny_project, directory_store, "1.0.0")
    before = blobs(directory_store)
    tiny_project.add("x86", b"other weights")
    tiny_project.commit()
    with pytest.raises(RegistryError, match=r"digits 1\.0\.0 is published with other content"):
        put(tiny_project, directory_store, "1.0.0")
    assert blobs(directory_store) == before


def test_publishing_again_mends_a_damaged_blob(tiny_project, directory_store):
    put(tiny_project, directory_store)
    for path in directory_store.root.glob("blobs/sha256/*/*"):
        path.unlink()
        path.write_bytes(b"tampered")
    put(tiny_project, directory_store)
    for path in directory_store.root.glob("blobs/sha256/*/*"):
        assert files.digest_file(path) == f"sha256:{path.name}"


class TestGit:
    def test_the_commit_is_recorded(self, tiny_project, directory_store):
        commit = tiny_project.commit()
        release = put(tiny_project, directory_store)
        assert (release.commit, release.dirty) == (commit, False)

    def test_a_default_version_says_that_the_tree_differed(self, tiny_project, directory_store):
        commit = tiny_project.commit()
        (tiny_project.root / "untracked").touch()
        release = put(tiny_project, directory_store)
        assert (release.commit, release.dirty) == (commit, True)

    def test_a_default_version_needs_no_repository(self, tiny_project, directory_store):
        assert put(tiny_project, directory_store).commit is None

    def test_a_version_needs_a_clean_tree(self, tiny_project, directory_store):
        commit = tiny_project.commit()
        (tiny_project.root / "untracked").touch()
        with pytest.raises(RegistryError, match=rf"needs a clean git tree, .* from {commit[:12]}"):
            put(tiny_project, directory_store, "1.0.0")

    def test_a_version_needs_a_repository(self, tiny_project, directory_store):
        with pytest.raises(RegistryError, match=r"version 1\.0\.0 needs a git commit.*not a git"):
            put(tiny_project, directory_store, "1.0.0")

    def test_a_version_needs_git(self, tiny_project, directory_store, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(RegistryError, match="git is not installed; commit first, or leave out"):
            put(tiny_project, directory_store, "1.0.0")

    def test_a_version_is_semantic(self, tiny_project, directory_store):
        with pytest.raises(RegistryError, match="must be a semantic version such as"):
            put(tiny_project, directory_store, "latest")


class TestSkipped:
    def test_a_target_without_an_artifact(self, tiny_project, directory_store):
        tiny_project.add_unshipped("mcu", "no candidate meets the budget: dense-fp32: too large")
        release = put(tiny_project, directory_store)
        assert release.skipped == {"mcu": "no candidate meets the budget: dense-fp32: too large"}
        assert set(release.targets) == {"x86", "pi"}

    def test_a_target_that_never_ran(self, tiny_project, directory_store):
        tiny_project.releases["mcu"] = tiny_project.root / "models/release/mcu"
        assert put(tiny_project, directory_store).skipped == {
            "mcu": "register@mcu is not in dvc.lock; run dvc repro"
        }

    def test_a_target_whose_release_is_gone(self, tiny_project, directory_store):
        shutil.rmtree(tiny_project.releases["pi"])
        (reason,) = put(tiny_project, directory_store).skipped.values()
        assert reason.startswith("models/release/pi is missing")

    def test_a_target_that_was_tampered_with(self, tiny_project, directory_store):
        (tiny_project.releases["pi"] / "golden.npz").write_bytes(b"tampered")
        (reason,) = put(tiny_project, directory_store).skipped.values()
        assert reason.startswith("models/release/pi is not what register@pi wrote")

    def test_nothing_left_is_an_error_with_every_reason(self, tiny_project, directory_store):
        tiny_project.add_unshipped("mcu", "too large")
        shutil.rmtree(tiny_project.releases["pi"])
        del tiny_project.releases["x86"]
        with pytest.raises(
            RegistryError, match=r"nothing to publish: mcu: too large; pi: models/release/pi is mis"
        ):
            put(tiny_project, directory_store)
        assert not directory_store.root.exists()

    def test_no_targets_at_all(self, tiny_project, directory_store):
        with pytest.raises(RegistryError, match="nothing to publish: no target was given"):
            publish(tiny_project.root, directory_store, None, {})


class TestRefused:
    """Release directories that agree with dvc.lock and yet contradict themselves."""

    def test_bytes_that_differ_from_the_manifest(self, tiny_project, directory_store):
        (tiny_project.releases["pi"] / "golden.npz").write_bytes(b"tampered")
        tiny_project.lock()
        with pytest.raises(DigestMismatchError, match=r"differs from its manifest: golden\.npz"):
            put(tiny_project, directory_store)
        assert not directory_store.root.exists()

    def test_another_artifact_than_the_measured_one(self, tiny_project, directory_store):
        artifact = tiny_project.releases["pi"] / "artifact"
        (artifact / "manifest.json").write_bytes(
            (artifact / "manifest.json").read_bytes().replace(b'"fp32"', b'"int8"')
        )
        tiny_project.rewrite_manifest("pi")
        with pytest.raises(RegistryError, match=r"the measurement is of the artifact sha256:"):
            put(tiny_project, directory_store)

    def test_a_model_that_its_own_manifest_does_not_know(self, tiny_project, directory_store):
        (tiny_project.releases["pi"] / "artifact/model.onnx").write_bytes(b"other weights")
        tiny_project.rewrite_manifest("pi")
        with pytest.raises(RegistryError, match=r"model\.onnx is not what artifact/manifest\.json"):
            put(tiny_project, directory_store)

    def test_no_golden_inputs(self, tiny_project, directory_store):
        (tiny_project.releases["x86"] / "golden.npz").unlink()
        tiny_project.rewrite_manifest("x86")
        with pytest.raises(RegistryError, match=r"x86 has no golden\.npz; run dvc repro"):
            put(tiny_project, directory_store)

    def test_a_release_of_another_target(self, tiny_project, directory_store):
        tiny_project.rewrite_manifest("pi", made_for="x86")
        with pytest.raises(RegistryError, match="made for x86 and measured on pi, not for pi"):
            put(tiny_project, directory_store)

    def test_targets_of_several_models(self, tiny_project, directory_store):
        tiny_project.add("mcu", name="faces")
        with pytest.raises(RegistryError, match="of several models: digits, faces; run dvc repro"):
            put(tiny_project, directory_store)

    def test_a_model_whose_name_is_no_name(self, make_project, directory_store):
        project = make_project()
        project.add("x86", name="../digits")
        with pytest.raises(RegistryError, match=r"model must match .*, got '\.\./digits'"):
            put(project, directory_store)

    def test_a_description_that_cannot_be_read(self, tiny_project, directory_store):
        (tiny_project.releases["pi"] / "release.json").write_text("{}", encoding="utf-8")
        tiny_project.rewrite_manifest("pi")
        with pytest.raises(RegistryError, match=r"release\.json cannot be read: .*shipped"):
            put(tiny_project, directory_store)

    def test_a_file_that_changes_under_the_publisher(self, tiny_project, directory_store):
        class Racing:
            """Spoils each file just before it is put, as another process in models/ would."""

            def __getattr__(self, name):
                return getattr(directory_store, name)

            def put_blob(self, source):
                source.write_bytes(b"changed")
                return directory_store.put_blob(source)

        with pytest.raises(RegistryError, match="changed while it was published; publish again"):
            publish(tiny_project.root, Racing(), None, tiny_project.releases)
        assert directory_store.keys("releases") == []
