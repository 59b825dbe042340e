"""An Android device for adb: the fake daemon (fake_adbd.py), and an adb server of its own for it.

The tester's own adb server, keys and devices are left alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

from pipeline import params
from tests.systems import relay
from tests.systems.board import PYTHON

DAEMON = Path(__file__).with_name("fake_adbd.py")
START_LIMIT_S = 20.0
NUM_PORTS = 5  # tried, as another process may take one that was free


@dataclass
class Device:
    """How to reach it, and what goes wrong with devices; ``folder`` is where its commands run."""

    folder: Path
    server_port: int
    port: int = 0
    python: Path = PYTHON
    _daemon: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    @property
    def serial(self) -> str:
        """What adb calls it."""
        return f"127.0.0.1:{self.port}"

    def connection(self, **changes) -> params.Adb:
        """Return the section `connection` of a target on this device."""
        settings = {
            "serial": self.serial,
            "python": str(self.python),
            "folder": str(self.folder / "slipway"),
        }
        return params.Adb(**(settings | changes))

    def adb(self, *arguments: str, serial: str | None = None) -> list[str]:
        """Return a command of adb for this device."""
        return ["adb", "-P", str(self.server_port), "-s", serial or self.serial, *arguments]

    def connect(self, port: int | None = None) -> str:
        """Have the adb server connect to it, perhaps by another port; return the serial there."""
        serial = f"127.0.0.1:{port or self.port}"
        command = ["adb", "-P", str(self.server_port)]
        subprocess.run([*command, "disconnect", serial], capture_output=True, check=False)
        done = subprocess.run([*command, "connect", serial], stdout=PIPE, text=True, check=False)
        if f"connected to {serial}" not in done.stdout:
            raise RuntimeError(f"adb does not connect: {done.stdout}")
        return serial

    def start(self) -> None:
        """Start the daemon; after `stop` again at the same port."""
        clean = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}
        self._daemon = subprocess.Popen(
            [sys.executable, str(DAEMON), str(self.folder), str(self.port)],
            stdout=PIPE, text=True, env=clean,
        )  # fmt: skip
        assert self._daemon.stdout is not None
        self.port = int(self._daemon.stdout.readline())

    def drop(self) -> None:
        """Cut all connections, as a pulled cable does; `connect` plugs it in again."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Switch it off."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.communicate()
            self._daemon = None

    def narrow(self, num_bytes: int, times: int = 1) -> AbstractContextManager[int]:
        """Give another port, whose first ``times`` connections break after so many bytes sent.

        adb's own messages count: about 25 bytes for each 256 kB. `connect` to it first.
        """
        return relay.narrow(("127.0.0.1", self.port), num_bytes, times)


def missing() -> str | None:
    """Say what a device lacks here."""
    if shutil.which("adb") is None:
        return "adb is absent; scripts/setup-systems installs it"
    if not PYTHON.is_file():
        return "environment board is absent; scripts/setup-systems makes it"
    return None


@contextmanager
def running(folder: Path) -> Iterator[Device]:
    """Run a device in an empty folder, connected; all of it is gone at the end."""
    home, storage = folder / "home", folder / "storage"
    for path in (home, storage):
        path.mkdir(parents=True)
    server, port = _start_server(home)
    device = Device(storage, port)
    try:
        device.start()
        device.connect()
        yield device
    finally:
        device.stop()
        server.kill()
        server.wait()


def _start_server(home: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """Start an adb server whose keys and log are in ``home``."""
    clean = os.environ | {"HOME": str(home), "ANDROID_SDK_HOME": str(home), "TMPDIR": str(home)}
    clean["ADB_LOCAL_TRANSPORT_MAX_PORT"] = "5553"  # looks for no emulators
    for _ in range(NUM_PORTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (home / "log").open("wb") as log:
            command = ["adb", "-P", str(port), "nodaemon", "server"]
            server = subprocess.Popen(
                command, env=clean, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if _answers(port, server):
            return server, port
        server.kill()
        server.wait()
    raise RuntimeError(f"the adb server does not start: {(home / 'log').read_text()}")


def _answers(port: int, server: "subprocess.Popen[bytes]") -> bool:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
            continue
        return server.poll() is None
    return False
