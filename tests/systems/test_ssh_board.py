"""Measuring on a board by SSH: the same outputs as here, and what breaks there is one line."""

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline import files, manifest, measurement, params
from pipeline.chain import profile, toolchain
from pipeline.data import splits
from pipeline.errors import TargetError
from pipeline.profiling import measure, workers
from pipeline.profiling.bench import Preset
from pipeline.profiling.workers import ModelRefusedError
from pipeline.transports import choose, probe
from pipeline.transports.conformance.subject import TINY
from pipeline.transports.shell import BrokenLineError
from tests import bare_python
from tests.systems import measuring
from tests.systems.measuring import ENVIRONMENTS, QUICK, target_of, write_artifact

ROOT = Path(__file__).parents[2]
LONG = {**QUICK, "timed_ns": 600_000_000_000}
TINIEST = Preset(num_restarts=2, warmup_s=0.01, timed_s=0.02, min_samples=6)
ENDLESS = Preset(num_restarts=1, warmup_s=0.01, timed_s=100, min_samples=6)
LABELS = ("a", "b", "c")
STEPS = ({"step": "scale", "factor": 0.5},)
KILLED = re.compile(r"the runner was killed by SIGKILL; free memory there, and try again$")
LOST = re.compile(r"the connection was lost.*; nothing was recorded, try again$")


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "dense-fp32", steps=STEPS)


@pytest.fixture
def workspace(tmp_path):
    """The outs up to stage convert: one file, or several by the names of their candidates."""
    raw = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    labels = np.arange(30, dtype=np.int64) % len(LABELS)
    splits.write(tmp_path / "validation.npz", splits.Split(raw, labels, LABELS, STEPS))

    def make(**contents):
        contents = contents or {"dense": None}
        listed = [
            {"candidate": f"{v}-fp32", "variant": v, "precision": "fp32", "status": "built",
             "reason": None}
            for v in contents
        ]  # fmt: skip
        for variant, content in contents.items():
            write_artifact(tmp_path / f"converted/{variant}-fp32", content, STEPS)
        files.write_atomic(tmp_path / "converted/candidates.json", files.encode_json(listed))
        manifest.write(
            tmp_path / "converted", model="tiny", stage="convert", labels=LABELS,
            preprocessing=STEPS,
        )  # fmt: skip
        return tmp_path

    return make


def params_with(**targets):
    return msgspec.structs.replace(params.load(ROOT / "params.yaml"), targets=targets)


def run_stages(root, p, *, preset=TINIEST, name="board"):
    """Run stages toolchain and profile, as dvc does."""
    toolchain.run(root / "toolchain", p, ENVIRONMENTS, root / "known")
    described = root / "toolchain" / name
    profile.run(
        root / "converted", root / "validation.npz", described / "tools.json",
        described / "device.json", root / "profiled", p, name, preset=preset,
        environments=ENVIRONMENTS,
    )  # fmt: skip
    return {
        path.parent.name: measurement.read(path)
        for path in (root / "profiled").glob("*/measurement.json")
    }


def latency(board, artifact, inputs, **request):
    job = workers.job_of(artifact, inputs, target_of(board.connection()))
    return workers.call(job, "latency", **{"plan": QUICK, **request})


class TestMeasuring:
    def test_a_profile_of_the_board_has_the_outputs_of_here(self, board, workspace):
        here = workspace()
        there = run_stages(here, params_with(board=target_of(board.connection())))["dense-fp32"]
        assert (there.kind, there.target) == ("measured", "board")
        assert there.latency_ms.p50 > 0
        assert there.quality.n == 30
        on_board = (here / "profiled/dense-fp32/outputs.npz").read_bytes()
        (here / "profiled").rename(here / "of the board")
        (here / "toolchain").rename(here / "tools of the board")
        local = params_with(board=target_of(environment="device-tflite"))
        run_stages(here, local)
        assert (here / "profiled/dense-fp32/outputs.npz").read_bytes() == on_board

    def test_candidates_take_turns_there_on_one_core(self, board, workspace):
        root = workspace(dense=None, pruned=None)
        found = run_stages(root, params_with(board=target_of(board.connection())))
        assert {m.kind for m in found.values()} == {"measured"}
        cores = [
            tuple(each["host_before"]["affinity"])
            for m in found.values() for each in m.host["restarts"]
        ]  # fmt: skip
        assert {len(core) for core in cores} == {1}
        assert cores[:2] == cores[2:]  # a round's are the same
        ratio = found["pruned-fp32"].latency_ratio
        assert ratio.lower < ratio.value < ratio.upper

    def test_a_runner_of_ones_own_is_measured_with(self, board, workspace):
        program = board.home / "other"
        source = ROOT / "tests/systems/other_runner.py"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {source} "$@"\n')
        program.chmod(0o755)
        target = target_of(board.connection(runner="./other"), runtime="onnxruntime")
        root = workspace(dense=TINY / "dense.onnx")
        found = run_stages(root, params_with(board=target))["dense-fp32"]
        assert (found.kind, found.quality.n) == ("measured", 30)
        assert found.latency_ms.p50 > 0
        described = json.loads((root / "toolchain/board/device.json").read_text())
        assert described["runner"] == "other 1.0"
        assert not list(board.folder.glob("files/*/*.pyz")), "ours was not asked for"

    def test_nothing_but_the_files_stays(self, board, artifact, inputs):
        latency(board, artifact, inputs)
        assert {path.name for path in board.folder.iterdir()} == {"files", "runs", "lock"}
        assert list((board.folder / "runs").iterdir()) == []
        names = {path.name for path in board.folder.glob("files/*/*")}
        assert names == {"slipway-runner.pyz", "model.tflite", "inputs.npz"}
        assert measuring.none_in(board.home)

    def test_a_second_measurement_waits_for_the_first(self, board, artifact, inputs):
        plan = {**QUICK, "timed_ns": 1_000_000_000}
        job = workers.job_of(artifact, inputs, target_of(board.connection()))
        with (
            workers.started(job, "latency", plan=plan) as first,
            workers.started(job, "latency", plan=QUICK) as second,
            ThreadPoolExecutor(2) as pool,
        ):
            first.wait()
            second.wait()
            slow = pool.submit(first.result)
            measuring.runner_that_holds(board.folder / "lock")
            pool.submit(second.result).result()
            assert slow.done(), "the second one did not wait"

    def test_no_secret_is_on_a_command_line(self, board, artifact, inputs):
        secret = board.identity.read_text().splitlines()[1]
        job = workers.job_of(artifact, inputs, target_of(board.connection()))
        with workers.started(job, "latency", plan=QUICK) as worker:
            worker.wait()
            lines = [
                path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
                if os.access(path, os.R_OK)
            ]  # fmt: skip
            ours = [line for line in lines if line.startswith(b"ssh\0") and b"runner.pyz" in line]
        assert ours, "no ssh was seen"
        assert not [line for line in lines if secret.encode() in line]
        assert b"BatchMode=yes" in ours[0]


class TestBoardSays:
    """What is permanent is recorded with its reason."""

    def test_an_operator_that_it_lacks_is_recorded(self, board, workspace):
        root = workspace(dense=None, pruned=(TINY / "unknown.tflite").read_bytes())
        found = run_stages(root, params_with(board=target_of(board.connection())))
        assert found["dense-fp32"].kind == "measured"
        assert found["pruned-fp32"].kind == "not_measured"
        assert "Encountered unresolved custom op: Nonsense" in found["pruned-fp32"].reason

    def test_a_malformed_file_is_recorded(self, board, workspace):
        root = workspace(dense=None, pruned=b"this is no model" * 20)
        found = run_stages(root, params_with(board=target_of(board.connection())))
        assert found["pruned-fp32"].kind == "not_measured"
        assert "tflite_runtime 2.14.0 refuses the model" in found["pruned-fp32"].reason
        assert ".cache" not in found["pruned-fp32"].reason

    def test_a_runtime_that_it_lacks_is_recorded(self, board, workspace, tmp_path):
        other = board.connection(python=str(bare_python.make(tmp_path / "bare")))
        found = run_stages(workspace(), params_with(board=target_of(other)))
        assert found["dense-fp32"].kind == "not_measured"
        assert found["dense-fp32"].reason == (
            "tflite-runtime is absent on the device; install it there"
        )

    def test_a_program_of_another_machine_does_not_run(self, board, artifact, inputs):
        foreign = ENVIRONMENTS / "emulated-aarch64/root/usr/bin/python3.11"
        if not foreign.is_file():
            pytest.skip("environment emulated-aarch64 is absent; run scripts/setup --all")
        connection = board.connection(runner=str(foreign))
        with pytest.raises(TargetError, match=r"python3.11 does not run there \(\d+\)") as caught:
            probe.ask(connection)
        assert str(caught.value).isprintable()
        with pytest.raises(TargetError, match=r"does not run there .*install it for this device"):
            measure.outputs(artifact, inputs, target_of(connection))


class TestBreaks:
    """What may pass is one line, and nothing is recorded."""

    def broken(self, board, root, action):
        """Profile without an end, do something to the runner, and return the error."""
        p = params_with(board=target_of(board.connection()))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_stages, root, p, preset=ENDLESS)
            action(measuring.runner_that_holds(board.folder / "lock"))
            with pytest.raises(TargetError) as caught:
                running.result(timeout=measuring.LIMIT_S)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, ModelRefusedError)
        assert not (root / "profiled").exists()
        return str(caught.value)

    def clean(self, board):
        assert measuring.none_in(board.home), measuring.processes_in(board.home)
        return list((board.folder / "runs").iterdir()) == []

    def test_a_killed_runner(self, board, workspace):
        assert KILLED.search(self.broken(board, workspace(), measuring.kill))
        assert self.clean(board)

    def test_a_dropped_connection(self, board, workspace):
        assert LOST.search(self.broken(board, workspace(), lambda _: board.drop()))
        assert self.clean(board), "a runner that nobody hears must end"

    def test_a_board_switched_off(self, board, workspace, artifact, inputs):
        assert LOST.search(self.broken(board, workspace(), lambda _: board.stop()))
        with pytest.raises(TargetError, match=r"nothing listens on its port; is sshd running"):
            latency(board, artifact, inputs)
        board.start()
        latency(board, artifact, inputs)  # what was left behind is in nobody's way
        assert measuring.none_in(board.home)

    def test_a_worker_that_is_given_up(self, board, artifact, inputs):
        with pytest.raises(TargetError, match=r"took longer than 5 s and was killed"):
            latency(board, artifact, inputs, plan=LONG, time_limit_s=5)
        assert self.clean(board)


class TestFiles:
    def test_a_line_that_breaks_once_is_taken_up_again(self, board, large_file):
        with board.narrow(1_000_000) as port:
            folder = choose.to(board.connection(port=port)).place({large_file.name: large_file})
        assert (board.home / folder / large_file.name).read_bytes() == large_file.read_bytes()

    def test_the_next_call_goes_on_where_this_one_stopped(self, board, large_file):
        had = 0
        while had < 500_000:  # what sshd holds when its line breaks is lost
            with (
                board.narrow(800_000, times=3) as port,
                pytest.raises(BrokenLineError, match="the connection was lost"),
            ):
                choose.to(board.connection(port=port)).place({large_file.name: large_file})
            (part,) = board.folder.glob("files/*/*.part")
            had = part.stat().st_size
        # a way that breaks, again and again, before the whole file could pass
        with board.narrow(large_file.stat().st_size - had + 100_000, times=99) as port:
            folder = choose.to(board.connection(port=port)).place({large_file.name: large_file})
        assert (board.home / folder / large_file.name).read_bytes() == large_file.read_bytes()

    def test_a_disk_without_room_for_a_file(
        self, board, small_folder, artifact, inputs, large_file
    ):
        with small_folder(board.home / "small", 256 * 1024):
            transport = choose.to(board.connection(folder="small/slipway"))
            words = r"model.tflite \(3000000 bytes\) cannot be written .*No space left.*free some"
            with pytest.raises(TargetError, match=words) as caught:
                transport.place({large_file.name: large_file})
            assert "\n" not in str(caught.value)
            measure.outputs(artifact, inputs, target_of(board.connection(folder="small/slipway")))

    def test_a_disk_without_room_for_outputs(self, board, small_folder, artifact, tmp_path):
        many = tmp_path / "inputs.npz"
        np.savez(many, inputs=np.ones((20_000, 2), np.float32))
        with small_folder(board.home / "small", 400 * 1024):
            target = target_of(board.connection(folder="small/slipway"))
            with pytest.raises(TargetError, match=r"outputs of .*No space left on device") as e:
                measure.outputs(artifact, many, target)
        assert not isinstance(e.value, ModelRefusedError)
        assert "\n" not in str(e.value)


class TestReaching:
    def test_a_host_key_that_is_not_known_is_refused(self, board, tmp_path):
        unknown = tmp_path / "known_hosts"
        unknown.write_text("")
        measuring.assert_not_reached(
            board.connection(known_hosts=str(unknown)), "its host key is not known"
        )

    def test_another_host_key_is_refused(self, board):
        board.known_hosts.write_text((board.settings / "identity.pub").read_text())
        measuring.assert_not_reached(
            board.connection(), "its host key is not known, or not the known one"
        )

    def test_a_key_that_does_not_open_it(self, board, tmp_path):
        other = tmp_path / "other"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
        subprocess.run(command, check=True)
        measuring.assert_not_reached(board.connection(identity=str(other)), "no key opens it")

    def test_a_key_that_needs_a_word_is_not_asked_for(self, board, tmp_path):
        other = tmp_path / "other"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(other)]
        subprocess.run(command, check=True)
        measuring.assert_not_reached(board.connection(identity=str(other)), "no key opens it")

    def test_nobody_listens(self, board):
        board.stop()
        measuring.assert_not_reached(board.connection(), "nothing listens on its port")

    def test_a_name_that_nobody_knows(self, board):
        measuring.assert_not_reached(
            board.connection(host="nonesuch.invalid"), "its name is not known; correct"
        )

    def test_an_interpreter_that_is_not_there(self, board):
        measuring.assert_not_reached(
            board.connection(python="python9"), r"python9 with numpy does not run there"
        )

    def test_a_port_that_says_nothing(self, board):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            connection = board.connection(port=silent.getsockname()[1])
            measuring.assert_not_reached(connection, "the connection was lost .*timed out")


def test_one_board_gone_does_not_hold_up_the_other(board, workspace, capsys):
    root = workspace()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone = board.connection(port=silent.getsockname()[1])
        p = params_with(gone=target_of(gone), board=target_of(board.connection()))
        found = run_stages(root, p)
    assert found["dense-fp32"].kind == "measured"
    tools = {
        name: json.loads((root / "toolchain" / name / "tools.json").read_text())["tflite-runtime"]
        for name in ("gone", "board")
    }
    assert tools == {"gone": "unreachable", "board": "2.14.0"}
    described = json.loads((root / "toolchain/gone/device.json").read_text())
    assert described["unreachable"] is True
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "gone:" in line]
    assert "the connection was lost" in said
