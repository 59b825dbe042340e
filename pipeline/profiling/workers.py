"""Start a runner where a target's artifacts run and turn what goes wrong into one line.

What trying again may mend (killed, too slow, stale wheel, no connection) is a `TargetError`; that
the runtime refuses the model is permanent and a `ModelRefusedError`.
"""

import itertools
import json
import math
import os
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO, Any

import numpy as np

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.runtimes import mapped, runner, scenarios
from pipeline.transports import base, choose, replies
from pipeline.transports.base import Process, Transport

# A worker starts and loads in seconds; what takes this long hangs, or starves. On top comes what it
# is asked for (`_time_limit_s`): RUN_LIMIT_S for each run, stated times TIMES_LIMIT_RATIO times.
TIME_LIMIT_S = 300.0
EMULATED_TIME_LIMIT_S = 3600.0  # outputs alone are asked of it, some hundred times slower
RUN_LIMIT_S = 1.0
TIMES_LIMIT_RATIO = 3
NS_PER_S = 1e9
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
    `Transport.fetch`; ``asked`` is what the request holds beside what every one does; ``said`` is
    what it printed up to being ready.
    """

    process: Process
    noise: IO[str]
    job: Job
    what: str
    transport: Transport
    time_limit_s: float
    folder: str
    outputs: str
    asked: Mapping[str, Any]
    said: bytearray = field(default_factory=bytearray)

    def wait(self) -> None:
        """Wait until it is ready, or has ended before that.

        Raises:
            TargetError: it takes too long; nothing was measured.
        """
        limit_s = min(self.time_limit_s, _start_limit_s(self.job.target))
        if not base.read_until(self.process, self.said, limit_s):
            raise self.too_long(limit_s)

    def turn(self, number: int) -> bool:
        """Let it go on, to where it waits for the turn of that number; tell whether it does.

        It has ended, or is about to, otherwise, and `result` says with what.

        Raises:
            TargetError: it takes too long; nothing was measured.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            os.write(self.process.stdin.fileno(), b"go\n")
        line = {"turn": number}
        if not base.read_until(self.process, self.said, self.time_limit_s, line):
            raise self.too_long(self.time_limit_s)
        if not base.has_said(self.said, line):
            return False
        self.said.clear()  # it will not be read through at every turn
        return True

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
            raise self.too_long(self.time_limit_s) from error
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
            raise self.too_long(self.time_limit_s)
        return "".join(lines)

    def too_long(self, limit_s: float) -> TargetError:
        """Say that it was killed."""
        return TargetError(
            f"{self.where}: the worker took longer than {limit_s:g} s and was killed; close other "
            "programs, or ask for less (a smaller model, fewer samples, a quicker preset), and run "
            "dvc repro again"
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


def in_turns(jobs: Sequence[Job], turn_ns: int, core: int, **request: Any) -> list[Any]:
    """Time several by turns of some milliseconds, forwards and backwards, on the same cores.

    A runner that knows no turns is timed as a whole when its first one comes. All have their model
    loaded at the same time.

    Args:
        jobs: what to time, on one device.
        turn_ns: how long a turn is at least.
        core: of the cores that a process may use there, the first, counted round in threads.
        request: further settings of ``latency``.

    Returns:
        The replies, in the order of the jobs.

    Raises:
        ModelRefusedError, TargetError: as `started` and `Worker.result`.
    """
    turns = {"turn_ns": turn_ns, "core": core}
    with ExitStack() as stack:
        group = [
            stack.enter_context(started(job, "latency", turns=turns, **request)) for job in jobs
        ]
        for worker in group:
            worker.wait()  # or it would start beside one that is timed
        limit_s = sum(worker.time_limit_s for worker in group)
        replies: dict[int, Any] = {}
        waiting, deadline = list(range(len(group))), time.monotonic() + limit_s
        for number in itertools.count():
            for index in waiting:
                if time.monotonic() > deadline:
                    raise group[index].too_long(limit_s)
                if not group[index].turn(number):
                    replies[index] = group[index].result()  # what broke is said now, not at the end
            waiting = [index for index in reversed(waiting) if index not in replies]
            if not waiting:
                break
        return [replies[index] for index in range(len(group))]


def outputs(job: Job, here: Path, *, time_limit_s: float | None = None) -> Any:
    """Run every input through the artifact; its float outputs come to the npz file ``here``.

    Returns:
        The reply; the file holds as many rows of ``outputs`` as there are inputs.

    Raises:
        TargetError: as `started` and `Worker.result`; or the file holds something else.
    """
    with started(job, "outputs", time_limit_s=time_limit_s) as worker:
        reply = worker.result()
        worker.transport.fetch(worker.outputs, here)
    found, asked = _num_rows(here), _num_inputs(job)
    if not found == reply["num_samples"] == asked:
        what = "no array" if found is None else f"{found} rows"
        raise TargetError(
            f"{worker.where}: {worker.transport.where}: the runner wrote {what} of outputs and "
            f"told of {reply['num_samples']} samples where {asked} were asked for; "
            f"{base.PROTOCOL_PAGE} says how, and `slipway runner check` finds what differs"
        )
    return reply


def _num_rows(path: Path) -> int | None:
    """Count the rows of outputs in a file that another program may have written; None: it has none.

    It may be compressed, or anything.
    """
    try:
        with mapped.loaded(path) as arrays:
            return len(np.asarray(arrays["outputs"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _num_inputs(job: Job) -> int:
    """Count the raw samples."""
    try:
        return len(mapped.arrays(str(job.inputs)).get("inputs", ()))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TargetError(f"{job.inputs.name} cannot be read: {error}; make it again") from error


@contextmanager
def started(
    job: Job, what: str, *, time_limit_s: float | None = None, **request: Any
) -> Iterator[Worker]:
    """Start a worker, which is killed at the end if it still runs.

    Args:
        job: what to run, where.
        what: ``latency`` or ``outputs``, as in `pipeline.runtimes.tasks`.
        time_limit_s: for the start, and again for the work; None goes by what is asked for.
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
            limit_s = time_limit_s or _time_limit_s(job, what, request)
            outputs_there = f"{scratch}/{OUTPUTS}"
            worker = Worker(
                process, noise, job, what, transport, limit_s, there, outputs_there, request
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


def _start_limit_s(target: params.Target) -> float:
    return EMULATED_TIME_LIMIT_S if target.evidence == "emulated" else TIME_LIMIT_S


def _time_limit_s(job: Job, what: str, request: Mapping[str, Any]) -> float:
    """Return how long the work may take: more, the more is asked for."""
    limit_s = _start_limit_s(job.target)
    if what == "outputs":
        limit_s += _num_inputs(job) * RUN_LIMIT_S
    elif what == "latency":
        plan = request["plan"]
        times_s = (plan["warmup_ns"] + plan["timed_ns"]) / NS_PER_S
        limit_s += TIMES_LIMIT_RATIO * times_s + plan["min_samples"] * RUN_LIMIT_S
    elif what == "scenario":
        load = request["load"]
        timed_ns = max(scenarios.LIMIT_NS, scenarios.LIMIT_RATIO * load["timed_ns"])
        limit_s += TIMES_LIMIT_RATIO * load["warmup_ns"] / NS_PER_S
        limit_s += scenarios.OVERRUN_RATIO * timed_ns / NS_PER_S
    return math.ceil(limit_s)


def _reply(worker: Worker, said: str) -> dict[str, Any]:
    """Return the last line's document, or raise what went wrong."""
    reply = base.document(said)
    returncode = worker.process.returncode
    worker.noise.seek(0)
    noise = worker.noise.read()
    on_the_way = worker.transport.failure(returncode, noise, replied=base.is_error(reply))
    if on_the_way is not None:  # whatever the code: adb may take 0 when the line breaks
        raise TargetError(f"{worker.where}: {on_the_way}")
    if returncode != runner.DONE:
        raise _failure(worker, returncode, reply)
    if worker.transport.ours and reply is not None:
        _check_source(worker, reply)
    else:
        replies.check(reply, f"run {worker.what}", f"{worker.where}: {worker.transport.where}")
    assert reply is not None
    if worker.what == "latency":
        _check_samples(worker, reply)
    return reply


def _check_samples(worker: Worker, reply: dict[str, Any]) -> None:
    """Refuse fewer samples than were asked for: a percentile would rest on too few."""
    found, asked = len(reply["samples_ns"]), worker.asked["plan"]["min_samples"]
    by_turns = sum(reply.get("samples_per_turn") or [found])
    if found >= asked and found == by_turns:
        return
    what = f"took {found} samples where min_samples is {asked}"
    if found != by_turns:
        what = f"took {found} samples and tells of turns with {by_turns}"
    raise TargetError(
        f"{worker.where}: {worker.transport.where}: the runner {what}; {base.PROTOCOL_PAGE} says "
        "how, and `slipway runner check` finds what differs"
    )


def _failure(worker: Worker, returncode: int, reply: dict[str, Any] | None) -> TargetError:
    assert reply is not None  # or the transport had said so
    if worker.transport.ours:
        _check_source(worker, reply)
    line = str(reply["error"]).replace(f"{worker.folder}/", "")[: base.MAX_LINE_LENGTH]
    kind = ModelRefusedError if returncode == runner.REFUSED else TargetError
    return kind(f"{worker.where}: {line}")


def _check_source(worker: Worker, reply: dict[str, Any]) -> None:
    """Refuse another version of our own runner."""
    if reply.get("source_digest") != runner.source_digest():
        raise TargetError(
            f"{worker.transport.where} holds another version of slipway than this one and would "
            "measure other code; run make setup"
        )
