"""What every transport gives: files there, a runner there, files back."""

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, Any, Protocol

from pipeline.errors import TargetError

Process = Popen[str]

MAX_LINE_LENGTH = 300
PROTOCOL_PAGE = "docs/runner-protocol.md"


def last_line(text: str) -> str:
    """Return the last line of what a program said, as far as it can be shown."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = "".join(c for c in lines[-1] if c.isprintable()) if lines else ""
    return shown[:MAX_LINE_LENGTH] or "no message"


def document(said: str) -> dict[str, Any] | None:
    """Read the last line of what a runner printed; None where it is no reply."""
    try:
        found = json.loads((said.splitlines() or [""])[-1])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_error(reply: dict[str, Any] | None) -> bool:
    """Tell whether it is the reply of a runner that failed; what it printed before is none."""
    return reply is not None and "error" in reply


READY: Mapping[str, Any] = {"ready": True}


def read_until(
    process: Process, said: bytearray, limit_s: float, line: Mapping[str, Any] = READY
) -> bool:
    """Read what a runner prints, until it says a line or has ended.

    Args:
        process: its standard output is read below Python's buffer, as `communicate` does.
        said: gets what it prints; what stands there counts.
        limit_s: how long to wait for that.
        line: what the line's document holds.

    Returns:
        False when it takes longer.
    """
    assert process.stdout is not None
    descriptor, deadline = process.stdout.fileno(), time.monotonic() + limit_s
    while not has_said(said, line):
        if not select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
            return False
        part = os.read(descriptor, 1 << 16)
        if not part:
            break
        said += part
    return True


def has_said(said: bytearray, line: Mapping[str, Any]) -> bool:
    """Tell whether there is a line whose document holds that."""
    found = (document(each.decode(errors="replace")) or {} for each in bytes(said).splitlines())
    return any(line.items() <= each.items() for each in found)


def killed_by(returncode: int) -> str | None:
    """Name the signal that ended a process, or one below a shell (128 + N of signal N)."""
    number = -returncode if returncode < 0 else returncode - 128
    if number not in signal.valid_signals():
        return None
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")  # those of real time have no names


class NotReachedError(TargetError):
    """The device does not answer, or not in time; what it is and has may be as it was."""


class Transport(Protocol):
    """A way to one device."""

    @property
    def where(self) -> str:
        """What names it in messages."""
        ...

    @property
    def ours(self) -> bool:
        """Tell whether the runner is this slipway's own, whose sources must be equal."""
        ...

    @property
    def lock(self) -> str | None:
        """A path there that whoever times holds; None where nobody else measures."""
        ...

    def place(self, files: Mapping[str, Path]) -> str:
        """Have these bytes there, by these names, in one folder, which is returned.

        Raises:
            TargetError: it is not reached, and what arrived is kept for the next try; or it has no
                room, and what arrived of that file is removed.
        """
        ...

    def scratch(self) -> AbstractContextManager[str]:
        """Give an empty folder there, which is removed at the end."""
        ...

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start the runner with a command; its standard error goes to ``noise``."""
        ...

    def fetch(self, there: str, here: Path) -> None:
        """Copy one file from there.

        Raises:
            TargetError: it is not reached, or the file is not there.
        """
        ...

    def failure(self, returncode: int, noise: str, *, replied: bool) -> str | None:
        """Say in one line what broke, or ended the runner; None if that says so itself."""
        ...


@dataclass(frozen=True)
class Local:
    """A runner on this machine; the paths are the same there.

    ``command`` starts it from the folder ``home``; without ``ours`` it is another program.
    """

    where: str
    command: tuple[str, ...]
    home: Path
    ours: bool = True
    lock: None = None

    def place(self, files: Mapping[str, Path]) -> str:
        """Return the folder in which the files lie already."""
        (folder,) = {path.absolute().parent for path in files.values()}
        assert all(path.name == name for name, path in files.items())
        return str(folder)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Make a temporary folder."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="slipway-") as name:
            yield name

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start it."""
        try:
            return Popen(
                [*self.command, command],
                cwd=self.home,
                stdin=PIPE,
                stdout=PIPE,
                stderr=noise,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise TargetError(f"{self.where} does not run here: {error.strerror}") from error

    def fetch(self, there: str, here: Path) -> None:
        """Move one file."""
        import shutil

        try:
            shutil.move(there, here)
        except OSError as error:
            raise TargetError(f"{self.where}: {there} cannot be read: {error.strerror}") from error

    def failure(self, returncode: int, noise: str, *, replied: bool) -> str | None:
        """Say what ended the process; nothing lies between."""
        killed = killed_by(returncode)
        if killed is not None:
            return (
                f"the worker was killed by {killed}; free memory or close other programs, and run "
                "dvc repro again"
            )
        if returncode != 0 and not replied:
            remedy = "run make setup" if self.ours else f"its protocol is in {PROTOCOL_PAGE}"
            return f"no worker in {self.where}: {last_line(noise)}; {remedy}"
        return None
