"""Files and runners on a device that has a POSIX shell at the end of a line, and perhaps no Python.

Needs there: sh, cat, mkdir, mv, rm, find, wc and sha256sum, which busybox and toybox have. Files
lie by their digest below one folder and stay for the next time; what is broken off goes on where it
stopped; bytes are compared with their digest before a file gets its name.
"""

import functools
import math
import os
import shlex
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen, TimeoutExpired, run
from typing import IO

from pipeline import files
from pipeline.errors import TargetError
from pipeline.runtimes import device_lock
from pipeline.transports import runner_zip
from pipeline.transports.base import NotReachedError, Process, killed_by, last_line

NUM_TRIES = 3
TIME_LIMIT_S = 60.0  # of a short command
FILE_LIMIT_S = 3600.0  # of one file
STALE_DAYS = 7  # after which a file that nobody asked for goes
ROOM = (
    "free some space there, or set another folder in the target's connection; nothing was measured"
)
MAX_FOLDER_LENGTH = 45  # ssh adds 58 characters to a socket's path, which takes 103 (macOS)


class BrokenLineError(NotReachedError):
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
        self.num_tries = NUM_TRIES
        self._limit_s = self._deadline = math.inf

    def mended(self, noise: str) -> bool:  # noqa: ARG002 - for lines that need it
        """Connect again, where a script did not begin as the line was down; tell if it may now."""
        return False

    def hurry(self, limit_s: float) -> None:
        """From now on give up after so long in all, and try nothing twice."""
        self.num_tries = 1
        self._limit_s, self._deadline = limit_s, time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Return how long it may still take in all."""
        return max(self._deadline - time.monotonic(), 0)

    @abstractmethod
    def line(self, script: str) -> list[str]:
        """Return the local command that runs a shell script there."""

    @abstractmethod
    def broken(self, returncode: int, noise: str) -> str | None:
        """Say why the device was not reached; None if it was, and the script itself failed."""

    def heard(self, noise: str) -> str:
        """Return what a script said on standard error, of all that came."""
        return noise

    def place(self, files_by_name: Mapping[str, Path]) -> str:
        """Have these bytes there: what is there already is compared, not sent."""
        digests = {name: files.digest_file(path) for name, path in files_by_name.items()}
        key = files.digest_bytes(files.encode_json(digests)).removeprefix("sha256:")[:16]
        folder = f"{self.folder}/files/{key}"
        # two targets may be one device: both would write to the same files
        room = files.digest_bytes(f"{self.where} {folder}".encode()).removeprefix("sha256:")
        limit_s = min(FILE_LIMIT_S, self.left_s)
        try:
            with device_lock.held(str(private_folder() / room[:16]), limit_s):
                for name, path in files_by_name.items():
                    self._place(path, f"{folder}/{name}", digests[name].removeprefix("sha256:"))
        except device_lock.BusyError as error:
            raise NotReachedError(
                f"{self.where}: another run sends it the same files for over {limit_s:.0f} s; "
                "end that one, and try again"
            ) from error
        return folder

    def _place(self, path: Path, there: str, sha256: str) -> None:
        has = self._size(there, sha256)  # a device that is not reached at all is not tried again
        for num_tries in range(1, self.num_tries + 1):
            try:
                if num_tries > 1:  # goes on where the one before stopped
                    has = self._size(there, sha256)
                if has is not None:
                    self._send(path, there, sha256, has)
                return
            except BrokenLineError:  # noqa: PERF203 - three times at most
                if num_tries == self.num_tries:
                    raise

    def _send(self, path: Path, there: str, sha256: str, has: int) -> None:
        """Send a file but its first bytes; raises `BrokenLineError` when the line breaks."""
        size = path.stat().st_size
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
                f"{last_line(done.stderr)}; {ROOM}"
            )
        name = _quoted(there)
        if self._run(f"{_has(sha256, f'{name}.part')} && mv {name}.part {name}").returncode != 0:
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
            f"if [ -f {name} ] && {_has(sha256, name)}; then echo complete; "
            f"else rm -f {name}; touch {name}.part && wc -c < {name}.part; fi"
        )
        # what the shell there prints at its start stands before
        said = last_line(self.sh(script))
        if said != "complete" and not said.isdigit():
            raise TargetError(
                f"{self.where}: the shell there printed {said!r} where a file's size was due; "
                "connection needs a POSIX shell that prints nothing by itself"
            )
        return None if said == "complete" else int(said)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Make a folder of this run; those that broken lines left behind go in a day or two."""
        runs, name = f"{self.folder}/runs", f"{self.folder}/runs/{uuid.uuid4().hex[:12]}"
        # +1 is above one day to toybox, two days and above to others; +0 would be any to toybox
        stale = f"find {_quoted(runs)} -mindepth 1 -maxdepth 1 -mtime +1 -exec rm -rf {{}} +"
        old = (
            f"find {_quoted(self.folder)}/files -mindepth 1 -maxdepth 1 -mtime +{STALE_DAYS} "
            "-exec rm -rf {} +"
        )
        self.sh(f"mkdir -p {_quoted(name)} && {{ {stale}; {old}; true; }} 2>/dev/null")
        try:
            yield name
        finally:
            with suppress(BrokenLineError):  # said by whoever met it first; it goes some day
                self._run(f"rm -rf {_quoted(name)}")

    def start(self, command: str, noise: IO[str]) -> Process:
        """Start the runner; ours is sent first, where it is not there yet."""
        program = _quoted(self.runner) if self.runner else self._our_runner()
        # below the shell, which then tells of a signal: ssh by itself does not
        line = self.line(f"{program} {command}; exit $?")
        with client(line):
            return Popen(line, stdin=PIPE, stdout=PIPE, stderr=noise, text=True, errors="replace")

    def _our_runner(self) -> str:
        with runner_zip.built() as path:
            folder = self.place({path.name: path})
        return f"{_quoted(self.python)} {_quoted(f'{folder}/{path.name}')}"

    def fetch(self, there: str, here: Path) -> None:
        """Copy one file from there, and compare its digest with the one told there."""
        name = _quoted(there)
        with here.open("wb") as file:
            done = self._run(f"sha256sum < {name} >&2 && cat {name}", FILE_LIMIT_S, stdout=file)
        if done.returncode != 0:
            here.unlink()
            raise TargetError(f"{self.where}: {there} cannot be read: {last_line(done.stderr)}")
        if files.digest_file(here).removeprefix("sha256:") not in done.stderr:
            here.unlink()
            raise TargetError(
                f"{self.where}: {there} arrived with other bytes than it has there; the shell "
                "there must print nothing by itself (look at its .bashrc)"
            )

    def failure(self, returncode: int, noise: str, *, replied: bool) -> str | None:
        """Say what broke on the way, or that the runner is not there, or was ended."""
        why = self.broken(returncode, noise)
        if why is not None:
            return f"{self.where}: {why}; nothing was recorded, try again"
        killed = killed_by(returncode)
        if killed is not None:
            return (
                f"{self.where}: the runner was killed by {killed}; free memory there, and try again"
            )
        if returncode == 0 or replied:
            return None
        program = self.runner or f"{self.python} with numpy"
        return (
            f"{self.where}: {program} does not run there ({returncode}): "
            f"{last_line(self.heard(noise))}; "
            "install it for this device, or correct the target's connection"
        )

    def sh(self, script: str, limit_s: float = TIME_LIMIT_S) -> str:
        """Run a short script there and return what it prints.

        Raises:
            TargetError: it is not reached, or the script fails.
        """
        done = self._run(script, limit_s)
        if done.returncode != 0:
            raise TargetError(f"{self.where}: {last_line(done.stderr)} (in {self.folder}); {ROOM}")
        return done.stdout

    def _run(
        self,
        script: str,
        limit_s: float = TIME_LIMIT_S,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> "CompletedProcess[str]":
        done = self._try(script, limit_s, stdin=stdin, stdout=stdout)
        why = self.broken(done.returncode, done.stderr)
        if why is not None and stdin is None and self.mended(done.stderr):
            done = self._try(script, limit_s, stdout=stdout)
            why = self.broken(done.returncode, done.stderr)
        if why is not None:
            raise BrokenLineError(f"{self.where}: {why}; nothing was recorded, try again")
        done.stderr = self.heard(done.stderr)
        return done

    def _try(
        self,
        script: str,
        limit_s: float,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> "CompletedProcess[str]":
        line, left_s = self.line(script), self.left_s
        # a file: older ssh's shared connection would hold a pipe open until it goes
        with tempfile.TemporaryFile("w+", errors="replace") as noise, client(line):
            try:
                done = run(
                    line,
                    stdin=stdin or DEVNULL,
                    stdout=stdout or PIPE,
                    stderr=noise,
                    text=True,
                    errors="replace",
                    timeout=min(limit_s, left_s),
                    check=False,
                )
            except TimeoutExpired as error:
                late = f"for {limit_s:g} s" if limit_s <= left_s else f"within {self._limit_s:g} s"
                raise BrokenLineError(
                    f"{self.where} does not answer {late}; nothing was recorded, try again"
                ) from error
            noise.seek(0)
            done.stderr = noise.read()
        return done


@contextmanager
def client(line: list[str]) -> Iterator[None]:
    """Name the program of a line that is not installed here."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotReachedError(
            f"{line[0]} is not installed on this computer; install it, the target's connection "
            "needs it"
        ) from error


@functools.cache
def private_folder() -> Path:
    """Return a folder of this user's own for sockets and locks, the same for all of his runs."""
    name = f"slipway-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(str(folder)) > MAX_FOLDER_LENGTH:
        folder = Path("/tmp") / name  # noqa: S108 - whose it is, is looked at below
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        return Path(
            tempfile.mkdtemp(prefix="slipway-", dir=folder.parent)
        )  # somebody else's: no shared one
    return folder


def _has(sha256: str, name: str) -> str:
    """Write a test of a file's digest, whatever its name holds."""
    return f'[ "$(sha256sum < {name})" = "{sha256}  -" ]'


def _quoted(path: str) -> str:
    return shlex.quote(path)
