"""The command lines of ssh and adb, and what their words mean; tests/systems has them for real."""

import re
import subprocess

import msgspec
import pytest

from pipeline import params
from pipeline.errors import TargetError
from pipeline.transports import ssh
from pipeline.transports.adb import Adb
from pipeline.transports.ssh import Ssh

BOARD = params.Ssh(host="pi@board")
SSH_WORDS = {
    "No ED25519 host key is known for board.\nHost key verification failed.": "host key is not",
    "pi@board: Permission denied (publickey).": "no key opens it; .*ssh-copy-id",
    "ssh: Could not resolve hostname bord: Name or service not known": "correct connection.host",
    "ssh: connect to host board port 22: Connection refused": "is sshd running there",
    "no such identity: /k: No such file or directory": "connection.identity names no file",
    "client_loop: send disconnect: Broken pipe": "was lost .client_loop: send disconnect",
    "": "^the connection was lost$",
    "open /x: Permission denied\nConnection to board closed by remote host.": "lost .Connection to",
    "open /x: Permission denied\r\n": "^the connection was lost .open /x: Permission denied.$",
    "cannot load: No such file or directory": "^the connection was lost",
    "ssh: connect to host board port 22: No route\npi@board: Permission denied (key).": "no key",
}
ADB_WORDS = {
    "adb: device '127.0.0.1:5555' not found": "adb devices",
    "error: device 'emulator-5554' not found": "adb devices",
    "error: device offline": "is offline",
    "adb: device offline": "is offline",
    "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set": "on its screen",
    "error: no devices/emulators found": "adb connect",
    "error: closed": "connection was lost",
    "adb: failed to start daemon": r"adb gave up \(adb: failed to start daemon\)",
    "* daemon not running; starting now at tcp:5037\nerror: device offline": "is offline",
}


def options(line):
    """Return the ``-o`` options of ssh's command."""
    stated = [line[index + 1] for index, argument in enumerate(line) if argument == "-o"]
    return dict(option.split("=", 1) for option in stated)


class TestSsh:
    def test_it_never_asks_and_knows_the_host_before(self):
        found = options(Ssh(BOARD).line("true"))
        assert found["BatchMode"] == "yes"
        assert found["StrictHostKeyChecking"] == "yes"
        assert "UserKnownHostsFile" not in found, "the user's own"
        assert "IdentityFile" not in found, "the user's own, or his agent's"

    def test_host_and_script_stand_last(self):
        assert Ssh(BOARD).line("echo 'a  b'")[-2:] == ["pi@board", "echo 'a  b'"]
        line = Ssh(msgspec.structs.replace(BOARD, port=2222)).line("true")
        assert line[-4:] == ["-p", "2222", "pi@board", "true"]

    def test_a_stated_identity_is_the_only_one(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        cfg = msgspec.structs.replace(BOARD, identity="~/a key", known_hosts="/etc/100%")
        found = options(Ssh(cfg).line("true"))
        assert found["IdentityFile"] == '"/home/me/a key"'
        assert found["IdentitiesOnly"] == "yes"
        assert found["UserKnownHostsFile"] == '"/etc/100%%"'

    def test_the_path_of_its_socket_is_one_word(self, tmp_path, monkeypatch):
        folder = tmp_path / "100% own"
        monkeypatch.setattr(ssh, "private_folder", lambda: folder)
        stated = options(Ssh(BOARD).line("true"))["ControlPath"]
        assert stated == f'"{tmp_path}/100%% own/%C"'

    def test_where_names_it(self):
        assert Ssh(BOARD).where == "pi@board"
        assert Ssh(msgspec.structs.replace(BOARD, port=2222)).where == "pi@board:2222"

    @pytest.mark.parametrize("said", SSH_WORDS)
    def test_what_ssh_says_becomes_what_to_do(self, said):
        why = Ssh(BOARD).broken(255, said)
        assert re.search(SSH_WORDS[said], why)
        assert "\n" not in why

    @pytest.mark.parametrize("returncode", [0, 1, 2, 3, 127, 137])
    def test_a_code_that_is_not_its_own_is_the_scripts(self, returncode):
        assert Ssh(BOARD).broken(returncode, "Permission denied") is None


class TestAdb:
    def test_the_script_stands_last(self):
        cfg = params.Adb(serial="127.0.0.1:5555")
        *line, script = Adb(cfg).line("a 'b  c'")
        assert line == ["adb", "-s", "127.0.0.1:5555", "shell", "-T"]
        assert script.endswith("\na 'b  c'\nexit $?")

    @pytest.mark.parametrize("said", ADB_WORDS)
    def test_what_adb_says_becomes_what_to_do(self, said):
        why = Adb(params.Adb(serial="x")).broken(1, said)
        assert re.search(ADB_WORDS[said], why)

    @pytest.mark.parametrize("returncode", [0, 255])
    def test_a_script_whose_end_was_not_told_was_cut_off(self, returncode):
        why = Adb(params.Adb(serial="x")).broken(returncode, "Traceback")
        assert why == "the connection was lost"

    @pytest.mark.parametrize(
        ("script", "returncode", "said"),
        [
            ("true", 0, ""),
            ("echo full >&2; exit 1", 1, "full"),
            ("echo adb: device offline >&2; exit 3", 3, "adb: device offline"),
            ("echo error: closed >&2; kill -9 $$", -9, "error: closed"),
            ("sh -c 'kill -9 $$'; exit $?", 137, ""),
            ("printf 'no end of line' >&2; exit 4", 4, "no end of line"),
        ],
    )
    def test_the_end_of_a_script_is_told(self, script, returncode, said):
        adb = Adb(params.Adb(serial="x"))
        done = subprocess.run(["sh", "-c", adb.line(script)[-1]], capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == returncode
        assert (adb.broken(returncode, done.stderr) is None) == (returncode >= 0)
        assert said in adb.heard(done.stderr)
        assert "slipway-ended" not in adb.heard(done.stderr)


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "", "two words", "-v"])
@pytest.mark.parametrize("key", ["host", "serial"])
def test_no_host_is_an_option(key, host):
    kind = {"host": params.Ssh, "serial": params.Adb}[key]
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        msgspec.convert({"transport": kind.__struct_config__.tag, key: host}, kind)


@pytest.mark.parametrize(
    ("transport", "name"), [(Ssh(BOARD), "ssh"), (Adb(params.Adb(serial="x")), "adb")]
)
def test_a_client_that_is_not_installed_is_named(transport, name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match=f"^{name} is not installed on this computer"):
        transport.sh("true")
    transport.runner = "runner"
    with pytest.raises(TargetError, match=f"^{name} is not installed on this computer"):
        transport.start("describe", subprocess.DEVNULL)
