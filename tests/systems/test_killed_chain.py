"""kill -9 of dvc, of the stage, of both, in the middle of a stage; then `dvc repro` ends right."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import built, built_once

__all__ = ["built", "built_once"]  # fixtures
pytestmark = pytest.mark.slow
SHARED = ("toolchain", "prepare", "train", "prune", "distill", "quantize", "export")
PER_TARGET = ("convert", "profile", "select", "certify", "register")
STAGES = (*SHARED, *(f"{stage}@x86-litert" for stage in PER_TARGET))
BRIEF = {"toolchain", "select", "register"}  # over within half a second
VICTIMS = ("dvc", "stage", "both")
CASES = [(stage, VICTIMS[index % 3]) for index, stage in enumerate(STAGES)]


def processes_in(path):
    """Every live process whose working folder is the project: {pid: command line}."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").resolve(strict=True) == path
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
        if inside and state != "Z":
            found[int(process.name)] = command
    return found


def wait_for(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    pytest.fail(f"{what} did not happen in {seconds} s")


@pytest.mark.parametrize(("stage", "victim"), CASES, ids=[f"{v} in {s}" for s, v in CASES])
def test_a_kill_leaves_no_process_and_the_next_repro_ends_right(built, stage, victim):
    expected = built.manifest_digests("trained", "distilled", "exported", "converted")
    name, _, target = stage.partition("@")
    marker = f"-m stages.{name} {target}".rstrip()
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", stage]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dvc = subprocess.Popen(command, cwd=built.path, env=os.environ | {"PATH": paths}, **quiet)

    def running():
        found = processes_in(built.path)
        return [
            pid for pid, command in found.items() if marker in command and " -c " not in command
        ]

    (pid, *_) = wait_for(running, f"{stage} starting")
    time.sleep(0.05 if name in BRIEF else 0.8)
    for victim_pid in {"dvc": [dvc.pid], "stage": [pid], "both": [dvc.pid, pid]}[victim]:
        kill(victim_pid)
    dvc.wait(timeout=120)
    wait_for(lambda: not processes_in(built.path), "the end of every process", seconds=20)

    built.repro()
    assert built.manifest_digests("trained", "distilled", "exported", "converted") == expected
    assert built.repro() == ["toolchain"]
    built.slipway("report")
    assert not processes_in(built.path)


def kill(pid):
    with suppress(ProcessLookupError):  # a short stage may have ended: the rest still holds
        os.kill(pid, signal.SIGKILL)
