"""One timing at a time, whoever asks for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtimes import device_lock
from pipeline.runtimes.device_lock import BusyError

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pipeline.runtimes import device_lock
with device_lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def lock(tmp_path):
    return str(tmp_path / "lock")


@pytest.fixture
def holder(lock):
    """Another process, which holds the lock until it reads a line."""
    command = [sys.executable, "-c", HOLDER, lock]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_waits_until_it_is_given_back(lock, holder):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as second:  # fmt: skip
        with pytest.raises(BusyError):  # the second, too, has had its time to take it
            enter(lock, 0.5)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert second.stdout.readline() == "held\n"
        second.communicate("\n")
    assert second.returncode == 0


def test_a_holder_that_is_killed_gives_it_back(lock, holder):
    with pytest.raises(BusyError):
        enter(lock, 0)
    holder.kill()
    holder.wait()
    enter(lock, 0)


def test_an_error_within_gives_it_back(lock):
    def fail():
        with device_lock.held(lock):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    enter(lock, 0)


def test_who_waits_too_long_is_told_in_one_line(lock):
    with device_lock.held(lock), pytest.raises(BusyError) as caught:
        enter(lock, 0.1)
    assert str(caught.value) == (
        "the device is busy with another measurement for over 0.1 s; try again later"
    )


def test_no_lock_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with device_lock.held(None):
        enter(None, 0)
    assert list(tmp_path.iterdir()) == []


def enter(lock, wait_s):
    with device_lock.held(lock, wait_s):
        pass
