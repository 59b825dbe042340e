"""Start a measuring worker in a target's environment and turn what goes wrong into one line.

What trying again may mend (killed, too slow, stale wheel) is a `TargetError`; that the runtime
refuses the model is permanent and a `ModelRefusedError`.
"""

import json
import select
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.runtimes import worker
from pipeline.targets import tools

MODULE = "pipeline.runtimes.worker"
# A worker takes seconds; what takes this long hangs, or starves.
TIME_LIMIT_S = 300.0
# The wheel's own parent folder: a worker of the build environment runs the code that this process
# runs.
HOME = Path(worker.__file__).parents[2]
MAX_ERROR_LENGTH = 300
RESULT, STDERR = "result.json", "stderr"  # in a worker's folder


class ModelRefusedError(TargetError):
    """The runtime refuses this model: an operator or type that it does not have."""


@dataclass(frozen=True)
class Job:
    """One artifact on one target: its model file, its own preprocessing, raw inputs (npz)."""

    model: Path
    preprocessing: manifest.Preprocessing
    inputs: Path
    target: params.Target
    environments: Path | None = None


def job_of(
    artifact: Path, inputs: Path, target: params.Target, environments: Path | None = None
) -> Job:
    """Verify an artifact's bytes and describe the job of running it on the inputs.

    Raises:
        ManifestError: bytes differ from the manifest, or it holds no one file to load.
    """
    described = manifest.verify(artifact, manifest.BESIDE)  # it may be one that was pulled
    model = artifact / manifest.model_file(described, str(artifact))
    return Job(model, described.preprocessing, inputs, target, environments)


@dataclass(frozen=True)
class Worker:
    """A started worker: it imports its runtime, and uses no processor from there until `result`."""

    process: Popen[str]
    folder: Path
    job: Job
    command: str
    time_limit_s: float

    def wait(self) -> None:
        """Wait until it is ready, or has ended before that.

        Raises:
            TargetError: it takes too long; nothing was measured.
        """
        # readable at its first line, or at its end
        if not select.select([self.process.stdout], [], [], self.time_limit_s)[0]:  # type: ignore[type-var]
            raise self._too_long()

    def result(self) -> Any:
        """Let it run its command, and return what that gives.

        Raises:
            ModelRefusedError: the runtime refuses the model at load.
            TargetError: anything else; nothing was measured.
        """
        self.wait()
        try:
            said, _ = self.process.communicate("go\n", timeout=self.time_limit_s)
        except TimeoutExpired as error:
            raise self._too_long() from error
        if self.process.returncode != 0:
            noise = (self.folder / STDERR).read_text(encoding="utf-8", errors="replace")
            raise _failure(self.process.returncode, said, noise, self.command, self.job)
        reply = json.loads((self.folder / RESULT).read_bytes())
        _check_source(reply, self.job.target.profile.environment)
        return reply

    def _too_long(self) -> TargetError:
        return TargetError(
            f"{_where(self.command, self.job)}: the worker took longer than "
            f"{self.time_limit_s:g} s and was killed; close other programs and run dvc repro again"
        )


def call(job: Job, command: str, *, time_limit_s: float = TIME_LIMIT_S, **request: Any) -> Any:
    """Run one command in a worker of its own and return its result: `started`, `Worker.result`."""
    with started(job, command, time_limit_s=time_limit_s, **request) as worker:
        return worker.result()


@contextmanager
def started(
    job: Job, command: str, *, time_limit_s: float = TIME_LIMIT_S, **request: Any
) -> Iterator[Worker]:
    """Start a worker, which is killed at the end if it still runs.

    Args:
        job: what to run, where.
        command: ``time`` or ``outputs``, as in `pipeline.runtimes.worker`.
        time_limit_s: for the start, and again for the command.
        request: the command's own settings.

    Raises:
        TargetError: the target's environment was never made.
    """
    environment = job.target.profile.environment
    python = tools.environment_python(environment, job.environments)
    with tempfile.TemporaryDirectory(prefix="slipway-") as name:
        folder = Path(name)
        document = {
            "command": command,
            "runtime": job.target.runtime,
            "model": str(job.model.absolute()),
            "num_threads": job.target.profile.num_threads,
            "inputs": str(job.inputs.absolute()),
            "preprocessing": job.preprocessing,
            "result": str(folder / RESULT),
            "wait": True,
            **request,
        }
        path = folder / "request.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        with (
            (folder / STDERR).open("w") as noise,  # a pipe would fill up while nobody reads
            Popen(
                [str(python), "-m", MODULE, str(path)],
                # elsewhere than here for a foreign environment: it finds its own wheel alone
                cwd=HOME if environment == tools.BUILD else folder,
                stdin=PIPE,
                stdout=PIPE,
                stderr=noise,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                yield Worker(process, folder, job, command, time_limit_s)
            finally:
                process.kill()


def _failure(returncode: int, said: str, noise: str, command: str, job: Job) -> TargetError:
    where = _where(command, job)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return TargetError(
            f"{where}: the worker was killed by {name}; free memory or close other programs, "
            "and run dvc repro again"
        )
    try:
        reply = json.loads(said.splitlines()[-1])
        line = reply["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = (noise.strip().splitlines() or ["no message"])[-1]
        return TargetError(
            f"{where}: no worker in environment {job.target.profile.environment}: "
            f"{last[:MAX_ERROR_LENGTH]}; run make setup"
        )
    _check_source(reply, job.target.profile.environment)
    line = line.replace(f"{job.model.absolute().parent}/", "")[:MAX_ERROR_LENGTH]
    kind = ModelRefusedError if reply.get("refused") else TargetError
    return kind(f"{where}: {line}")


def _check_source(reply: dict[str, Any], environment: str) -> None:
    if reply.get("source_digest") != worker.source_digest():
        raise TargetError(
            f"environment {environment} holds another version of slipway than this one and would "
            "measure other code; run make setup"
        )


def _where(command: str, job: Job) -> str:
    return f"{command} of {job.model.parent.name}/{job.model.name} on {job.target.runtime}"
