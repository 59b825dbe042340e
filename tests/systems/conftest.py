"""Real parts beside this machine: another instruction set, a board by SSH, a device by adb."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.systems import android as androids
from tests.systems import board as boards
from tests.systems import storage

ROOT = Path(__file__).parents[2]
EMULATED = ROOT / ".venvs/emulated-aarch64"


@pytest.fixture(scope="session")
def emulated_environments(tmp_path_factory):
    """A folder with the environment emulated-aarch64, and in it this working tree for its wheel."""
    if not (EMULATED / "bin/python").is_file():
        pytest.skip("environment emulated-aarch64 is absent; run scripts/setup --all")
    environments = tmp_path_factory.mktemp("environments")
    folder = environments / EMULATED.name
    shutil.copytree(EMULATED / "bin", folder / "bin")
    (folder / "root").symlink_to(EMULATED / "root")
    packages = folder / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    for path in (EMULATED / "lib/python3.11/site-packages").iterdir():
        source = ROOT / "pipeline" if path.name == "pipeline" else path
        (packages / path.name).symlink_to(source)
    return environments


@pytest.fixture
def inputs(tmp_path):
    """200 samples of the tiny models."""
    path = tmp_path / "inputs.npz"
    np.savez(path, inputs=np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32))
    return path


@pytest.fixture
def large_file(tmp_path):
    """A file whose way takes a while."""
    path = tmp_path / "model.tflite"
    path.write_bytes(np.random.default_rng(0).bytes(3_000_000))
    return path


@pytest.fixture
def emulated_python(emulated_environments):
    return emulated_environments / EMULATED.name / "bin/python"


@pytest.fixture
def board(tmp_path_factory):
    """A board on loopback, as `board.Board` describes it."""
    if (reason := boards.missing()) is not None:
        pytest.skip(reason)
    with boards.running(tmp_path_factory.mktemp("board")) as running:
        yield running


@pytest.fixture
def small_folder():
    """Make a folder that gets full, as `storage.small` does."""
    if os.getuid() != 0:
        pytest.skip("a folder that gets full is a mount of its own, which needs root")
    return storage.small


@pytest.fixture
def android(tmp_path_factory, monkeypatch):
    """A device that adb knows, as `android.Device` describes it; plain adb finds it, too."""
    if (reason := androids.missing()) is not None:
        pytest.skip(reason)
    with androids.running(tmp_path_factory.mktemp("android")) as running:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(running.server_port))
        yield running
