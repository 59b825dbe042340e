"""What several tests measure with: targets in every place, artifacts of tiny models, processes."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import manifest, params
from pipeline.errors import TargetError
from pipeline.transports import probe
from pipeline.transports.conformance.subject import TINY

ENVIRONMENTS = Path(__file__).parents[2] / ".venvs"
QUICK = {"warmup_ns": 0, "timed_ns": 1_000_000, "min_samples": 4}
LIMIT_S = 60.0


def target_of(connection=None, environment="build", runtime="tflite_runtime") -> params.Target:
    """Return a target of a .tflite file, on a device or in an environment."""
    return params.Target(
        converter="to_litert",
        runtime=runtime,
        connection=connection,
        convert=params.Convert(precisions=("fp32",)),
        profile=params.Profile(environment=environment),
        select=params.Select(),
    )


def assert_not_reached(connection: params.Connection, words: str) -> None:
    """Ask a device that cannot be reached: one line says why."""
    with pytest.raises(TargetError, match=words) as caught:
        probe.ask(connection)
    assert "\n" not in str(caught.value)


def write_artifact(folder: Path, content: "bytes | Path | None" = None, steps=()) -> Path:
    """Write an artifact of a .tflite file: the tiny dense one, these bytes, or another's."""
    folder.mkdir(parents=True)
    if isinstance(content, bytes):
        (folder / "model.tflite").write_bytes(content)
    else:
        source = content or TINY / "dense.tflite"
        shutil.copyfile(source, folder / f"model{source.suffix}")
    manifest.write(folder, model="tiny", stage="convert", preprocessing=steps)
    return folder


def processes_in(folder: Path) -> dict[int, str]:
    """List the processes whose current folder this is, with their command lines."""
    found = {}
    for process in _processes():
        path = Path("/proc", str(process))
        with suppress(OSError):  # it ended
            if (path / "cwd").readlink() == folder:
                found[process] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _opened(process: int) -> list[Path]:
    with suppress(OSError):  # it ended
        return [path.readlink() for path in Path(f"/proc/{process}/fd").iterdir()]
    return []


def runner_that_holds(lock: Path) -> int:
    """Wait for the runner that has opened a device's lock, and return its process."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        for process in _processes():
            if any(path == lock for path in _opened(process)):
                return process
        time.sleep(0.02)
    raise AssertionError(f"nobody timed under {lock}")


def none_in(folder: Path) -> bool:
    """Wait until no process is in a folder; False when that takes too long."""
    end = time.monotonic() + LIMIT_S
    while processes_in(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def kill(process: int) -> None:
    """Kill a process of the device's."""
    os.kill(process, 9)
