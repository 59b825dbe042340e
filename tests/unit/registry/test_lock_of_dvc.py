"""`lock.stale` on locks that dvc wrote: the chain of dvc.yaml in miniature, run and broken."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from pipeline.registry import lock

if importlib.util.find_spec("dvc") is None:
    pytest.skip("dvc is not installed; pip install 'slipway[build]'", allow_module_level=True)

# Each stage hands on the bytes of its deps, so that a change of a dep changes all behind it.
DVC_YAML = """
stages:
  toolchain:
    cmd: mkdir -p models/toolchain/a models/toolchain/b && cp tool-a models/toolchain/a/tools.json
      && cp tool-b models/toolchain/b/tools.json
    always_changed: true
    outs: [models/toolchain]
  prepare:
    cmd: mkdir -p models/data/sub && cat source.py > models/data/train.npz
      && echo z > models/data/sub/z && echo é > models/data/é && echo y > models/data/sub-y
    deps: [source.py, folder]
    params: [model, data]
    outs: [models/data]
  train:
    cmd: mkdir -p models/trained && cat models/data/train.npz train.py > models/trained/weights
      && echo 1 > models/train.json
    deps: [models/data/train.npz, train.py]
    params: [train]
    outs: [models/trained]
    metrics: [models/train.json]
  convert:
    foreach: ${targets}
    do:
      cmd: mkdir -p models/converted/${key} && cat models/trained/weights ${item.converter}.py
        models/toolchain/${key}/tools.json > models/converted/${key}/model
      deps: [models/trained, "models/toolchain/${key}/tools.json", "${item.converter}.py"]
      params: ["targets.${key}.convert"]
      outs: ["models/converted/${key}"]
  profile:
    foreach: ${targets}
    do:
      cmd: test ! -e offline-${key} && mkdir -p models/profiled/${key}
        && cat models/converted/${key}/model > models/profiled/${key}/measured
      deps: ["models/converted/${key}", models/data/train.npz]
      outs: ["models/profiled/${key}"]
  register:
    foreach: ${targets}
    do:
      cmd: mkdir -p models/release/${key}/artifact
        && cat models/profiled/${key}/measured > models/release/${key}/artifact/model
      deps: ["models/profiled/${key}"]
      params: [model]
      outs: ["models/release/${key}"]
"""
PARAMS_YAML = """
model: digits
data: {seed: 0, preprocessing: [{step: scale, factor: 0.0625}]}
train: {learning_rate: 0.00001, patience: 8, checkpoint: null, other: "yes"}
targets:
  a: {converter: one, convert: {precisions: [fp32]}}
  b: {converter: two, convert: {precisions: [fp32, int8-static]}}
"""
FILES = {
    "dvc.yaml": DVC_YAML,
    "params.yaml": PARAMS_YAML,
    **{name: name for name in ("source.py", "train.py", "one.py", "two.py", "tool-a", "tool-b")},
    "folder/x": "plain source",
}


def dvc(project, *arguments, check=True):
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(project.parent / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(project.parent / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(project.parent / "system"),
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, check=check, capture_output=True, timeout=120
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The project after one dvc repro; tests work on copies."""
    root = tmp_path_factory.mktemp("dvc") / "project"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    dvc(root, "init", "-q", "--no-scm")
    dvc(root, "repro", "-q")
    return root


@pytest.fixture
def project(built, tmp_path):
    return shutil.copytree(built, tmp_path / "project")


@pytest.fixture(scope="module")
def half_way(built, tmp_path_factory):
    """The project after train.py changed and `dvc repro --keep-going` found b offline."""
    root = shutil.copytree(built, tmp_path_factory.mktemp("half") / "project")
    (root / "train.py").write_text("better", encoding="utf-8")
    (root / "offline-b").touch()
    assert dvc(root, "repro", "-q", "--keep-going", check=False).returncode != 0
    return root


def reasons(project):
    return lock.stale_targets(["a", "b"], project)


def change(project, name, old, new):
    text = (project / name).read_text(encoding="utf-8")
    assert old in text
    (project / name).write_text(text.replace(old, new), encoding="utf-8")


def test_after_dvc_repro_every_target_is_current(project):
    assert reasons(project) == {"a": None, "b": None}


def test_our_md5_is_the_one_that_dvc_records(project):
    stages = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    assert {path: lock.md5(project / path) for path in outs} == outs
    assert len(outs) == 10


def test_a_failed_profile_leaves_its_target_stale_and_the_other_current(half_way):
    assert (half_way / "models/release/b").is_dir(), "the older release is still there"
    assert reasons(half_way) == {
        "a": None,
        "b": "profile@b: models/converted/b was written by convert@b after profile@b last ran; "
        "run dvc repro",
    }


def test_the_next_repro_mends_it(half_way, tmp_path):
    project = shutil.copytree(half_way, tmp_path / "project")
    (project / "offline-b").unlink()
    dvc(project, "repro", "-q")
    assert reasons(project) == {"a": None, "b": None}


def test_a_failed_run_of_unchanged_inputs_takes_nothing_back(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project")
    (project / "offline-b").touch()
    assert dvc(project, "repro", "-q", "-f", "-s", "profile@b", check=False).returncode != 0
    assert not (project / "models/profiled/b").exists()
    assert reasons(project) == {"a": None, "b": None}


SOURCES = {
    "code of one converter": ("two.py", "two", "three", {"b": "convert@b: two.py"}),
    "code upstream": ("train.py", "train", "x", {"a": "train: train.py", "b": "train: train.py"}),
    "the tools of one target": (
        "models/toolchain/b/tools.json",
        "tool-b",
        "newer",
        {"b": "convert@b: models/toolchain/b/tools.json"},
    ),
    "params of one target": (
        "params.yaml",
        "int8-static]",
        "int8-dynamic]",
        {"b": "convert@b: targets.b.convert in params.yaml"},
    ),
    "params upstream": (
        "params.yaml",
        "0.00001",
        "0.00002",
        {"a": "train: train in params.yaml", "b": "train: train in params.yaml"},
    ),
    "params that are written otherwise": ("params.yaml", "0.00001", "1.0e-5", {}),
    "params of nobody": ("params.yaml", "targets:", "more: 1\ntargets:", {}),
    "source in a plain folder": ("folder/x", "plain", "other", {}),
}


@pytest.mark.parametrize(("name", "old", "new", "expected"), SOURCES.values(), ids=SOURCES)
def test_a_change_after_the_run(project, name, old, new, expected):
    change(project, name, old, new)
    found = {target: reason for target, reason in reasons(project).items() if reason}
    assert found.keys() == expected.keys()
    for target, start in expected.items():
        stage = start.partition(":")[0]
        assert found[target] == f"{start} changed after {stage} last ran; run dvc repro"


def test_code_that_is_gone(project):
    (project / "two.py").unlink()
    assert lock.stale("b", project) == "convert@b: two.py is missing; run dvc repro"


def test_a_file_that_is_gone_from_its_producers_out(project):
    (project / "models/toolchain/b/tools.json").unlink()
    assert lock.stale("b", project) == (
        "convert@b: models/toolchain/b/tools.json is missing; run dvc repro"
    )


def test_a_release_that_is_gone(project):
    shutil.rmtree(project / "models/release/b")
    assert reasons(project) == {
        "a": None,
        "b": "models/release/b is missing; run dvc repro, or dvc pull register@b",
    }


def test_a_release_with_other_bytes(project):
    (project / "models/release/b/artifact/model").write_bytes(b"tampered")
    assert lock.stale("b", project) == (
        "models/release/b is not what register@b wrote; run dvc checkout register@b, or dvc repro"
    )


def test_a_release_of_another_lock(built, half_way, tmp_path):
    """After git checkout without dvc checkout the release is whole, and not the lock's."""
    project = shutil.copytree(built, tmp_path / "project")
    shutil.copy(half_way / "dvc.lock", project / "dvc.lock")
    shutil.copy(half_way / "train.py", project / "train.py")
    assert "models/release/a is not what register@a wrote" in lock.stale("a", project)


def test_a_fresh_clone_with_the_releases_alone(project):
    for path in (project / "models").iterdir():
        if path.name != "release":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert reasons(project) == {"a": None, "b": None}


def test_a_target_that_was_never_built(project):
    assert lock.stale("c", project) == "register@c is not in dvc.lock; run dvc repro"
