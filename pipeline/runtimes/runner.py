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
when another line comes in: others then start beside it before any is timed.

Samples of a model with several inputs are a structured array [N] with a field for each, which go in
by name, each through its own preprocessing; several outputs come out as one likewise.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import json
import os
import pkgutil
import platform
import select
import signal
import sys
import threading
import time
import traceback
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TextIO, Tuple, cast

import numpy as np

from pipeline import preprocessing
from pipeline.runtimes import clock, device_lock, host, machine, mapped, scenarios
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Session, Tensor, decode_all, encode_all

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
NUM_MEMORY_RUNS = 10
NUM_LOAD_SAMPLES = 64  # a load goes through them again and again
CHUNK = 64  # samples preprocessed at once: enough to be quick, and little memory
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

Request = Mapping[str, Any]
Perform = Callable[[Request], Dict[str, Any]]


class _RefusedError(Exception):
    """The runtime refused the model at load."""


class _AbsentError(Exception):
    """The runtime is not installed here."""


class _MisusedError(Exception):
    """The request is not one of this protocol."""


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
    _RefusedError,
    _AbsentError,
    _MisusedError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
)
_CODES: Dict[type, int] = {
    _MisusedError: MISUSED,
    _RefusedError: REFUSED,
    _AbsentError: ABSENT,
    scenarios.LoadError: MISUSED,
    device_lock.BusyError: BUSY,
}


def _command(arguments: List[str], requests: TextIO, replies: TextIO) -> Dict[str, Any]:
    command = arguments[0] if len(arguments) == 1 else None
    if command == "describe":
        return _describe()
    if command not in ("load", "run"):
        raise _MisusedError("commands are describe, load, run; got %r" % (arguments,))
    try:
        request = json.loads(requests.readline())
    except ValueError as error:
        raise _MisusedError("the request is no line of JSON: %s" % error) from error
    if not isinstance(request, dict) or request.get("protocol") != PROTOCOL:
        raise _MisusedError("the request is not of protocol %d; update slipway here" % PROTOCOL)
    perform = _load_only if command == "load" else _asked_for(request)
    _check_request(request, perform)
    if request.get("wait"):
        _adapter(request)
        replies.write(json.dumps({"ready": True}) + "\n")
        replies.flush()
        if not requests.readline():
            raise RunnerError("whoever asked is gone")
    if perform is _energy:
        return _energy(request, functools.partial(_put_mark, replies))
    return perform(request)


def _put_mark(replies: TextIO, name: str) -> None:
    """Say it in a line of its own before the reply: the host may read a meter meanwhile."""
    replies.write(json.dumps({"mark": name}) + "\n")
    replies.flush()


def _asked_for(request: Request) -> Perform:
    for what, perform in _WHATS.items():
        if request.get("what") == what:
            return perform
    raise _MisusedError("what is one of %s; got %r" % (", ".join(_WHATS), request.get("what")))


def _check_request(request: Request, perform: Perform) -> None:
    """Raise `_MisusedError` where a key is missing or has a value of another type."""
    keys = {**_LOAD_KEYS, **({} if perform is _load_only else _RUN_KEYS), **_KEYS.get(perform, {})}
    missing = [key for key in keys if key not in request]
    if missing:
        raise _MisusedError("the request lacks %s" % ", ".join(missing))
    for key, kinds in keys.items():
        if not isinstance(request[key], kinds) or isinstance(request[key], bool):
            raise _MisusedError("the request has %s %r" % (key, request[key]))
    if request["num_threads"] < 1:
        raise _MisusedError("num_threads is at least 1, got %d" % request["num_threads"])
    if request["runtime"] not in RUNTIMES:
        raise _MisusedError(
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


def _load_only(request: Request) -> Dict[str, Any]:
    can_tell = host.reset_peak()
    before = host.resident_bytes()
    adapter = _adapter(request)
    start = time.perf_counter_ns()
    session = _load(adapter, request)
    load_ns = time.perf_counter_ns() - start
    return {
        "load_ns": load_ns,
        "peak_memory_bytes": _added_bytes(before) if can_tell else None,
        "facts": session.facts,
        "inputs": _described(session.inputs),
        "outputs": _described(session.outputs),
    }


def _latency(request: Request) -> Dict[str, Any]:
    plan = _plan(request)
    adapter, raw = _adapter(request), _raw_inputs(request)
    with device_lock.held(request.get("lock")):
        return _timed(adapter, raw, request, plan)


def _plan(request: Request) -> clock.Plan:
    plan = request["plan"]
    if set(plan) != set(clock.Plan._fields) or not all(type(n) is int for n in plan.values()):
        raise _MisusedError(
            "plan takes %s, whole numbers; got %r" % (", ".join(clock.Plan._fields), plan)
        )
    return clock.Plan(**plan)


def _timed(adapter: Any, raw: Array, request: Request, plan: clock.Plan) -> Dict[str, Any]:
    before = host.state()
    cpu_before = host.cpu_time()
    start = time.perf_counter_ns()
    session = _load(adapter, request)
    loaded = time.perf_counter_ns()
    sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
    ready = time.perf_counter_ns()
    session.run(sample)
    first = time.perf_counter_ns()
    timing = clock.time_runs(lambda: session.run(sample), plan)
    return {
        "load_ns": loaded - start,
        "first_ns": first - ready,
        **timing.document(),
        "facts": session.facts,
        "input_digest": _digest(sample),
        "host_before": before,
        "host_after": host.state(),
        "others_ratio": host.others_ratio(cpu_before, host.cpu_time()),
    }


def _outputs(request: Request) -> Dict[str, Any]:
    adapter, raw = _adapter(request), _raw_inputs(request)
    session, peak_memory_bytes = _load_and_weigh(adapter, request, _preprocess(request, raw[:1]))
    found = []
    for start in range(0, len(raw), CHUNK):
        tensors = _preprocess(request, raw[start : start + CHUNK])
        for index in range(len(tensors)):
            sample = encode_all(tensors[index : index + 1], session.inputs)
            found.append(decode_all(session.run(sample), session.outputs))
    np.savez(request["outputs"], outputs=np.concatenate(found))
    return {
        "num_samples": len(raw),
        "peak_memory_bytes": peak_memory_bytes,
        "facts": session.facts,
        "tensors": _described(session.outputs),
    }


def _described(tensors: Tuple[Tensor, ...]) -> List[Dict[str, Any]]:
    return [tensor._asdict() for tensor in tensors]


def _load_and_weigh(adapter: Any, request: Request, tensor: Array) -> Tuple[Session, Optional[int]]:
    """Load the model; also give what that and a few runs add to the resident memory, in bytes."""
    can_tell = host.reset_peak()
    before = host.resident_bytes()
    session = _load(adapter, request)
    sample = encode_all(tensor, session.inputs)
    for _ in range(NUM_MEMORY_RUNS):
        session.run(sample)
    return session, _added_bytes(before) if can_tell else None


def _added_bytes(before: Optional[int]) -> Optional[int]:
    """Return how far the resident memory rose above what it was; None where it is not told."""
    peak = host.peak_resident_bytes()
    return None if before is None or peak is None else max(peak - before, 0)


def _scenario(request: Request) -> Dict[str, Any]:
    adapter, raw = _adapter(request), _raw_inputs(request)
    tensors = _preprocess(request, raw[:NUM_LOAD_SAMPLES])
    with device_lock.held(request.get("lock")):
        return scenarios.run_load(_opener(adapter, request), tensors, request["load"])


def _loadgen(request: Request) -> Dict[str, Any]:
    adapter, raw = _adapter(request), _raw_inputs(request)
    try:
        loadgen = importlib.import_module("pipeline.runtimes.loadgen")
    except ImportError as error:
        raise _AbsentError(
            "LoadGen cannot be imported: %s; pip install 'slipway[mlperf]' there" % error
        ) from error
    tensors = _preprocess(request, raw[:NUM_LOAD_SAMPLES])
    with device_lock.held(request.get("lock")):
        reply = loadgen.run_load(_opener(adapter, request), tensors, request["loadgen"])
    return cast(Dict[str, Any], reply)


def _opener(adapter: Any, request: Request) -> Callable[[int, int], Session]:
    """Return what opens a session of the model by ``num_threads`` and ``batch_size``."""
    model = _model_file(request)

    def load_model(num_threads: int, batch_size: int) -> Session:
        return cast(Session, adapter.load(model, num_threads, batch_size))

    return load_model


def _layers(request: Request) -> Dict[str, Any]:
    adapter, raw = _adapter(request), _raw_inputs(request)
    if not hasattr(adapter, "layers"):
        raise RunnerError("%s tells no times of single operators" % request["runtime"])
    session = _load(adapter, request)
    sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
    with device_lock.held(request.get("lock")):
        rows = adapter.layers(request["model"], request["num_threads"], sample, request["num_runs"])
    return {"layers": rows, "facts": session.facts}


def _energy(request: Request, mark: Callable[[str], None] = lambda _name: None) -> Dict[str, Any]:
    from pipeline.runtimes import meters  # half of the room, and seldom asked for

    adapter, raw = _adapter(request), _raw_inputs(request)
    with device_lock.held(request.get("lock")):
        session = _load(adapter, request)
        sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
        return meters.measure(
            lambda: session.run(sample), request["meter"], request["window_ns"], mark=mark
        )


_WHATS: Dict[str, Perform] = {
    "latency": _latency,
    "outputs": _outputs,
    "scenario": _scenario,
    "layers": _layers,
    "energy": _energy,
    "loadgen": _loadgen,
}
# What a request must hold, and as what.
_LOAD_KEYS: Dict[str, Any] = {"runtime": str, "model": str, "num_threads": int}
_RUN_KEYS: Dict[str, Any] = {"inputs": str, "preprocessing": (list, dict)}
_KEYS: Dict[Perform, Dict[str, Any]] = {
    _latency: {"plan": dict},
    _outputs: {"outputs": str},
    _scenario: {"load": dict},
    _layers: {"num_runs": int},
    _energy: {"meter": str, "window_ns": int},
    _loadgen: {"loadgen": dict},
}


def _adapter(request: Request) -> Any:
    """Import the one runtime's adapter, by name from the closed set."""
    runtime = request["runtime"]
    try:
        return importlib.import_module("pipeline.runtimes." + runtime)
    except ImportError as error:
        raise _AbsentError(
            "runtime %s cannot be imported: %s; install it there" % (runtime, error)
        ) from error


def _load(adapter: Any, request: Request) -> Session:
    model = _model_file(request)
    try:
        return cast(Session, adapter.load(model, request["num_threads"]))
    except RunnerError as error:
        raise _RefusedError(str(error)) from error


def _model_file(request: Request) -> str:
    """Return the model's path; that no file is there is no refusal of the model."""
    if not Path(request["model"]).is_file():
        raise RunnerError("%s is no file here" % request["model"])
    return cast(str, request["model"])


def _raw_inputs(request: Request) -> Array:
    found = mapped.arrays(request["inputs"]).get("inputs")
    if found is None or not len(found):
        raise RunnerError("%s holds no inputs" % Path(request["inputs"]).name)
    return cast(Array, found)


def _preprocess(request: Request, raw: Array) -> Array:
    return cast(Array, preprocessing.apply_all(request["preprocessing"], raw))


def _digest(sample: List[Array]) -> str:
    """Digest the encoded inputs in the session's order."""
    sha256 = hashlib.sha256()
    for tensor in sample:
        sha256.update(tensor.tobytes())
    return "sha256:" + sha256.hexdigest()


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
