"""An Android device by the platform tools' own client."""

import re

from pipeline import params
from pipeline.transports.shell import Shell

FAILED = 1  # adb's own exit code, as a script's may be
LOST = 255  # nothing told how the script ended
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
    ("closed", "the connection was lost"),
)


class Adb(Shell):
    """A device by its serial number, or by ``HOST:PORT``."""

    def __init__(self, connection: params.Adb) -> None:
        """Describe the device; nothing is sent."""
        super().__init__(connection.serial, connection.folder, connection.python, connection.runner)

    def line(self, script: str) -> list[str]:
        """Return adb's command; without a terminal the shell passes bytes as they are."""
        return ["adb", "-s", self.where, "shell", "-T", script]

    def broken(self, returncode: int, noise: str) -> str | None:
        """Say why adb gave up; a runner may say ``error:`` too, in words of its own."""
        if returncode == LOST:
            return "the connection was lost"
        if returncode != FAILED:
            return None
        for line in noise.splitlines():
            for phrase, remedy in REMEDIES:
                if re.match(f"(adb|error): {phrase}", line):
                    return remedy
            if line.startswith("adb: "):
                return f"adb gave up ({line[:200]})"
        return None
