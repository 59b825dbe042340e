"""Start a measuring worker in a target's environment and turn what goes wrong into one line.

What trying again may mend (killed, too slow, stale wheel) is a `TargetError`; that the runtime
refuses the model is permanent and a `ModelRefusedError`.
"""

import json
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from pipeline import manifest, params, processes
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
    described = manifest.verify(artifact)
    model = artifact / manifest.model_file(described, str(artifact))
    return Job(model, described.preprocessing, inputs, target, environments)


def call(job: Job, command: str, *, time_limit_s: float = TIME_LIMIT_S, **request: Any) -> Any:
    """Run one command in a worker of its own and return its result.

    Args:
        job: what to run, where.
        command: ``time`` or ``outputs``, as in `pipeline.runtimes.worker`.
        time_limit_s: after this the worker is killed.
        request: the command's own settings.

    Raises:
        ModelRefusedError: the runtime refuses the model at load.
        TargetError: anything else; nothing was measured.
    """
    environment = job.target.profile.environment
    python = tools.environment_python(environment, job.environments)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path, result = Path(folder) / "request.json", Path(folder) / "result.json"
        document = {
            "command": command,
            "runtime": job.target.runtime,
            "model": str(job.model.absolute()),
            "num_threads": job.target.profile.num_threads,
            "inputs": str(job.inputs.absolute()),
            "preprocessing": job.preprocessing,
            "result": str(result),
            **request,
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        # elsewhere than here for a foreign environment, so that it finds its own wheel alone
        home = HOME if environment == tools.BUILD else Path(folder)
        too_long = TargetError(
            f"{_where(command, job)}: the worker took longer than {time_limit_s:g} s and was "
            "killed; close other programs and run dvc repro again"
        )
        arguments = [str(python), "-m", MODULE, str(path)]
        done = processes.run(arguments, home, (time_limit_s, too_long))
        if done.returncode == 0:
            reply = json.loads(result.read_bytes())
            _check_source(reply, environment)
            return reply
    raise _failure(done, command, job)


def _failure(done: CompletedProcess[str], command: str, job: Job) -> TargetError:
    where = _where(command, job)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return TargetError(
            f"{where}: the worker was killed by {name}; free memory or close other programs, "
            "and run dvc repro again"
        )
    try:
        reply = json.loads(done.stdout.splitlines()[-1])
        line = reply["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
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
