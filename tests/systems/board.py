"""A board on loopback: a real sshd with keys, home and Python of its own, and no system file.

Its Python is .venvs/board: tflite-runtime and numpy, no slipway.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import params
from tests.systems import relay

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs/board/bin/python"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")  # compiled in; a running system's sshd has it already
START_LIMIT_S = 20.0
NUM_PORTS = 5  # tried, as another process may take one that was free
# Whoever logs in is in the board's home, not in the tester's; so his shell's start-up is not there.
LOGIN = """#!/bin/sh
cd {home} || exit 1
HOME={home}
export HOME
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
CONFIG = """
Port {port}
ListenAddress {host}
HostKey {settings}/host_key
AuthorizedKeysFile {settings}/authorized_keys
PidFile none
ForceCommand {settings}/login
SetEnv HOME="{home}"
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
"""


@dataclass
class Board:
    """How to reach it, and what goes wrong with boards.

    ``settings`` is the tester's folder: keys, configuration, log; ``home`` is the board's own.
    """

    settings: Path
    home: Path
    port: int = 0
    host: str = "127.0.0.1"
    python: Path = PYTHON
    _server: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def identity(self) -> Path:
        """The key that opens it."""
        return self.settings / "identity"

    @property
    def known_hosts(self) -> Path:
        """Its host key, at any port: a `narrow` one is the same board."""
        return self.settings / "known_hosts"

    @property
    def folder(self) -> Path:
        """Where slipway's files are on it, by default."""
        return self.home / params.Ssh(host=self.host).folder

    @property
    def log(self) -> Path:
        """What sshd says."""
        return self.settings / "log"

    def connection(self, **changes) -> params.Ssh:
        """Return the section `connection` of a target on this board."""
        settings = {
            "host": self.host,
            "port": self.port,
            "identity": str(self.identity),
            "known_hosts": str(self.known_hosts),
            "python": str(self.python),
        }
        return params.Ssh(**(settings | changes))

    def ssh(self, script: str, *options: str, port: int | None = None) -> list[str]:
        """Return a plain ssh command, free of the tester's own configuration."""
        stated = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "LogLevel": "ERROR",
        }
        pairs = [word for key, value in stated.items() for word in ("-o", f"{key}={value}")]
        command = ["ssh", "-F", "none", "-T", *options, *pairs, "-i", str(self.identity)]
        return [*command, "-p", str(port or self.port), self.host, script]

    def start(self) -> None:
        """Start sshd; after `stop` again at the same port."""
        for _ in range(NUM_PORTS if self.port == 0 else 1):
            port = self.port or _free_port(self.host)
            self._server = _start(self, port)
            if self._server is not None:
                self.port = port
                return
        raise RuntimeError(f"sshd does not start: {self.log.read_text(errors='replace')}")

    def drop(self) -> int:
        """Kill every connection as it is, which tells nobody; return how many processes it were."""
        assert self._server is not None
        victims = [pid for pid in _descendants(self._server.pid) if _name(pid).startswith("sshd")]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(is_running(pid) for pid in victims):
            time.sleep(0.01)
        return len(victims)

    def stop(self) -> None:
        """Switch it off."""
        if self._server is not None:
            self.drop()
            self._server.kill()
            self._server.wait()
            self._server = None

    def narrow(self, num_bytes: int, times: int = 1) -> AbstractContextManager[int]:
        """Give another port, whose first ``times`` connections break after so many bytes sent.

        Encrypted bytes from the client count, its handshake (3 kB) too.
        """
        return relay.narrow((self.host, self.port), num_bytes, times)


def missing() -> str | None:
    """Say what a board lacks here."""
    if SSHD is None or shutil.which("ssh") is None:
        return "sshd or ssh is absent; scripts/setup-systems installs them"
    if not PYTHON.is_file():
        return "environment board is absent; scripts/setup-systems makes it"
    return None


@contextmanager
def running(folder: Path) -> Iterator[Board]:
    """Run a board in an empty folder and switch it off at the end."""
    board = Board(folder / "settings", folder / "home")
    for path in (board.settings, board.home):
        path.mkdir(parents=True)
    for name in ("host_key", "identity"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", board.settings / name]
        subprocess.run(command, check=True)
    shutil.copy(board.settings / "identity.pub", board.settings / "authorized_keys")
    kind, key, *_ = (board.settings / "host_key.pub").read_text().split()
    board.known_hosts.write_text(f"[{board.host}]:* {kind} {key}\n")
    login = board.settings / "login"
    login.write_text(LOGIN.format(home=shlex.quote(str(board.home))))
    login.chmod(0o755)
    try:
        board.start()
        yield board
    finally:
        board.stop()


def _start(board: Board, port: int) -> "subprocess.Popen[bytes] | None":
    """Start sshd at a port and return it when it listens; None where the port is taken."""
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    settings, host = board.settings, board.host
    config = settings / "sshd_config"
    config.write_text(CONFIG.format(port=port, host=host, settings=settings, home=board.home))
    with (settings / "log").open("wb") as log:
        assert SSHD is not None
        command = [SSHD, "-D", "-e", "-f", str(config)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        said = (settings / "log").read_text(errors="replace")
        if f"Server listening on {host} port {port}" in said:
            return server
        if server.poll() is not None:
            if "Address already in use" in said:
                return None
            break
        time.sleep(0.01)
    server.kill()
    raise RuntimeError(f"sshd does not start: {said}")


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    """List the processes below one, the deepest last."""
    said = subprocess.run(
        ["ps", "-A", "-o", "ppid=,pid="], check=True, capture_output=True, text=True
    )
    children: dict[int, list[int]] = {}
    for line in said.stdout.splitlines():
        parent, child = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def is_running(pid: int) -> bool:
    """Tell whether a process is there that has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}  # proc(5)


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
