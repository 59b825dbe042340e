"""The house holds itself: files, imports, deps, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

from pipeline import params

ROOT = Path(__file__).parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STAGES = {name: entry.get("do", entry) for name, entry in DVC.items()}
SOURCES = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]
# Params are tracked by section; errors and the console are words: none changes what a stage writes.
EXCEPTED = {"pipeline.console", "pipeline.errors", "pipeline.params"}
EXCEPTED |= {"pipeline.compatibility", "pipeline.rules", "pipeline.strict_yaml"}
EXCEPTED |= {"pipeline.target_rules"}
EXCEPTED |= {"pipeline.target_rules"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("pipeline", "stages", cache_dir=None)


def module_path(module):
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def holds_code(module):
    """Tell whether there is more than a docstring."""
    body = ast.parse(module_path(module).read_text(encoding="utf-8")).body
    return len(body) > bool(ast.get_docstring(ast.Module(body, [])))


def dispatched(name):
    """The modules that params.yaml chooses and a stage imports by name."""
    tables = {
        "convert": ("pipeline.conversion", params.Converter),
        "profile": ("pipeline.runtimes", params.Runtime),
        "certify": ("pipeline.runtimes", params.Runtime),
    }
    room, literal = tables.get(name, ("", None))
    return {f"{room}.{member}" for member in getattr(literal, "__args__", ())}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_modules_it_imports(graph, name):
    chosen = dispatched(name)
    roots = {f"stages.{name}"} | chosen
    closure = roots.union(*(graph.find_upstream_modules(module) for module in roots))
    wanted = {
        module_path(module).relative_to(ROOT).as_posix()
        for module in closure - EXCEPTED - chosen
        if holds_code(module)
    }
    deps = STAGES[name].get("deps", [])
    listed = {dep for dep in deps if dep.endswith(".py") and "${" not in dep}
    assert listed == wanted
    assert bool(chosen) == any("${item" in dep for dep in deps)


def test_stages_files_and_entries_are_one_to_one():
    files = {path.stem for path in ROOT.glob("stages/*.py")} - {"__init__"}
    assert files == STAGES.keys()
    for name, stage in STAGES.items():
        assert stage["cmd"].startswith(f"exec python -m stages.{name}")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_runs_as_a_module(name):
    code = f"import sys; sys.argv[1:] = ['a', 'b']; import stages.{name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


def producers():
    return {out: name for name, stage in STAGES.items() for out in stage.get("outs", [])}


def test_the_test_split_is_reached_by_certify_alone_and_by_no_choice():
    """Walk dvc.yaml: who reads the test split, and what is made of what they write."""
    readers = {n for n, s in STAGES.items() if any("test.npz" in dep for dep in s.get("deps", []))}
    assert readers == {"certify"}
    whole = {n for n, s in STAGES.items() if {"models/data", "models"} & set(s.get("deps", []))}
    assert not whole, "a dep on the whole data folder would reach the test split"
    reached, frontier = set(), {"certify"}
    while frontier:
        outs = {out for name in frontier for out in STAGES[name]["outs"]}
        frontier = {n for n, s in STAGES.items() if outs & set(s.get("deps", []))} - reached
        reached |= frontier
    assert reached == {"register"}
    for name in STAGES.keys() - {"prepare", "certify"}:
        assert "test.npz" not in (ROOT / f"pipeline/chain/{name}.py").read_text(encoding="utf-8")


def test_no_stage_depends_on_a_parent_of_per_target_outs():
    parents = {str(Path(out).parent) for out in producers() if "${key}" in out}
    for name, stage in STAGES.items():
        assert not parents & set(stage.get("deps", [])), name


FORBIDDEN = {
    "pickle": re.compile(r"\bpickle\.(load|loads|Unpickler)\b|\bjoblib\.load\b"),
    "weights_only off": re.compile(r"weights_only\s*=\s*False"),
    "torch.load without weights_only": re.compile(r"torch\.load\((?!.*weights_only=True)"),
    "allow_pickle": re.compile(r"allow_pickle\s*=\s*True"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_scan_finds_no(what):
    pattern = FORBIDDEN[what]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_no_module_is_ever_saved_whole():
    """torch.save pickles; weights are safetensors."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"torch.save", "pickle.dump", "pickle.dumps"}


def test_no_function_over_80_lines_no_module_over_500():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize(
    "module",
    [
        "manifest",
        "measurement",
        "targets.tools",
        "targets.device",
        "targets.hardware",
        "runtimes.runner",
        "device.run",
        "device.build",
    ],
)
def test_what_devices_import_is_light(module):
    code = f"import sys, pipeline.{module}; print(*{{'torch', 'dvc', 'onnx'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == ""


ON_BOARDS = [*ROOT.glob("pipeline/runtimes/*.py"), ROOT / "pipeline/preprocessing.py"]


@pytest.mark.parametrize("path", ON_BOARDS)
def test_what_boards_run_is_python_3_8(path):
    assert ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8)).body


def test_imports_point_downward():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
