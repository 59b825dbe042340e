"""What shipped at a revision, got with the real git and the real DVC."""

import shutil
import subprocess
import sys

import pytest

from pipeline.errors import RegistryError
from pipeline.registry import base

DVC_YAML = """\
stages:
  register:
    foreach: [box, my-box]
    do:
      cmd: mkdir -p models/release/${item} && cp answer models/release/${item}/release.json
      deps: [answer]
      outs: ["models/release/${item}"]
"""


class Project:
    """A DVC project whose releases hold one word; ``commit`` builds it and returns the revision."""

    def __init__(self, root, inside=""):
        self.path = root / inside
        self.path.mkdir(parents=True)
        self.run("git", "init", "-q", "-b", "main", str(root))
        self.dvc("init", "-q", *(["--subdir"] if inside else []))
        (self.path / "dvc.yaml").write_text(DVC_YAML)

    def run(self, *command):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", *identity, *command[1:]] if command[0] == "git" else command
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def dvc(self, *arguments):
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, word):
        (self.path / "answer").write_text(word)
        self.dvc("repro", "-q")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", word)
        return self.run("git", "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A project of two releases: the revisions, and what lies on disk, the second."""
    project = Project(tmp_path_factory.mktemp("history") / "project")
    return project, project.commit("first"), project.commit("second")


def test_a_release_of_another_revision_comes_back(history, tmp_path):
    project, first, _ = history
    found = base.fetch(project.path, first, "box", tmp_path / "box")
    assert found == tmp_path / "box"
    assert (found / "release.json").read_text() == "first"
    assert (project.path / "models/release/box/release.json").read_text() == "second"
    assert project.run("git", "status", "--porcelain") == ""


def test_a_project_may_be_a_folder_of_a_larger_repository(tmp_path):
    project = Project(tmp_path / "repository", "parts/model")
    found = base.fetch(project.path, project.commit("first"), "box", tmp_path / "box")
    assert (found / "release.json").read_text() == "first"


@pytest.mark.parametrize("target", ["toaster", "ox", "box-1"])
def test_a_target_that_the_revision_had_not_has_no_release(history, tmp_path, target):
    project, first, _ = history
    assert base.fetch(project.path, first, target, tmp_path / "got") is None
    assert not (tmp_path / "got").exists()


def test_a_revision_from_before_anything_was_built_has_no_release(history, tmp_path):
    project, _, _ = history
    tree = project.run("git", "hash-object", "-w", "-t", "tree", "/dev/null")
    empty = project.run("git", "commit-tree", "-m", "empty", tree)
    assert base.fetch(project.path, empty, "box", tmp_path / "got") is None


def test_an_unknown_revision_is_one_line(history, tmp_path):
    project, _, _ = history
    with pytest.raises(RegistryError, match=r"^revision 'origin/none' is not known; fetch it, or"):
        base.fetch(project.path, "origin/none", "box", tmp_path / "got")


def test_data_that_was_never_pushed_is_one_line_with_dvcs_own_reason(history, tmp_path):
    project, _, _ = history
    clone = tmp_path / "clone"
    project.run("git", "clone", "-q", str(project.path), str(clone))
    shutil.rmtree(clone / ".dvc/cache", ignore_errors=True)
    expected = r"^models/release/box of HEAD cannot be got: unexpected error - .*; dvc push it from"
    with pytest.raises(RegistryError, match=expected) as caught:
        base.fetch(clone, "HEAD", "box", tmp_path / "got")
    assert "\n" not in str(caught.value)
    assert "troubles" not in str(caught.value)
