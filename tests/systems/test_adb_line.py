"""A line to an Android device that breaks: adb itself may call that a success."""

import os
import re
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.profiling import workers
from pipeline.transports import probe
from pipeline.transports.adb import Adb
from pipeline.transports.conformance.subject import TINY
from pipeline.transports.shell import BrokenLineError

SIZE = 3_000_000
LOST = r"the connection was lost; nothing was recorded, try again"
PLAN = {"warmup_ns": 0, "timed_ns": 600_000_000_000, "min_samples": 4}


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def job(android, tmp_path):
    """A tiny model, on the device."""
    target = params.Target(
        converter="to_litert", runtime="tflite_runtime", connection=android.connection(),
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(), select=params.Select(),
    )  # fmt: skip
    artifact, inputs = tmp_path / "dense-fp32", tmp_path / "inputs.npz"
    artifact.mkdir()
    shutil.copy(TINY / "dense.tflite", artifact / "model.tflite")
    manifest.write(artifact, model="tiny", stage="convert")
    np.savez(inputs, inputs=np.ones((20, 2), np.float32))
    return workers.job_of(artifact, inputs, target)


def cut_when(android, path):
    """Pull the cable as soon as there is such a file on the device."""

    def watch():
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        android.drop()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


CODES = {
    "true": 0,
    "exit 3": 3,
    "( exit 255 )": 255,
    "sh -c 'kill -9 $$'": 137,
    "echo slipway-ended": 0,
}


@pytest.mark.parametrize(("script", "code"), CODES.items(), ids=CODES)
def test_a_script_ends_with_its_own_code(script, code, android):
    done = Adb(android.connection())._run(script)
    assert (done.returncode, done.stderr.strip()) == (code, "Killed" if code == 137 else "")


def test_what_a_script_says_is_all_that_is_heard(android):
    done = Adb(android.connection())._run("echo out; printf oops >&2; exit 1")
    assert (done.stdout, done.stderr.strip()) == ("out\n", "oops")
    with pytest.raises(TargetError, match=r": oops \(in "):
        Adb(android.connection()).sh("printf oops >&2; exit 1")


def test_a_command_that_is_cut_is_no_success(android):
    cutting = cut_when(android, android.folder / "there")
    with pytest.raises(BrokenLineError, match=LOST):
        Adb(android.connection()).sh("echo here; touch there; sleep 100")
    cutting.join()


def test_a_file_that_is_cut_is_not_fetched(android, content, tmp_path):
    """Its first part arrives, and adb may end with code 0."""
    slow = f"{{ head -c 1000 {content}; touch there; sleep 100; }}"
    transport = Adb(android.connection())
    cutting = cut_when(android, android.folder / "there")
    with pytest.raises(BrokenLineError, match=LOST), (tmp_path / "got").open("wb") as file:
        transport._run(slow, stdout=file)
    cutting.join()
    android.connect()
    transport.fetch(str(content), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content.read_bytes()


@pytest.mark.parametrize("num_cuts", [1, 2])
def test_an_upload_goes_on_after_a_cut_without_anybody_reconnecting(
    num_cuts, android, content, monkeypatch
):
    with android.narrow(SIZE // 3, times=num_cuts) as port:
        serial = android.connect(port)
        transport = Adb(android.connection(serial=serial))
        sent, run = [], transport._run

        def listed(*words, **streams):
            sent.append(streams)
            return run(*words, **streams)

        monkeypatch.setattr(transport, "_run", listed)
        folder = transport.place({content.name: content})
    assert (android.folder / folder / content.name).read_bytes() == content.read_bytes()
    assert sum("stdin" in each for each in sent) == 1 + num_cuts


def test_more_cuts_than_tries_are_one_line(android, content):
    with android.narrow(SIZE // 10, times=3) as port:
        serial = android.connect(port)
        with pytest.raises(BrokenLineError, match=LOST):
            Adb(android.connection(serial=serial)).place({content.name: content})


def test_a_device_that_adb_was_never_told_of_is_connected_to(android):
    command = ["adb", "disconnect", android.serial]
    subprocess.run(command, capture_output=True, check=True)
    assert probe.ask(android.connection()).runtimes["tflite_runtime"]


def test_a_device_that_is_offline_is_connected_to_again(android):
    """A script that did not begin is begun again; one that may have done something is not."""
    transport = Adb(android.connection())
    android.drop()
    assert transport.sh("echo again >> said; cat said") == "again\n"


def test_a_device_that_answers_is_not_disconnected(android):
    with subprocess.Popen(
        android.adb("shell", "echo here; cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"here\n"
        assert Adb(android.connection()).mended("error: device offline")
        assert other.communicate(b"still\n")[0] == b"still\n"


LEFT_ALONE = {
    "at the end of a cable": ("R58M12345", "error: device offline"),
    "that must be allowed first": ("127.0.0.1:5555", "error: device unauthorized."),
    "whose script fell silent": ("127.0.0.1:5555", ""),
}


@pytest.mark.parametrize(("serial", "noise"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_alone_is_a_device(serial, noise, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no adb
    assert not Adb(params.Adb(serial=serial)).mended(noise)


def test_a_device_that_is_off_is_one_line_soon(android):
    android.stop()
    started = time.monotonic()
    with pytest.raises(TargetError, match=r"it is offline|adb knows no such device"):
        probe.ask(android.connection())
    assert time.monotonic() - started < 20


def test_a_runner_that_is_cut_records_nothing(android, job):
    """It is timing, holds the lock, and dies of the broken line; adb's code is no reply."""
    lock = android.folder / "slipway/lock"
    cutting = cut_when(android, lock)
    with pytest.raises(TargetError, match=LOST) as raised:
        workers.call(job, "latency", plan=PLAN)
    assert re.match(r"latency of dense-fp32/model.tflite on tflite_runtime: ", str(raised.value))
    cutting.join()
