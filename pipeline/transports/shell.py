"""Files and runners on a device that has a POSIX shell at the end of a line, and perhaps no Python.

Needs there: sh, cat, mkdir, mv, rm, find, wc and sha256sum, which busybox and toybox have. Files
lie by their digest below one folder and stay for the next time; what is broken off goes on where it
stopped; bytes are compared with their digest before a file gets its name.
"""

import shlex
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen, TimeoutExpired, run
from typing import IO

from pipeline import files
from pipeline.errors import TargetError
from pipeline.transports import runner_zip
from pipeline.transports.base import Process

NUM_TRIES = 3
TIME_LIMIT_S = 60.0  # of a short command
FILE_LIMIT_S = 3600.0  # of one file
STALE_DAYS = 7  # after which a file that nobody asked for goes


class BrokenLineError(TargetError):
    """The device does not answer, or stopped answering."""


class Shell(ABC):
    """A device by a remote shell; how the shell is reached is the subclass's."""

    where: str
    lock: str | None

    def __init__(self, where: str, folder: str, python: str, runner: str | None) -> None:
        """Describe it; nothing is sent.

        Args:
            where: names it in messages.
            folder: on the device; a relative one is within the home there.
            python: the interpreter there.
            runner: a program there that speaks the protocol, instead of ours in ``python``.
        """
        self.where = where
        self.folder = folder
        self.python = python
        self.runner = runner
        self.ours = runner is None
        self.lock = f"{folder}/lock"

    @abstractmethod
    def line(self, script: str) -> list[str]:
        """Return the local command that runs a shell script there."""

    @abstractmethod
    def broken(self, returncode: int, noise: str) -> str | None:
        """Say why the device was not reached; None if it was, and the script itself failed."""

    def place(self, files_by_name: Mapping[str, Path]) -> str:
        """Have these bytes there: what is there already is compared, not sent."""
        digests = {name: files.digest_file(path) for name, path in files_by_name.items()}
        key = files.digest_bytes(files.encode_json(digests)).removeprefix("sha256:")[:16]
        folder = f"{self.folder}/files/{key}"
        for name, path in files_by_name.items():
            self._place(path, f"{folder}/{name}", digests[name].removeprefix("sha256:"))
        return folder

    def _place(self, path: Path, there: str, sha256: str) -> None:
        for _ in range(NUM_TRIES - 1):
            with suppress(BrokenLineError):  # the next one goes on where this one stopped
                self._send(path, there, sha256)
                return
        self._send(path, there, sha256)

    def _send(self, path: Path, there: str, sha256: str) -> None:
        """Send what is missing of a file; raises `BrokenLineError` when the line breaks."""
        size, has = path.stat().st_size, self._size(there, sha256)
        if has is None:
            return
        if has > size:  # left by another file of that name
            self.sh(f"rm -f {_quoted(there)}.part")
            has = 0
        script = f"cat >> {_quoted(there)}.part"
        with path.open("rb") as file:
            file.seek(has)
            done = self._run(script, FILE_LIMIT_S, stdin=file)
        if done.returncode != 0:
            self.sh(f"rm -f {_quoted(there)}.part")
            raise TargetError(
                f"{self.where}: {path.name} ({size} bytes) cannot be written to {self.folder}: "
                f"{_last_line(done.stderr)}; free some space there, or set another folder in the "
                "target's connection; nothing was measured"
            )
        check = f"echo {sha256}'  '{_quoted(there)}.part | sha256sum -c - >/dev/null 2>&1"
        name = _quoted(there)
        if self._run(f"{check} && mv {name}.part {name}").returncode != 0:
            self.sh(f"rm -f {name}.part")
            raise BrokenLineError(
                f"{self.where}: {path.name} arrived with other bytes than it was sent with; try "
                "again, and look at the device's storage if it happens again"
            )

    def _size(self, there: str, sha256: str) -> int | None:
        """Return how much of a file lies there, None when it is complete."""
        name, folder = _quoted(there), _quoted(str(Path(there).parent))
        script = (
            f"mkdir -p {folder} && touch {folder} && "
            f"if echo {sha256}'  '{name} | sha256sum -c - >/dev/null 2>&1; then echo complete; "
            f"else rm -f {name}; touch {name}.part && wc -c < {name}.part; fi"
        )
        said = self.sh(script).strip()
        return None if said == "complete" else int(said)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Make a folder of this run; those that broken lines left behind go after a day."""
        runs, name = f"{self.folder}/runs", f"{self.folder}/runs/{uuid.uuid4().hex[:12]}"
        stale = f"find {_quoted(runs)} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {{}} +"
        old = (
            f"find {_quoted(self.folder)}/files -mindepth 1 -maxdepth 1 -mtime +{STALE_DAYS} "
            "-exec rm -rf {} +"
        )
        self.sh(f"mkdir -p {_quoted(name)} && {{ {stale}; {old}; true; }} 2>/dev/null")
        try:
            yield name
        finally:
            with suppress(BrokenLineError):  # said by whoever met it first; it goes after a day
                self._run(f"rm -rf {_quoted(name)}")

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start the runner; ours is sent first, where it is not there yet."""
        program = _quoted(self.runner) if self.runner else self._our_runner()
        return Popen(
            self.line(f"exec {program} {command}"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=noise,
            text=True,
            errors="replace",
        )

    def _our_runner(self) -> str:
        with runner_zip.built() as path:
            folder = self.place({path.name: path})
        return f"{_quoted(self.python)} {_quoted(f'{folder}/{path.name}')}"

    def fetch(self, there: str, here: Path) -> None:
        """Copy one file from there."""
        with here.open("wb") as file:
            done = self._run(f"cat {_quoted(there)}", FILE_LIMIT_S, stdout=file)
        if done.returncode != 0:
            here.unlink()
            raise TargetError(f"{self.where}: {there} cannot be read: {_last_line(done.stderr)}")

    def failure(self, returncode: int, noise: str) -> str | None:
        """Say what broke on the way, or that the runner is not there."""
        why = self.broken(returncode, noise)
        if why is not None:
            return f"{self.where}: {why}; nothing was recorded, try again"
        if returncode in (126, 127):  # POSIX: found and not executable; not found
            program = self.runner or self.python
            return (
                f"{self.where}: {program} does not run there: {_last_line(noise)}; install it for "
                "this device, or correct the target's connection"
            )
        return None

    def sh(self, script: str, limit_s: float = TIME_LIMIT_S) -> str:
        """Run a short script there and return what it prints.

        Raises:
            TargetError: it is not reached, or the script fails.
        """
        done = self._run(script, limit_s)
        if done.returncode != 0:
            raise TargetError(f"{self.where}: {_last_line(done.stderr)} (in {self.folder})")
        return done.stdout

    def _run(
        self,
        script: str,
        limit_s: float = TIME_LIMIT_S,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> "CompletedProcess[str]":
        try:
            done = run(
                self.line(script),
                stdin=stdin or DEVNULL,
                stdout=stdout or PIPE,
                stderr=PIPE,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except TimeoutExpired as error:
            raise BrokenLineError(
                f"{self.where} does not answer for {limit_s:g} s; nothing was recorded, try again"
            ) from error
        why = self.broken(done.returncode, done.stderr)
        if why is not None:
            raise BrokenLineError(f"{self.where}: {why}; nothing was recorded, try again")
        return done


def _quoted(path: str) -> str:
    return shlex.quote(path)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]
