"""Measuring on a device by adb: the same outputs as here, and what breaks there is one line."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import TargetError
from pipeline.profiling import measure, workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.transports import choose, probe
from pipeline.transports.conformance.subject import TINY
from pipeline.transports.shell import BrokenLineError
from tests.systems import measuring
from tests.systems.measuring import ENVIRONMENTS, QUICK, target_of, write_artifact

LONG = {**QUICK, "timed_ns": 100_000_000_000}
LOST = re.compile(r"the connection was lost; nothing was recorded, try again$")
KILLED = re.compile(r"the runner was killed by SIGKILL; free memory there, and try again$")


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "dense-fp32")


def test_outputs_of_the_device_are_those_of_here(android, artifact, inputs):
    there = measure.outputs(artifact, inputs, target_of(android.connection()))
    here = measure.outputs(artifact, inputs, target_of(environment="device-tflite"), ENVIRONMENTS)
    assert there.tobytes() == here.tobytes()
    assert list((android.folder / "slipway/runs").iterdir()) == []


def test_the_device_describes_itself(android):
    found = probe.ask(android.connection())
    assert list(found.runtimes) == ["tflite_runtime"]
    assert found.device["num_cores"] >= 1


def test_an_operator_that_it_lacks_is_a_refusal(android, tmp_path, inputs):
    odd = write_artifact(tmp_path / "odd-fp32", (TINY / "unknown.tflite").read_bytes())
    with pytest.raises(ModelRefusedError, match=r"odd-fp32/model.tflite .*custom op: Nonsense"):
        measure.outputs(odd, inputs, target_of(android.connection()))


def test_a_program_of_another_machine_does_not_run(android):
    foreign = ENVIRONMENTS / "emulated-aarch64/root/usr/bin/python3.11"
    if not foreign.is_file():
        pytest.skip("environment emulated-aarch64 is absent; run scripts/setup --all")
    with pytest.raises(TargetError, match=r"python3.11 does not run there \(\d+\)") as caught:
        probe.ask(android.connection(runner=str(foreign)))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("action", "words"),
    [(lambda _, runner: measuring.kill(runner), KILLED), (lambda device, _: device.drop(), LOST)],
    ids=["killed", "unplugged"],
)
def test_a_runner_that_ends_before_its_reply_is_one_line(android, artifact, inputs, action, words):
    job = workers.job_of(artifact, inputs, target_of(android.connection()))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(workers.call, job, "latency", plan=LONG)
        action(android, measuring.runner_that_holds(android.folder / "slipway/lock"))
        with pytest.raises(TargetError, match=words) as caught:
            running.result(timeout=measuring.LIMIT_S)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ModelRefusedError)
    assert measuring.none_in(android.folder), "a runner that nobody hears must end"
    android.connect()
    workers.call(job, "latency", plan=QUICK)


def test_the_next_call_goes_on_where_this_one_stopped(android, large_file):
    with android.narrow(300_000, times=3) as port:
        connection = android.connection(serial=android.connect(port))
        with pytest.raises(BrokenLineError):
            choose.to(connection).place({large_file.name: large_file})
    (part,) = (android.folder / "slipway").glob("files/*/*.part")
    had = part.stat().st_size
    assert had > 0
    with android.narrow(large_file.stat().st_size - had + 50_000, times=99) as port:
        connection = android.connection(serial=android.connect(port))
        folder = choose.to(connection).place({large_file.name: large_file})
    assert (android.folder / folder / large_file.name).read_bytes() == large_file.read_bytes()


def test_a_device_without_room_is_one_line(android, small_folder, large_file):
    with small_folder(android.folder / "small", 256 * 1024) as folder:
        transport = choose.to(android.connection(folder=str(folder / "slipway")))
        words = r"model.tflite \(3000000 bytes\) cannot be written .*No space left.*free some"
        with pytest.raises(TargetError, match=words) as caught:
            transport.place({large_file.name: large_file})
        assert "\n" not in str(caught.value)


class TestReaching:
    def test_a_serial_that_adb_does_not_know(self, android):
        connection = android.connection(serial="emulator-5554")
        measuring.assert_not_reached(connection, "adb knows no such device; `adb")

    def test_a_device_switched_off(self, android):
        android.stop()
        measuring.assert_not_reached(android.connection(), "adb knows no such device|it is offline")

    def test_an_interpreter_that_is_not_there(self, android):
        connection = android.connection(python="python9")
        words = r"python9 with numpy does not run there \(127\)"
        measuring.assert_not_reached(connection, words)
