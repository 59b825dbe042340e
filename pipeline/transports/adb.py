"""An Android device by the platform tools' own client."""

import re
from contextlib import suppress
from subprocess import DEVNULL, TimeoutExpired, run

from pipeline import params
from pipeline.runtimes import device_lock
from pipeline.transports.shell import Shell, client, private_folder

# What adb says when it does not reach the device, each on a line of its own.
REMEDIES = (
    (
        "device unauthorized",
        "it has not allowed this computer; answer its question on its screen",
    ),
    ("device offline", "it is offline; reconnect it"),
    ("device '.*' not found", "adb knows no such device; `adb devices` lists those that it knows"),
    (
        "no devices/emulators found",
        "adb knows no device; connect it, or adb connect HOST:PORT",
    ),
)
# Told there at a script's end, on standard error. Without it the line broke: adb before 33 then
# takes 0 for the exit code.
ENDED = "slipway-ended"
HOST_AND_PORT = re.compile(r".+:\d+")
DOWN = re.compile(r"^(adb|error): (device offline|device '.*' not found)", re.MULTILINE)
CONNECT_LIMIT_S = 3.0


class Adb(Shell):
    """A device by its serial number, or by ``HOST:PORT``."""

    def __init__(self, connection: params.Adb) -> None:
        """Describe the device; nothing is sent."""
        super().__init__(connection.serial, connection.folder, connection.python, connection.runner)

    def line(self, script: str) -> list[str]:
        """Return adb's command; without a terminal the shell passes bytes as they are."""
        # no subshell: a shell of its own between would go on when adb's daemon hangs up this one
        told = f"trap 'code=$?; {{ echo; echo {ENDED}; }} >&2; exit $code' EXIT\n{script}\nexit $?"
        return ["adb", "-s", self.where, "shell", "-T", told]

    def broken(self, returncode: int, noise: str) -> str | None:  # noqa: ARG002 - it tells nothing
        """Say why adb gave up; a script that came to its end has failed by itself."""
        lines = noise.splitlines()
        if ENDED in lines:
            return None
        for line in lines:
            for phrase, remedy in REMEDIES:
                if re.match(f"(adb|error): {phrase}", line):
                    return remedy
        said = next((line[:200] for line in lines if line.startswith("adb: ")), None)
        return f"adb gave up ({said})" if said else "the connection was lost"

    def mended(self, noise: str) -> bool:
        """Have adb connect again to ``HOST:PORT``, which it does by itself only after 10 s.

        To a device that is offline ``adb connect`` does nothing, as if it were connected; so adb
        first forgets it. One that another process has just connected to is left alone.
        """
        if not HOST_AND_PORT.fullmatch(self.where) or not DOWN.search(noise):
            return False
        lock = private_folder() / f"adb-{self.where.replace('/', '-')}"
        with suppress(TimeoutExpired, device_lock.BusyError):
            with device_lock.held(str(lock), 3 * CONNECT_LIMIT_S):
                if DOWN.search(self._adb("-s", self.where, "get-state")):
                    self._adb("disconnect", self.where)
                    self._adb("connect", self.where)
            return True
        return False

    def _adb(self, *arguments: str) -> str:
        """Run a command of adb's own, not of the device; return what goes wrong."""
        line = ["adb", *arguments]
        with client(line):
            limit_s = min(CONNECT_LIMIT_S, self.left_s)
            done = run(
                line, stdin=DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
            )
        return done.stderr

    def heard(self, noise: str) -> str:
        """Leave out what told the end."""
        return "\n".join(line for line in noise.splitlines() if line != ENDED)
