"""A miniature project: release directories as `register` writes them, and a dvc.lock that fits."""

import shutil
import subprocess

import pytest
import yaml

from pipeline import files, manifest, measurement
from pipeline.measurement import Drop, Interval, Latency, Measurement, Quality
from pipeline.registry import lock
from pipeline.registry.store import DirectoryStore


class TinyProject:
    """Grow it with `add` and `add_unshipped`, spoil it by hand, publish it."""

    def __init__(self, root):
        self.root = root
        self.releases = {}
        root.mkdir(parents=True)
        (root / "params.yaml").write_text("model: digits\n", encoding="utf-8")
        self.lock()

    def add(self, target, model=b"weights", name="digits", kind="measured", **measured):
        """Write a whole release directory for the target."""
        directory = self._directory(target)
        artifact = directory / "artifact"
        artifact.mkdir(parents=True)
        (artifact / "model.onnx").write_bytes(model)
        manifest.write(artifact, model=name, stage="convert", target=target, precision="fp32")
        fields = {
            "artifact": files.digest_file(artifact / "manifest.json"),
            "candidate": "dense-fp32",
            "target": target,
            "kind": kind,
            "time": "2026-11-21T07:00:00Z",
            "runtime": "onnxruntime",
            "size_bytes": len(model),
            "latency_ms": Latency(p50=0.5),
            "latency_ratio": Interval(0.25, 0.2, 0.3),
            "quality": Quality("accuracy", "higher", "%", 97.0, 360, 1.5),
            "drop": Drop(0.5, -0.25, 1.25, 360, 4),
        } | measured
        for file in ("measurement.json", "reference.json"):
            measurement.write(directory / file, Measurement(**fields))
        (directory / "golden.npz").write_bytes(b"golden")
        described = {"shipped": True, "candidate": "dense-fp32", "variant": "dense"}
        self._finish(directory, target, described | {"precision": "fp32"}, name)

    def add_unshipped(self, target, reason):
        directory = self._directory(target)
        directory.mkdir(parents=True)
        self._finish(directory, target, {"shipped": False, "reason": reason}, "digits")

    def lock(self):
        """Record what lies there, as dvc repro would."""
        stages = {
            f"register@{target}": {
                "cmd": "exec python -m stages.register",
                "params": {"params.yaml": {"model": "digits"}},
                "outs": [{"path": f"models/release/{target}", "hash": "md5", "md5": md5}],
            }
            for target, directory in self.releases.items()
            if (md5 := lock.md5(directory)) is not None
        }
        text = yaml.safe_dump({"schema": "2.0", "stages": stages})
        (self.root / "dvc.lock").write_text(text, encoding="utf-8")

    def rewrite_manifest(self, target, made_for=None):
        """Make a spoiled release directory agree with its own manifest again."""
        directory = self.releases[target]
        (directory / "manifest.json").unlink()
        manifest.write(directory, model="digits", stage="register", target=made_for or target)
        self.lock()

    def git(self, *arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(self.root), *identity, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self):
        """Commit everything but models/, and return the commit."""
        if not (self.root / ".git").exists():
            self.git("init", "-q")
        (self.root / ".gitignore").write_text("/models/\n", encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def _directory(self, target):
        self.releases[target] = self.root / "models/release" / target
        shutil.rmtree(self.releases[target], ignore_errors=True)  # dvc removes the previous outs
        return self.releases[target]

    def _finish(self, directory, target, described, name):
        (directory / "release.json").write_bytes(files.encode_json(described))
        manifest.write(directory, model=name, stage="register", target=target)
        self.lock()


@pytest.fixture
def make_project(tmp_path):
    return lambda name="project": TinyProject(tmp_path / name)


@pytest.fixture
def tiny_project(make_project):
    """Two targets that ship."""
    made = make_project()
    made.add("x86", b"weights for x86")
    made.add("pi", b"weights for pi", kind="built", latency_ms=Latency(), latency_ratio=None)
    return made


@pytest.fixture
def directory_store(tmp_path):
    return DirectoryStore(tmp_path / "registry")
