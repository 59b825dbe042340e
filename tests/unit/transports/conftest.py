import shlex
import textwrap

import pytest

from pipeline.transports import shell
from tests import bare_python

LOST = 255


class Sh(shell.Shell):
    """A device that is this machine's own sh in a home of its own; what it is told is kept."""

    def __init__(self, home, folder=".cache/slipway", python="python3", runner=None):
        super().__init__("board", folder, python, runner)
        self.home = home
        self.scripts = []
        self.before = ""  # what the shell does by itself at its start
        self.breaks = []  # after so many bytes, at the next files sent

    def line(self, script):
        self.scripts.append(script)
        if script.startswith("cat >>") and self.breaks:
            script = f"head -c {self.breaks.pop(0)} | {{ {script}; }}; exit {LOST}"
        place = f"cd {shlex.quote(str(self.home))}; HOME=$PWD; {self.before}"
        return ["sh", "-c", f"{place}\n{script}"]

    def broken(self, returncode, noise):  # noqa: ARG002 - what devices' own clients say
        return "the line broke" if returncode == LOST else None

    def num_sent(self):
        """Say how many files were sent since the last time."""
        found = sum(script.startswith("cat >>") for script in self.scripts)
        self.scripts.clear()
        return found


@pytest.fixture(autouse=True)
def own_private_folder(tmp_path, monkeypatch):
    """Locks of this test alone."""
    monkeypatch.setattr(shell, "private_folder", lambda: tmp_path)


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home of the board's user"
    folder.mkdir()
    return folder


@pytest.fixture
def board(home):
    return Sh(home)


@pytest.fixture
def make_board(home):
    return lambda **settings: Sh(home, **settings)


@pytest.fixture(scope="session")
def python_of_a_board(tmp_path_factory):
    return bare_python.make(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def client(tmp_path, home, monkeypatch):
    """Stand in for a program that reaches devices: it runs its last argument with sh in the home.

    Returned is a function that gives it another script instead, for what it may say otherwise.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def say(name, script=None):
        usual = f'for script; do :; done; cd {shlex.quote(str(home))} && exec sh -c "$script"'
        path = folder / name
        path.write_text(f"#!/bin/sh\n{textwrap.dedent(script or usual)}\n")
        path.chmod(0o755)

    return say
