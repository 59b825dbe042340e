"""What devices say of themselves, and what is remembered of it."""

import json
import os
import time

import msgspec
import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.runtimes import machine
from pipeline.targets import device
from pipeline.transports import probe
from pipeline.transports.base import NotReachedError
from tests.reference_models import target_of

HERE = target_of("litert")
REFUSED = "ssh: connect to host board port 22: Connection refused"
DEVICE = {
    "arch": "aarch64", "cpu_model": "Pi", "isa_flags": ["neon"], "num_cores": 4,
    "accelerator": "none",
}  # fmt: skip
REPLY = {"protocol": 1, "runner": "mine 1", "device": DEVICE, "runtimes": {"litert": "2"}}


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
    return msgspec.structs.replace(HERE, connection=connection)


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

    def test_who_measures_waits_for_a_connection(self, client, connection, home):
        client("ssh", f'echo "$@" > {str(home)!r}/asked; echo {REFUSED!r} >&2; exit 255')
        with pytest.raises(NotReachedError, match=r"^board: nothing listens on its port"):
            probe.ask(connection)
        assert "ConnectTimeout=10 " in (home / "asked").read_text()


class TestRemembered:
    @pytest.fixture
    def known(self, tmp_path):
        return tmp_path / "known/devices/pi.json"

    @pytest.fixture
    def go_away(self, client):
        return lambda: client("ssh", f"echo {REFUSED!r} >&2; exit 255")

    def test_a_target_of_this_machine_is_described_and_not_kept(self, known):
        assert probe.remembered(HERE, known).device["fingerprint"] == device.fingerprint(
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
        found = probe.remembered(target(cfg), known)
        assert msgspec.structs.replace(found, note=None) == before
        assert found.note.startswith("board: nothing listens on its port")
        assert found.note.endswith("; taken as it was the last time")
        assert (before.unreachable, before.note) == (None, None)

    def test_one_whose_runner_breaks_off_with_its_line_is_what_it_was(self, says, client, known):
        cfg = says(json.dumps(REPLY))
        before = probe.remembered(target(cfg), known)
        client("ssh", "sleep 0.1; exit 255")
        assert probe.remembered(target(cfg), known).device == before.device

    @pytest.mark.parametrize(
        ("text", "returncode", "words"),
        [
            (json.dumps({**REPLY, "protocol": 2}), 0, "speaks protocol 2"),
            ('{"protocol": 1, "error": "no /proc here"}', 1, "no /proc here"),
            ("", 127, "does not run there"),
        ],
    )
    def test_what_a_reached_one_says_wrong_is_not_hidden_by_what_it_was(
        self, says, known, text, returncode, words
    ):
        probe.remembered(target(says(json.dumps(REPLY))), known)
        found = probe.remembered(target(says(text, returncode)), known)
        assert found.device == {"unreachable": True}
        assert words in found.unreachable

    def test_it_is_asked_once_and_for_a_second(self, connection, client, known, home):
        client("ssh", f'echo "$@" >> {str(home)!r}/asked; echo {REFUSED!r} >&2; exit 255')
        probe.remembered(target(connection), known)
        (asked,) = (home / "asked").read_text().splitlines()
        assert "ConnectTimeout=1 " in asked

    def test_one_that_takes_too_long_in_all_is_given_up(self, says, home, known, monkeypatch):
        cfg = says(json.dumps(REPLY))
        before = probe.remembered(target(cfg), known)
        (home / "runner").write_text("#!/bin/sh\nexec sleep 60\n")
        monkeypatch.setattr(probe, "QUICK_LIMIT_S", 0.5)
        start = time.monotonic()
        found = probe.remembered(target(cfg), known)
        assert time.monotonic() - start < 15
        assert found.device == before.device
        assert "does not describe itself within 0.5 s" in found.note

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff", b"[]", b'{"asked": 1}', b'{"asked": "x", "probe": 5}']
    )
    def test_a_damaged_memory_is_none(self, says, go_away, known, content):
        cfg = says(json.dumps(REPLY))
        probe.remembered(target(cfg), known)
        known.write_bytes(content)
        go_away()
        assert probe.remembered(target(cfg), known).unreachable is not None

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


QEMU = "#!/bin/sh\necho qemu-aarch64 version {} '(Debian 1:7.2+dfsg-7)'\n"


def test_an_emulated_machine_is_that_of_the_environments_own_emulator(tmp_path, monkeypatch):
    environment = "emulated-aarch64"
    emulated = msgspec.structs.replace(HERE, profile=params.Profile(environment=environment))
    for folder, version in (("on-path", "9.9"), (f"{environment}/bin", "7.2.22")):
        program = tmp_path / folder / "qemu-aarch64-static"
        program.parent.mkdir(parents=True)
        program.write_text(QEMU.format(version))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "on-path"), prepend=os.pathsep)
    found = probe.of(emulated, tmp_path).device
    assert (found["arch"], found["num_cores"]) == ("aarch64", 1)
    assert found["cpu_model"] == "emulated by qemu-aarch64-static 7.2.22"
    assert probe.remembered(emulated, tmp_path / "known", tmp_path).device == found
    none = probe.of(emulated, tmp_path / "on-path").device
    assert none["cpu_model"] == "emulated by qemu-aarch64-static (absent)"
    monkeypatch.setenv("SLIPWAY_ENVIRONMENTS", str(tmp_path))
    assert probe.of(emulated).device == found


@pytest.mark.parametrize(
    "content",
    [b"#!/bin/sh\nexit 3\n", b"#!/bin/sh\necho nothing\n", b"\x7fELF nothing"],
    ids=["it fails", "it tells nothing", "it does not start"],
)
def test_an_emulator_that_tells_no_version_is_still_described(tmp_path, content):
    program = tmp_path / "emulated-aarch64/bin/qemu-aarch64-static"
    program.parent.mkdir(parents=True)
    program.write_bytes(content)
    program.chmod(0o755)
    found = device.emulated("emulated-aarch64", tmp_path)
    assert found["cpu_model"] == "emulated by qemu-aarch64-static (unknown)"
