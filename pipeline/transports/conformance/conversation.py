"""Talking to a runner, whoever wrote it: a request, perhaps a line to go on, an answer in time."""

import json
import os
import select
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import TimeoutExpired
from typing import IO, Any

from pipeline.errors import TargetError
from pipeline.transports import base
from pipeline.transports.base import Process, Transport


@dataclass(frozen=True)
class Answer:
    """How a runner ended: its exit code, the reply, and when that was (s, monotonic)."""

    code: int
    reply: dict[str, Any] | None
    failure: str | None
    time_s: float

    @property
    def told(self) -> str:
        """What it ended with, in a few words."""
        error = (self.reply or {}).get("error")
        return f"exit {self.code}: {self.failure or error or 'no error told'}"


@dataclass(frozen=True)
class Conversation:
    """A runner that was started and has its request."""

    transport: Transport
    process: Process
    noise: IO[str]
    limit_s: float
    said: bytearray = field(default_factory=bytearray)

    def ready(self) -> bool:
        """Wait for the line that says so; False where it ends, or goes on, without one.

        Raises:
            TargetError: it does neither in time.
        """
        return self.has_said(base.READY)

    def has_said(self, line: Mapping[str, Any]) -> bool:
        """Wait for a line whose document holds that; False where it ends without one.

        Raises:
            TargetError: it does neither in time.
        """
        if not base.read_until(self.process, self.said, self.limit_s, line):
            raise self._too_long()
        return base.has_said(self.said, line)

    def go(self) -> None:
        """Send the line to go on, and leave its standard input open."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its answer tells of what it ended
            os.write(self.process.stdin.fileno(), b"go\n")

    def is_quiet(self, time_s: float) -> bool:
        """Tell whether it says nothing for so long."""
        return not select.select([self.process.stdout], [], [], time_s)[0]  # type: ignore[type-var]

    def answer(self) -> Answer:
        """Close its standard input and wait for its end.

        Raises:
            TargetError: it takes too long.
        """
        try:
            rest, _ = self.process.communicate(timeout=self.limit_s)
        except TimeoutExpired as error:
            raise self._too_long() from error
        time_s = time.monotonic()
        self.noise.seek(0)
        reply = base.document(self.said.decode(errors="replace") + rest)
        failure = self.transport.failure(
            self.process.returncode, self.noise.read(), replied=base.is_error(reply)
        )
        return Answer(self.process.returncode, reply, failure, time_s)

    def _too_long(self) -> TargetError:
        return TargetError(f"{self.transport.where}: no answer within {self.limit_s:g} s")


@contextmanager
def started(
    transport: Transport, command: str, request: Any, limit_s: float
) -> Iterator[Conversation]:
    """Start a runner, which is killed at the end if it still runs.

    Args:
        transport: the way to it.
        command: ``describe``, ``load`` or ``run``.
        request: a document, or a text that is none; None sends nothing.
        limit_s: for every answer.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as noise,
        transport.start(command, noise) as process,
    ):
        try:
            if request is not None:
                _send(process, request)
            yield Conversation(transport, process, noise, limit_s)
        finally:
            process.kill()


def _send(process: Process, request: Any) -> None:
    line = request if isinstance(request, str) else json.dumps(request)
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), f"{line}\n".encode())
