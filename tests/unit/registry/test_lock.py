"""The walk over dvc.lock on hand-written locks; test_lock_of_dvc.py holds it against real ones."""

import hashlib

import pytest
import yaml

from pipeline.errors import RegistryError
from pipeline.registry import lock


def md5_of(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def write_lock(tmp_path):
    def _write(stages):
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
        return tmp_path

    return _write


@pytest.mark.parametrize(
    "content",
    [
        "stages: 1",
        "stages: {a: {deps: x}}",
        "stages: {a: {outs: [{md5: 1}]}}",
        "[",
        "<<<<<<< HEAD\n",
    ],
)
def test_a_lock_that_is_none_is_an_error(tmp_path, content):
    (tmp_path / "dvc.lock").write_text(content, encoding="utf-8")
    with pytest.raises(RegistryError, match=r"dvc\.lock .*restore it from git"):
        lock.stale("a", tmp_path)


def test_no_lock_is_a_reason(tmp_path):
    assert lock.stale("a", tmp_path) == "dvc.lock is missing; run dvc repro"


def test_a_stage_without_outs_or_deps_is_current(write_lock):
    assert lock.stale("a", write_lock({"register@a": {"cmd": "x"}})) is None


def test_a_chain_that_turns_upon_itself_ends(write_lock):
    entry = [{"path": "x", "md5": md5_of(b"x")}]
    project = write_lock({"register@a": {"deps": entry, "outs": entry}})
    (project / "x").write_bytes(b"x")
    assert lock.stale("a", project) is None


def test_the_reason_is_the_broken_link_nearest_to_the_release(write_lock):
    project = write_lock(
        {
            "far": {"deps": [{"path": "far.py", "md5": "0"}], "outs": [{"path": "f", "md5": "f"}]},
            "near": {"deps": [{"path": "f", "md5": "old"}], "outs": [{"path": "n", "md5": "n"}]},
            "register@a": {"deps": [{"path": "n", "md5": "n"}]},
        }
    )
    assert lock.stale("a", project) == (
        "near: f was written by far after near last ran; run dvc repro"
    )


PARAMS = {
    "as DVC writes small numbers": ("1e-05", "0.00001", True),
    "octal look-alike": ("10", "010", True),
    "octal": ("8", "0o10", True),
    "hexadecimal": ("255", "0xFF", True),
    "grouped": ("1000", "1_000", True),
    "infinity": (".inf", ".INF", True),
    "a word that 1.1 takes for true": ("yes", '"yes"', True),
    "true is no word": ("true", '"true"', False),
    "sexagesimal of 1.1": ("1:30", '"1:30"', True),
    "null": ("", "~", True),
    "number and its text": ("1", '"1"', False),
    "other number": ("1", "2", False),
    "list": ("[1, {a: b}]", "\n  - 1\n  - {a: b}", True),
    "order of keys": ("{a: 1, b: 2}", "{b: 2, a: 1}", True),
    "order of items": ("[1, 2]", "[2, 1]", False),
}


@pytest.mark.parametrize(("recorded", "now", "same"), PARAMS.values(), ids=PARAMS)
def test_params_compare_as_dvc_reads_them(tmp_path, recorded, now, same):
    (tmp_path / "dvc.lock").write_text(
        f"stages: {{register@a: {{params: {{params.yaml: {{a.b: {recorded}}}}}}}}}",
        encoding="utf-8",
    )
    (tmp_path / "params.yaml").write_text(f"a:\n  b: {now}\n", encoding="utf-8")
    expected = "register@a: a.b in params.yaml changed after register@a last ran; run dvc repro"
    assert lock.stale("a", tmp_path) == (None if same else expected)


@pytest.mark.parametrize("now", ["a: {c: 1}", "a: 1", "{}", None])
def test_params_that_are_gone_are_a_reason(write_lock, now):
    project = write_lock({"register@a": {"params": {"params.yaml": {"a.b": 1}}}})
    if now is not None:
        (project / "params.yaml").write_text(now, encoding="utf-8")
    assert lock.stale("a", project) == (
        "register@a: a.b is no longer in params.yaml; run dvc repro"
    )
