"""Start a runner where a target's artifacts run and turn what goes wrong into one line.

What trying again may mend (killed, too slow, stale wheel, no connection) is a `TargetError`; that
the runtime refuses the model is permanent and a `ModelRefusedError`.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO, Any

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.runtimes import runner
from pipeline.transports import base, choose, replies
from pipeline.transports.base import Process, Transport

# A worker takes seconds; what takes this long hangs, or starves.
TIME_LIMIT_S = 300.0
EMULATED_TIME_LIMIT_S = 3600.0  # outputs alone are asked of it, some hundred times slower
OUTPUTS = "outputs.npz"  # in a worker's scratch folder


class ModelRefusedError(TargetError):
    """The runtime refuses this model: an operator or type that it does not have."""


@dataclass(frozen=True)
class Job:
    """One artifact on one target: its model file, its own preprocessing, raw inputs (npz).

    ``beside`` are the files of the artifact that the model file needs next to it.
    """

    model: Path
    preprocessing: manifest.Preprocessing
    inputs: Path
    target: params.Target
    environments: Path | None = None
    beside: tuple[str, ...] = ()


def job_of(
    artifact: Path, inputs: Path, target: params.Target, environments: Path | None = None
) -> Job:
    """Verify an artifact's bytes and describe the job of running it on the inputs.

    Raises:
        ManifestError: bytes differ from the manifest, or it holds no one file to load.
    """
    described = manifest.verify(artifact, manifest.BESIDE)  # it may be one that was pulled
    model = artifact / manifest.model_file(described, str(artifact))
    beside = tuple(name for name in described.files if name != model.name)
    return Job(model, described.preprocessing, inputs, target, environments, beside)


@dataclass(frozen=True)
class Worker:
    """A started runner: it imports its runtime, and uses no processor from there until `result`.

    ``folder`` is where its model lies there, ``outputs`` where its outputs will, for
    `Transport.fetch`; ``said`` is what it printed up to being ready.
    """

    process: Process
    noise: IO[str]
    job: Job
    what: str
    transport: Transport
    time_limit_s: float
    folder: str
    outputs: str
    said: bytearray = field(default_factory=bytearray)

    def wait(self) -> None:
        """Wait until it is ready, or has ended before that.

        Raises:
            TargetError: it takes too long; nothing was measured.
        """
        if not base.read_until_ready(self.process, self.said, self.time_limit_s):
            raise self._too_long()

    def result(self, on_mark: Callable[[str], None] | None = None) -> Any:
        """Let it do what it was asked for, and return what that gives.

        Args:
            on_mark: called with the name of each mark as its line comes in.

        Raises:
            ModelRefusedError: the runtime refuses the model at load.
            TargetError: anything else; nothing was measured.
        """
        self.wait()
        if on_mark is not None:
            return _reply(self, self.said.decode(errors="replace") + self._follow(on_mark))
        try:
            rest, _ = self.process.communicate("go\n", timeout=self.time_limit_s)
        except TimeoutExpired as error:
            raise self._too_long() from error
        return _reply(self, self.said.decode(errors="replace") + rest)

    def _follow(self, on_mark: Callable[[str], None]) -> str:
        """Read it line by line to its end, and return all but the marks."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.time_limit_s, end)
        timer.start()
        try:
            with suppress(BrokenPipeError):  # it ended before: its reply says of what
                os.write(self.process.stdin.fileno(), b"go\n")
            lines = []
            for line in self.process.stdout:
                mark = (base.document(line) or {}).get("mark")
                if isinstance(mark, str):
                    on_mark(mark)
                else:
                    lines.append(line)
            self.process.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise self._too_long()
        return "".join(lines)

    def _too_long(self) -> TargetError:
        return TargetError(
            f"{self.where}: the worker took longer than {self.time_limit_s:g} s and was killed; "
            "close other programs and run dvc repro again"
        )

    @property
    def where(self) -> str:
        """What it does, for messages."""
        model = self.job.model
        return f"{self.what} of {model.parent.name}/{model.name} on {self.job.target.runtime}"


def call(
    job: Job,
    what: str,
    *,
    time_limit_s: float | None = None,
    on_mark: Callable[[str], None] | None = None,
    **request: Any,
) -> Any:
    """Let a worker of its own do one thing and return its result: `started`, `Worker.result`."""
    with started(job, what, time_limit_s=time_limit_s, **request) as worker:
        return worker.result(on_mark)


def outputs(job: Job, here: Path, *, time_limit_s: float | None = None) -> Any:
    """Run every input through the artifact; its float outputs come to the npz file ``here``."""
    with started(job, "outputs", time_limit_s=time_limit_s) as worker:
        reply = worker.result()
        worker.transport.fetch(worker.outputs, here)
    return reply


@contextmanager
def started(
    job: Job, what: str, *, time_limit_s: float | None = None, **request: Any
) -> Iterator[Worker]:
    """Start a worker, which is killed at the end if it still runs.

    Args:
        job: what to run, where.
        what: ``latency`` or ``outputs``, as in `pipeline.runtimes.runner`.
        time_limit_s: for the start, and again for the work.
        request: further settings of what is asked for.

    Raises:
        TargetError: the target's environment was never made, or its device is not reached.
    """
    transport = choose.of(job.target, job.environments)
    folder = job.model.absolute().parent
    there = transport.place({name: folder / name for name in (job.model.name, *job.beside)})
    inputs = transport.place({job.inputs.name: job.inputs})
    with transport.scratch() as scratch, tempfile.TemporaryFile("w+", errors="replace") as noise:
        line = json.dumps(
            {
                "protocol": runner.PROTOCOL,
                "what": what,
                "runtime": job.target.runtime,
                "model": f"{there}/{job.model.name}",
                "num_threads": job.target.profile.num_threads,
                "inputs": f"{inputs}/{job.inputs.name}",
                "preprocessing": job.preprocessing,
                "outputs": f"{scratch}/{OUTPUTS}",
                "lock": transport.lock,
                "wait": True,
                **request,
            }
        )
        # standard error is a file: a pipe would fill up while nobody reads
        with transport.start("run", noise) as process:
            limit_s = time_limit_s or _time_limit_s(job.target)
            worker = Worker(
                process, noise, job, what, transport, limit_s, there, f"{scratch}/{OUTPUTS}"
            )
            try:
                _ask(process, line)
                yield worker
            finally:
                process.kill()


def _ask(process: Process, line: str) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended before it read: `Worker.result` says of what
        # past Python's buffer, which would hold on to what a closed pipe does not take
        os.write(process.stdin.fileno(), f"{line}\n".encode())


def _time_limit_s(target: params.Target) -> float:
    return EMULATED_TIME_LIMIT_S if target.evidence == "emulated" else TIME_LIMIT_S


def _reply(worker: Worker, said: str) -> dict[str, Any]:
    """Return the last line's document, or raise what went wrong."""
    reply = base.document(said)
    returncode = worker.process.returncode
    if returncode != runner.DONE:
        worker.noise.seek(0)
        raise _failure(worker, returncode, reply, worker.noise.read())
    if worker.transport.ours and reply is not None:
        _check_source(worker, reply)
    else:
        replies.check(reply, f"run {worker.what}", f"{worker.where}: {worker.transport.where}")
    assert reply is not None
    return reply


def _failure(
    worker: Worker, returncode: int, reply: dict[str, Any] | None, noise: str
) -> TargetError:
    where = worker.where
    on_the_way = worker.transport.failure(returncode, noise, replied=base.is_error(reply))
    if on_the_way is not None:
        return TargetError(f"{where}: {on_the_way}")
    assert reply is not None  # or the transport had said so
    if worker.transport.ours:
        _check_source(worker, reply)
    line = str(reply["error"]).replace(f"{worker.folder}/", "")[: base.MAX_LINE_LENGTH]
    kind = ModelRefusedError if returncode == runner.REFUSED else TargetError
    return kind(f"{where}: {line}")


def _check_source(worker: Worker, reply: dict[str, Any]) -> None:
    """Refuse another version of our own runner."""
    if reply.get("source_digest") != runner.source_digest():
        raise TargetError(
            f"{worker.transport.where} holds another version of slipway than this one and would "
            "measure other code; run make setup"
        )
