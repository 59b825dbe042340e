"""An Android device by the platform tools' own client."""

from pipeline import params
from pipeline.transports.shell import Shell

# Of what adb says when it does not reach the device (its exit code is 1, as a script's may be).
LOST = (
    ("device unauthorized", "it has not allowed this computer; answer its question on its screen"),
    ("device offline", "it is offline; reconnect it"),
    ("not found", "adb knows no such device; `adb devices` lists those that it knows"),
    ("no devices/emulators", "adb knows no device; connect it, or adb connect HOST:PORT"),
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
        """Say why adb gave up; its messages begin with its name, or with ``error:``."""
        if returncode == 0:
            return None
        said = [line for line in noise.splitlines() if line.startswith(("adb:", "error:"))]
        for line in said:
            known = next((remedy for phrase, remedy in LOST if phrase in line), None)
            return known or f"adb gave up ({line[:200]})"
        return None
