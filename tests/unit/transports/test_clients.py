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
        assert Adb(cfg).line("a 'b  c'") == [
            "adb",
            "-s",
            "127.0.0.1:5555",
            "shell",
            "-T",
            "a 'b  c'",
        ]

    @pytest.mark.parametrize("said", ADB_WORDS)
    def test_what_adb_says_becomes_what_to_do(self, said):
        why = Adb(params.Adb(serial="x")).broken(1, said)
        assert re.search(ADB_WORDS[said], why)

    def test_a_script_that_was_cut_off_has_no_code(self):
        assert Adb(params.Adb(serial="x")).broken(255, "") == "the connection was lost"

    @pytest.mark.parametrize(
        ("returncode", "said"),
        [
            (0, "adb: warning"),
            (1, "sh: cannot create file: No space left on device"),
            (1, "error: model.tflite has operator Nonsense"),
            (3, "error: closed set of operators"),
            (3, "error: closed"),
        ],
    )
    def test_what_a_script_says_is_not_adbs(self, returncode, said):
        assert Adb(params.Adb(serial="x")).broken(returncode, said) is None


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
