"""A miniature project: the repository's files with a tiny net, built once, copied for each test."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline import files

ROOT = Path(__file__).parents[2]
TINY_NET = '''"""A net that trains in seconds."""

from torch import nn


class Tiny(nn.Module):
    def __init__(self, channels, num_classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        )
        self.head = nn.Linear(32, num_classes)

    def forward(self, inputs):
        return self.head(self.body(inputs).mean((2, 3)))


def tiny(*, input_shape, num_classes):
    return Tiny(input_shape[0], num_classes)
'''


@dataclass
class Project:
    """A clone with its own cache; every command runs in it."""

    path: Path
    ran: tuple[str, ...] = ()

    def run(self, *command, check=True, timeout=300, **environment):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.path, env=project_environment(**environment), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *arguments, **options):
        return self.run(sys.executable, "-m", "dvc", *arguments, **options)

    def slipway(self, *arguments, **options):
        return self.run(sys.executable, "-m", "pipeline.cli", *arguments, **options)

    def repro(self, *arguments, **options):
        """Run dvc repro; return the stages that ran."""
        return stages_run(self.dvc("repro", *arguments, **options))

    def edit(self, change):
        """Change params.yaml as data."""
        path = self.path / "params.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def commit(self):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "state")

    def copy(self, path):
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)

    def manifest_digests(self, *stages):
        """The digest of every manifest below models/<stage>."""
        return {
            path.relative_to(self.path).as_posix(): files.digest_file(path)
            for stage in stages
            for path in sorted((self.path / "models" / stage).rglob("manifest.json"))
        }

    def selection(self, target):
        return json.loads((self.path / "models/selected" / target / "selection.json").read_text())


def stages_run(done):
    return re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr)


def project_environment(**changes):
    environments = os.environ.get("SLIPWAY_ENVIRONMENTS", ROOT / ".venvs")
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": paths, "SLIPWAY_ENVIRONMENTS": str(environments)} | changes


def clone(path):
    """Copy what git would: tracked files and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith("tests/"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path / name)
    (path / "dvc.lock").unlink(missing_ok=True)
    project = Project(path)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "config", "user.email", "tests@example.invalid")
    project.run("git", "config", "user.name", "tests")
    return project


def make_tiny(values):
    values["data"]["preprocessing"] = [
        {"step": "scale", "factor": 0.0625}, {"step": "add_channel"}, {"step": "channels_first"},
    ]  # fmt: skip
    values["net"] = {
        "factory": "tiny_net:tiny",
        "factory_digest": files.digest_bytes(TINY_NET.encode()),
    }
    values["train"] |= {"epochs": 10, "learning_rate": 0.01}
    values["distill"]["recover"] |= {"epochs": 5, "learning_rate": 0.01}
    del values["targets"]["linux-tflite-runtime"], values["targets"]["raspberry-pi-5-tflite"]
    values["targets"]["x86-onnxruntime"]["convert"]["precisions"] = ["fp32"]
    values["targets"]["x86-litert"]["convert"]["precisions"] = ["fp32", "int8-static"]


def tiny_clone(path):
    project = clone(path)
    (path / "tiny_net.py").write_text(TINY_NET)
    project.edit(make_tiny)
    project.commit()
    return project


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """The project after its first `dvc repro`, shared by all test workers: read it, copy it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    path, ran = root / "built" / "project", root / "built" / "ran.json"
    with (root / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ran.exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            project = tiny_clone(path)
            project.slipway("check")
            stages = project.repro()
            project.commit()
            ran.write_text(json.dumps(stages))
    return Project(path, tuple(json.loads(ran.read_text())))


@pytest.fixture
def built(built_once, tmp_path):
    """A copy of the built project, to be changed at will."""
    return built_once.copy(tmp_path / "project")


@pytest.fixture
def make_clone(tmp_path):
    """Make another miniature clone, not built, at a path below tmp_path."""

    def make(name):
        (tmp_path / name).mkdir(parents=True)
        return tiny_clone(tmp_path / name)

    return make
