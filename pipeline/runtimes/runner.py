"""The runner: a short-lived process with numpy and one runtime in it, here or on a device.

Three commands, as docs/runner-protocol.md says for whoever writes another one:

``describe``  what this device is, and which runtimes with their versions are here
``load``      load the model; its inputs and outputs, and the memory that it adds
``run``       one thing asked for (``what``):
    ``latency``  load, first request, warm-up until steady, then raw samples. One sample is
                 preprocessed and encoded beforehand, so a run is: copy in, run, copy out, in the
                 artifact's dtypes.
    ``outputs``  the resident memory that loading and a few runs add to the process at their peak;
                 then every raw sample through preprocessing and artifact, one at a time; floats
                 out (npz).
    ``scenario`` MultiStream, Server or Offline (`pipeline.runtimes.scenarios`).
    ``layers``   times of single operators, where the runtime tells them.
    ``energy``   many runs between two times of idling (`pipeline.runtimes.meters`); lines with a
                 ``mark`` say where each begins and ends.
    ``loadgen``  what MLPerf's LoadGen finds (`pipeline.runtimes.loadgen`), where it is installed.

The request of ``load`` and ``run`` is a line of JSON on standard input, the reply the last line on
standard output. Asked to ``wait``, it imports its runtime, says so by a line, and does the rest
when another line comes in: others then start beside it before any is timed. Asked for `latency` in
``turns``, it goes on like that at each of them (`pipeline.runtimes.turns`).

Samples of a model with several inputs are a structured array [N] with a field for each, which go in
by name, each through its own preprocessing; several outputs come out as one likewise.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import pkgutil
import platform
import select
import signal
import sys
import threading
import traceback
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, TextIO, Tuple

from pipeline.runtimes import device_lock, machine, scenarios, tasks
from pipeline.runtimes.errors import RunnerError

PROTOCOL = 1
# Exit codes; REFUSED and ABSENT last until another model, or a runtime, is there.
DONE, FAILED, MISUSED, REFUSED, ABSENT, BUSY = 0, 1, 2, 3, 4, 5
# The distributions that each runtime may come in.
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "litert": ("ai-edge-litert",),
    "tflite_runtime": ("tflite-runtime",),
    "openvino": ("openvino",),
    "tflite_micro": ("tflite-micro",),
    "tensorrt": ("tensorrt-rtx", "tensorrt"),
}
RUNTIMES = tuple(DISTRIBUTIONS)
SOURCE_DIGEST = "SOURCE_DIGEST"  # in a zipapp, whose sources cannot be listed
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def source_digest() -> str:
    """Return the digest of the code that a runner runs, as installed here.

    The host compares it with its own: a stale wheel in an environment would measure other code.
    """
    room = Path(__file__).parent
    if not room.is_dir():
        kept = pkgutil.get_data(__package__, SOURCE_DIGEST)
        assert kept is not None  # written with the zipapp
        return kept.decode("ascii")
    sha256 = hashlib.sha256()
    for path in [*sorted(room.glob("*.py")), room.parent / "preprocessing.py"]:
        sha256.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return "sha256:" + sha256.hexdigest()


def main(arguments: List[str], requests: TextIO, replies: TextIO) -> int:
    """Run the command that the arguments name and return the exit code.

    Args:
        arguments: ``describe``, ``load`` or ``run``.
        requests: gives the request's line and, when asked to wait, the line to go on.
        replies: gets the reply's line.
    """
    try:
        reply, code = _command(arguments, requests, replies), DONE
    except _FAILURES as error:
        line = " ".join((str(error) or type(error).__name__).split())
        reply, code = {"error": line}, _CODES.get(type(error), FAILED)
    except Exception as error:  # noqa: BLE001 - whatever it was, the host must hear it
        traceback.print_exc()
        line = " ".join(("%s: %s" % (type(error).__name__, error)).split())
        reply, code = {"error": line}, FAILED
    replies.write("\n" + json.dumps({**reply, **_identity()}) + "\n")
    replies.flush()
    return code


_FAILURES = (
    RunnerError,
    tasks.RefusedError,
    tasks.AbsentError,
    tasks.MisusedError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
)
_CODES: Dict[type, int] = {
    tasks.MisusedError: MISUSED,
    tasks.RefusedError: REFUSED,
    tasks.AbsentError: ABSENT,
    scenarios.LoadError: MISUSED,
    device_lock.BusyError: BUSY,
}


def _command(arguments: List[str], requests: TextIO, replies: TextIO) -> Dict[str, Any]:
    command = arguments[0] if len(arguments) == 1 else None
    if command == "describe":
        return _describe()
    if command not in ("load", "run"):
        raise tasks.MisusedError("commands are describe, load, run; got %r" % (arguments,))
    try:
        request = json.loads(requests.readline())
    except ValueError as error:
        raise tasks.MisusedError("the request is no line of JSON: %s" % error) from error
    if not isinstance(request, dict) or request.get("protocol") != PROTOCOL:
        raise tasks.MisusedError(
            "the request is not of protocol %d; update slipway here" % PROTOCOL
        )
    perform = tasks.load_only if command == "load" else _asked_for(request)
    _check_request(request, perform)
    if request.get("wait"):
        tasks.adapter_of(request)
        replies.write(json.dumps({"ready": True}) + "\n")
        replies.flush()
        if not requests.readline():
            raise RunnerError("whoever asked is gone")
    if perform is tasks.energy:
        return tasks.energy(request, functools.partial(_put_mark, replies))
    if perform is tasks.latency and request.get("turns") is not None:
        return tasks.latency_in_turns(request, requests, replies)
    return perform(request)


def _put_mark(replies: TextIO, name: str) -> None:
    """Say it in a line of its own before the reply: the host may read a meter meanwhile."""
    replies.write(json.dumps({"mark": name}) + "\n")
    replies.flush()


def _asked_for(request: tasks.Request) -> tasks.Perform:
    for what, perform in tasks.WHATS.items():
        if request.get("what") == what:
            return perform
    raise tasks.MisusedError(
        "what is one of %s; got %r" % (", ".join(tasks.WHATS), request.get("what"))
    )


def _check_request(request: tasks.Request, perform: tasks.Perform) -> None:
    """Raise `MisusedError` where a key is missing or has a value of another type."""
    keys = {
        **tasks.LOAD_KEYS,
        **({} if perform is tasks.load_only else tasks.RUN_KEYS),
        **tasks.KEYS.get(perform, {}),
    }
    missing = [key for key in keys if key not in request]
    if missing:
        raise tasks.MisusedError("the request lacks %s" % ", ".join(missing))
    for key, kinds in keys.items():
        if not isinstance(request[key], kinds) or isinstance(request[key], bool):
            raise tasks.MisusedError("the request has %s %r" % (key, request[key]))
    if request["num_threads"] < 1:
        raise tasks.MisusedError("num_threads is at least 1, got %d" % request["num_threads"])
    if request["runtime"] not in RUNTIMES:
        raise tasks.MisusedError(
            "runtime %r is not known; known: %s" % (request["runtime"], ", ".join(RUNTIMES))
        )


def _describe() -> Dict[str, Any]:
    found = {runtime: _version(names) for runtime, names in DISTRIBUTIONS.items()}
    return {
        "runner": "slipway",
        "device": machine.describe(),
        "runtimes": {runtime: version for runtime, version in found.items() if version},
    }


def _version(distributions: Tuple[str, ...]) -> Optional[str]:
    found = [each for name in distributions for each in metadata.distributions(name=name)]
    return found[0].version if found else None


def _identity() -> Dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "source_digest": source_digest(),
        "python": platform.python_version(),
    }


def _die_with_parent() -> None:
    """Be killed when the host's process is, which must leave no worker behind. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_unread(descriptor: int) -> None:
    """End this process when nobody can read its replies any more: the line to the host broke."""
    line = select.poll()
    line.register(descriptor, 0)  # which leaves that the other end is closed
    line.poll()
    os._exit(FAILED)


def _own_output() -> TextIO:
    """Keep standard output for our lines: what the runtime prints goes to standard error."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


def start() -> None:
    """Be a runner process, from here to its end."""
    _die_with_parent()
    replies = _own_output()
    # it sleeps in the kernel meanwhile
    threading.Thread(target=_die_unread, args=(replies.fileno(),), daemon=True).start()
    code = main(sys.argv[1:], sys.stdin, replies)
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # what the runtime printed
    os._exit(code)  # all is written; taking a runtime's threads down takes up to a fifth of a start


if __name__ == "__main__":
    start()
