"""The tests see what they are for: each mutant of tests/mutants.yaml makes its test fail."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MUTANTS = yaml.safe_load((ROOT / "tests/mutants.yaml").read_text(encoding="utf-8"))
NODES = sorted({mutant["test"] for mutant in MUTANTS})
IMPORTED = "imported.txt"
# The copy's conftest notes which files its tests imported: this repository is installed as well.
NOTE_IMPORTED = f'''
import sys
from pathlib import Path


def pytest_unconfigure():
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] in ("pipeline", "stages")]
    found = [module.__file__ for module in modules if getattr(module, "__file__", None)]
    Path("{IMPORTED}").write_text("\\n".join(found), encoding="utf-8")
'''
# How a test fails that judged: by its own assertion, or by our error where another was due. A
# mutant that merely crashes (NameError) proves nothing.
JUDGED = ("assert ", "AssertionError", "Failed: ", "pipeline.errors.")


@pytest.fixture
def repository(tmp_path):
    """Copy what git would, tests included: tracked files and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    copy = tmp_path / "repository"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / "conftest.py").write_text(NOTE_IMPORTED, encoding="utf-8")
    return copy


def run_tests(repository, nodes):
    """Run pytest in the copy; return it with the files of ours that it imported."""
    # no plugin of a test asked for is needed, and loading all takes longer than most tests
    quiet = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "1000"}
    options = ["-q", "-rfEp", "-p", "no:cacheprovider", f"--basetemp={repository.parent / 'tmp'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *nodes],
        cwd=repository, env=os.environ | quiet, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    noted = repository / IMPORTED
    imported = noted.read_text(encoding="utf-8").splitlines() if noted.is_file() else []
    assert imported, f"{done.stdout}\n{done.stderr}"
    outside = [name for name in imported if not Path(name).is_relative_to(repository)]
    assert not outside, "the tests ran against another copy"
    return done, {Path(name).relative_to(repository).as_posix() for name in imported}


def test_the_named_tests_pass_without_a_mutant(repository):
    done, _ = run_tests(repository, NODES)
    assert done.returncode == 0, done.stdout
    assert sorted(re.findall(r"^PASSED (.+)$", done.stdout, re.MULTILINE)) == NODES


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["name"] for mutant in MUTANTS])
def test_a_mutant_is_caught(repository, mutant):
    path, node = repository / mutant["file"], mutant["test"]
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant["old"]) == 1, "old must name one place"
    path.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    done, imported = run_tests(repository, [node])
    assert done.returncode == 1, f"{node} does not see it\n{done.stdout}\n{done.stderr}"
    (reason,) = re.findall(rf"^FAILED {re.escape(node)} - (.+)$", done.stdout, re.MULTILINE)
    assert reason.startswith(JUDGED), done.stdout
    # the test of the structure reads files as text
    assert mutant["file"] in imported or node.startswith("tests/unit/test_structure.py")
