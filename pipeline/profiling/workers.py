"""Start a runner where a target's artifacts run and turn what goes wrong into one line.

What trying again may mend (killed, too slow, stale wheel, no connection) is a `TargetError`; that
the runtime refuses the model is permanent and a `ModelRefusedError`.
"""

import json
import os
import select
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO, Any

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.runtimes import runner
from pipeline.transports import choose
from pipeline.transports.base import Process, Transport

# A worker takes seconds; what takes this long hangs, or starves.
TIME_LIMIT_S = 300.0
EMULATED_TIME_LIMIT_S = 3600.0  # outputs alone are asked of it, some hundred times slower
MAX_ERROR_LENGTH = 300
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

    ``outputs`` is where its outputs will lie, for `Transport.fetch`.
    """

    process: Process
    noise: IO[str]
    job: Job
    what: str
    transport: Transport
    time_limit_s: float
    outputs: str

    def wait(self) -> None:
        """Wait until it is ready, or has ended before that.

        Raises:
            TargetError: it takes too long; nothing was measured.
        """
        # readable at its first line, or at its end
        if not select.select([self.process.stdout], [], [], self.time_limit_s)[0]:  # type: ignore[type-var]
            raise self._too_long()

    def result(self) -> Any:
        """Let it do what it was asked for, and return what that gives.

        Raises:
            ModelRefusedError: the runtime refuses the model at load.
            TargetError: anything else; nothing was measured.
        """
        self.wait()
        try:
            said, _ = self.process.communicate("go\n", timeout=self.time_limit_s)
        except TimeoutExpired as error:
            raise self._too_long() from error
        return _reply(self, said)

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


def call(job: Job, what: str, *, time_limit_s: float | None = None, **request: Any) -> Any:
    """Let a worker of its own do one thing and return its result: `started`, `Worker.result`."""
    with started(job, what, time_limit_s=time_limit_s, **request) as worker:
        return worker.result()


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
            worker = Worker(process, noise, job, what, transport, limit_s, f"{scratch}/{OUTPUTS}")
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
    reply = _document(said)
    returncode = worker.process.returncode
    if returncode != runner.DONE:
        worker.noise.seek(0)
        raise _failure(worker, returncode, reply, worker.noise.read())
    if reply is None:
        raise TargetError(f"{worker.where}: the runner ended without a reply; {_REPORT}")
    _check_source(worker, reply)
    return reply


_REPORT = "its protocol is in docs/runner-protocol.md"


def _document(said: str) -> dict[str, Any] | None:
    """Read the last line of what a runner printed; None where it is no reply."""
    try:
        found = json.loads((said.splitlines() or [""])[-1])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _failure(
    worker: Worker, returncode: int, reply: dict[str, Any] | None, noise: str
) -> TargetError:
    where = worker.where
    on_the_way = worker.transport.failure(returncode, noise)
    if on_the_way is not None:
        return TargetError(on_the_way)
    # a shell that ran it says 128 + N of signal N
    number = -returncode if returncode < 0 else returncode - 128
    if number > 0:
        return TargetError(
            f"{where}: the worker was killed by {signal.Signals(number).name}; free memory or "
            "close other programs, and run dvc repro again"
        )
    if reply is None or "error" not in reply:
        last = (noise.strip().splitlines() or ["no message"])[-1]
        return TargetError(
            f"{where}: no worker in {worker.transport.where}: {last[:MAX_ERROR_LENGTH]}; "
            "run make setup"
        )
    _check_source(worker, reply)
    folder = worker.job.model.absolute().parent
    line = str(reply["error"]).replace(f"{folder}/", "")[:MAX_ERROR_LENGTH]
    kind = ModelRefusedError if returncode == runner.REFUSED else TargetError
    return kind(f"{where}: {line}")


def _check_source(worker: Worker, reply: dict[str, Any]) -> None:
    """Refuse another version of our own runner; another program says its protocol."""
    if worker.transport.ours and reply.get("source_digest") != runner.source_digest():
        raise TargetError(
            f"{worker.transport.where} holds another version of slipway than this one and would "
            "measure other code; run make setup"
        )
