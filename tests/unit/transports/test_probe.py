"""What devices say of themselves, and what is remembered of it."""

import json
import shutil

import msgspec
import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.runtimes import machine
from pipeline.targets import device
from pipeline.transports import probe

REFUSED = "ssh: connect to host board port 22: Connection refused"
DEVICE = {
    "arch": "aarch64", "cpu_model": "Pi", "isa_flags": ["neon"], "num_cores": 4,
    "accelerator": "none",
}  # fmt: skip
REPLY = {"protocol": 1, "runner": "mine 1", "device": DEVICE, "runtimes": {"litert": "2"}}
LOCAL = params.Target(
    converter="to_litert",
    runtime="litert",
    convert=params.Convert(precisions=("fp32",)),
    profile=params.Profile(),
    select=params.Select(),
)


@pytest.fixture
def connection(client, python_of_a_board):
    """A board with our own runner, for now; `says` gives it another one."""
    client("ssh")
    return params.Ssh(host="board", python=str(python_of_a_board))


@pytest.fixture
def says(client, home):
    """Give the board a runner that prints a text and exits so; its connection is returned."""

    def make(text, returncode=0):
        client("ssh")
        (home / "reply").write_text(text)
        program = home / "runner"
        program.write_text(f"#!/bin/sh\necho noise\ncat {str(home)!r}/reply\nexit {returncode}\n")
        program.chmod(0o755)
        return params.Ssh(host="board", runner="./runner")

    return make


def target(connection):
    return msgspec.structs.replace(LOCAL, connection=connection)


class TestAsk:
    def test_a_board_describes_itself_as_this_machine_does(self, connection):
        found = probe.ask(connection)
        here = machine.describe()
        assert found.device == {**here, "fingerprint": device.fingerprint(here)}
        assert list(found.runtimes) == ["onnxruntime"]
        assert found.unreachable is None

    def test_figures_of_another_runner_are_not_those_of_ours(self, says):
        found = probe.ask(says(json.dumps(REPLY)))
        described = {**DEVICE, "runner": "mine 1"}
        assert found.device == {**described, "fingerprint": device.fingerprint(described)}
        assert found.runtimes == {"litert": "2"}

    @pytest.mark.parametrize(
        ("text", "returncode", "words"),
        [
            ("hello", 0, r"^board: the runner's reply to describe is not as .*got `null`"),
            ('{"protocol": 1}', 0, r"missing required field `runner`"),
            (json.dumps({**REPLY, "protocol": 2}), 0, "speaks protocol 2, this slipway 1"),
            ("", 1, r"^board: ./runner does not run there \(1\): no message; install it"),
            ("", 139, "the runner was killed by SIGSEGV"),
            ('{"protocol": 1, "error": "no /proc here"}', 1, "^board: no /proc here$"),
        ],
    )
    def test_what_is_no_description_is_one_line(self, says, text, returncode, words):
        with pytest.raises(TargetError, match=words):
            probe.ask(says(text, returncode))

    def test_a_runner_that_hangs_is_given_up(self, says, home, monkeypatch):
        cfg = says("")
        (home / "runner").write_text("#!/bin/sh\nexec sleep 60\n")
        monkeypatch.setattr(probe, "TIME_LIMIT_S", 0.3)
        with pytest.raises(TargetError, match=r"does not describe itself within 0.3 s"):
            probe.ask(cfg)

    def test_a_board_that_does_not_answer_is_asked_for_a_second(self, client, connection, home):
        client("ssh", f'echo "$@" > {str(home)!r}/asked; echo {REFUSED!r} >&2; exit 255')
        with pytest.raises(TargetError, match=r"^board: nothing listens on its port"):
            probe.ask(connection)
        assert "ConnectTimeout=1 " in (home / "asked").read_text()


class TestRemembered:
    @pytest.fixture
    def known(self, tmp_path):
        return tmp_path / "known/devices/pi.json"

    @pytest.fixture
    def go_away(self, client):
        return lambda: client("ssh", f"echo {REFUSED!r} >&2; exit 255")

    def test_a_target_of_this_machine_is_described_and_not_kept(self, known):
        assert probe.remembered(LOCAL, known).device["fingerprint"] == device.fingerprint(
            machine.describe()
        )
        assert not known.exists()

    def test_one_that_never_answered_is_told_with_the_reason(self, says, go_away, known):
        cfg = says(json.dumps(REPLY))
        go_away()
        found = probe.remembered(target(cfg), known)
        assert found.device == {"unreachable": True}
        assert found.unreachable.startswith("board: nothing listens on its port")
        assert not known.exists()

    def test_one_that_is_gone_is_what_it_was(self, says, go_away, known):
        cfg = says(json.dumps(REPLY))
        before = probe.remembered(target(cfg), known)
        go_away()
        assert probe.remembered(target(cfg), known) == before
        assert before.unreachable is None

    def test_one_that_changed_is_what_it_is(self, says, known):
        probe.remembered(target(says(json.dumps(REPLY))), known)
        other = {**REPLY, "runtimes": {}}
        assert probe.remembered(target(says(json.dumps(other))), known).runtimes == {}

    def test_another_connection_is_another_device(self, says, go_away, known):
        cfg = says(json.dumps(REPLY))
        probe.remembered(target(cfg), known)
        go_away()
        elsewhere = msgspec.structs.replace(cfg, host="other")
        assert probe.remembered(target(elsewhere), known).unreachable is not None

    def test_a_client_that_is_not_installed_holds_up_nothing(self, known, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        found = probe.remembered(target(params.Adb(serial="x")), known)
        assert found.unreachable.startswith("adb is not installed on this computer")


def test_an_emulated_machine_is_the_same_on_every_host():
    profile = params.Profile(environment="emulated-aarch64")
    found = probe.of(msgspec.structs.replace(LOCAL, profile=profile)).device
    assert (found["arch"], found["num_cores"]) == ("aarch64", 1)
    emulator = "qemu-aarch64-static"
    assert ("(absent)" in found["cpu_model"]) == (shutil.which(emulator) is None)
