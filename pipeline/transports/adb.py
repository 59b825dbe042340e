"""An Android device by the platform tools' own client."""

import re

from pipeline import params
from pipeline.transports.shell import Shell

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


class Adb(Shell):
    """A device by its serial number, or by ``HOST:PORT``."""

    def __init__(self, connection: params.Adb) -> None:
        """Describe the device; nothing is sent."""
        super().__init__(connection.serial, connection.folder, connection.python, connection.runner)

    def line(self, script: str) -> list[str]:
        """Return adb's command; without a terminal the shell passes bytes as they are."""
        told = f"( {script}\n); code=$?; {{ echo; echo {ENDED}; }} >&2; exit $code"
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

    def heard(self, noise: str) -> str:
        """Leave out what told the end."""
        return "\n".join(line for line in noise.splitlines() if line != ENDED)
