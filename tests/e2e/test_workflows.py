"""The CI workflows: what they run exists, is one make target each, and does what it should."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
TEMPLATE = ROOT / "pipeline/project/template/build.yml"
GITLAB = ROOT / ".gitlab-ci.yml"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def github_commands(path):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def gitlab_commands():
    jobs = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
    return [line for job in jobs.values() if "script" in job for line in job["script"]]


COMMANDS = {
    **{path.name: github_commands(path) for path in WORKFLOWS},
    GITLAB.name: gitlab_commands(),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_run_line_is_one_make_target(name):
    assert COMMANDS[name]
    for command in COMMANDS[name]:
        assert re.fullmatch(r"make [a-z-]+", command), command
        assert command.removeprefix("make ") in TARGETS


def test_github_and_gitlab_run_the_same():
    github = {command for path in WORKFLOWS for command in github_commands(path)}
    assert github == set(gitlab_commands())


def test_ci_runs_the_systems_tests_too():
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    steps = re.findall(r"^step \S+ make (\S+)$", text, re.MULTILINE)
    assert steps == ["setup", "check", "run", "test", "test-systems"]
    assert set(steps) <= TARGETS
    recipe = subprocess.run(
        ["make", "--no-print-directory", "-n", "test-systems"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert recipe.split() == ["scripts/test-systems"]
    script = (ROOT / "scripts/test-systems").read_text(encoding="utf-8")
    assert "scripts/setup --all\n" in script
    assert re.search(r"^pytest .* tests/systems ", script, re.MULTILINE)


def tool(name, *arguments):
    return subprocess.run(
        [Path(sys.executable).parent / name, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("path", [*WORKFLOWS, TEMPLATE], ids=lambda path: path.name)
def test_github_workflows_follow_the_schema_and_zizmor_finds_nothing(path):
    done = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)
    assert done.returncode == 0, done.stdout
    done = tool("zizmor", "--offline", "--no-progress", path)
    assert done.returncode == 0, done.stdout


def test_the_gitlab_file_follows_its_schema():
    done = tool("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", GITLAB)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*WORKFLOWS, TEMPLATE], ids=lambda path: path.name)
def test_actions_are_pinned_and_no_job_has_more_rights_than_it_needs(path):
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        allowed = {"pull-requests": "write"} if name == "comment" else {"contents": "read"}
        assert job["permissions"] == allowed
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40))
            assert "secrets." not in json.dumps(step.get("env", {}))


def test_a_pull_request_can_only_read_and_a_release_builds_nothing():
    jobs = yaml.safe_load((ROOT / ".github/workflows/build.yml").read_text())["jobs"]
    assert "WRITE" not in json.dumps(jobs["pull-request"])
    assert "push" not in [s.get("run", "").removeprefix("make ") for s in jobs["comment"]["steps"]]
    assert github_commands(ROOT / ".github/workflows/release.yml") == ["make setup", "make release"]
    recipe = subprocess.run(
        ["make", "-n", "release", "TAG=digits@v1.2.0"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert "repro" not in recipe


def with_remote(project, path):
    project.dvc("remote", "add", "-d", "store", path)
    project.run("sed", "-i", "/dvc.lock/d", ".gitignore")
    project.commit()


def make(project, *arguments, **options):
    return project.run("make", *arguments, **options)


def fresh_clone(project, path):
    project.run("git", "clone", "-q", project.path, path)
    clone = type(project)(path)
    clone.run("git", "config", "user.email", "tests@example.invalid")
    clone.run("git", "config", "user.name", "tests")
    return clone


def test_what_main_pushed_a_pull_request_takes_over_and_compares(built, tmp_path):
    """build, push, difference and release, as CI runs them, on clones that share a remote."""
    with_remote(built, tmp_path / "remote")
    make(built, "push")
    clone = fresh_clone(built, tmp_path / "clone")
    done = make(clone, "build", check=False)
    ran = set(re.findall(r"Running stage '([^']+)'", done.stdout))
    assert ran == {"toolchain"}, done.stdout + done.stderr
    base = clone.run("git", "rev-parse", "HEAD").stdout.strip()
    same = make(clone, "difference", f"BASE={base}")
    assert f"No target is worse than {base}." in same.stdout

    def no_budget(values):
        values["targets"]["x86-litert"]["select"] = {"max_size_bytes": 1}

    clone.edit(no_budget)
    make(clone, "build", check=False)
    worse = make(clone, "difference", f"BASE={base}", check=False)
    assert worse.returncode != 0
    text = (clone.path / "models/report/difference.md").read_text()
    assert text.startswith("**x86-litert is gone**: no candidate meets the budget")

    publisher = fresh_clone(built, tmp_path / "publisher")
    shutil.rmtree(publisher.path / "models", ignore_errors=True)
    done = make(publisher, "release", "TAG=digits@v1.2.0")
    assert "digits 1.2.0" in done.stdout
    assert not re.search("Running stage", done.stdout + done.stderr)
    refused = make(publisher, "release", "TAG=other@v1.2.0", check=False)
    assert "is of 'other', params.yaml builds 'digits'" in refused.stderr
