"""The measuring worker: a short-lived process with numpy and one runtime in it.

``python -m pipeline.runtimes.worker REQUEST.json`` runs one command and writes its result as JSON:

``time``     load, first request, warm-up until steady, then raw samples. One sample is preprocessed
             and encoded beforehand, so a run is: copy in, run, copy out, in the artifact's dtypes.
``outputs``  the resident memory that loading and a few runs add to the process at their peak; then
             every raw sample through preprocessing and artifact, one at a time; floats out (npz).

Asked to ``wait``, it imports its runtime, says so by a line on standard output, and does the rest
when a line comes in: others then start beside it before any is timed.

Samples of a model with several inputs are a structured array [N] with a field for each, which go in
by name, each through its own preprocessing; several outputs come out as one likewise.

Exit 0; or 1 with one line of JSON on standard output: ``error``, and ``refused`` true when the
runtime refused the model at load, which trying again cannot mend.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, cast

import numpy as np

from pipeline import preprocessing
from pipeline.runtimes import clock, host, mapped
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Session, decode_all, encode_all

RUNTIMES = ("onnxruntime", "litert", "tflite_runtime", "openvino", "tflite_micro", "tensorrt")
NUM_MEMORY_RUNS = 10
CHUNK = 64  # samples preprocessed at once: enough to be quick, and little memory
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

Request = Mapping[str, Any]


class _RefusedError(Exception):
    """The runtime refused the model at load."""


def source_digest() -> str:
    """Return the digest of the code that a worker runs, as installed here.

    The host compares it with its own: a stale wheel in an environment would measure other code.
    """
    room = Path(__file__).parent
    sha256 = hashlib.sha256()
    for path in [*sorted(room.glob("*.py")), room.parent / "preprocessing.py"]:
        sha256.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return "sha256:" + sha256.hexdigest()


def main(arguments: List[str]) -> int:
    """Run the one request named by the arguments and return the exit code."""
    try:
        (path,) = arguments
        request = json.loads(Path(path).read_text(encoding="utf-8"))
        if request.get("wait"):
            _adapter(request)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            if not sys.stdin.readline():
                return 1  # whoever asked is gone
        result = _COMMANDS[request["command"]](request)
    except (_RefusedError, RunnerError, OSError, ValueError, KeyError) as error:
        line = " ".join((str(error) or type(error).__name__).split())
        failure = {"error": line, "refused": isinstance(error, _RefusedError), **_identity()}
        sys.stdout.write("\n" + json.dumps(failure) + "\n")
        return 1
    Path(request["result"]).write_text(json.dumps({**result, **_identity()}), encoding="utf-8")
    return 0


def _time(request: Request) -> Dict[str, Any]:
    adapter, raw = _adapter(request), _raw_inputs(request)
    before = host.state()
    cpu_before = host.cpu_time()
    start = time.perf_counter_ns()
    session = _load(adapter, request)
    loaded = time.perf_counter_ns()
    sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
    ready = time.perf_counter_ns()
    session.run(sample)
    first = time.perf_counter_ns()
    timing = clock.time_runs(lambda: session.run(sample), clock.Plan(**request["plan"]))
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
    }


def _load_and_weigh(adapter: Any, request: Request, tensor: Array) -> Tuple[Session, Optional[int]]:
    """Load the model; also give what that and a few runs add to the resident memory, in bytes."""
    can_tell = host.reset_peak()
    before = host.resident_bytes()
    session = _load(adapter, request)
    sample = encode_all(tensor, session.inputs)
    for _ in range(NUM_MEMORY_RUNS):
        session.run(sample)
    peak = host.peak_resident_bytes()
    if not can_tell or before is None or peak is None:
        return session, None
    return session, peak - before


_COMMANDS: Dict[str, Callable[[Request], Dict[str, Any]]] = {
    "time": _time,
    "outputs": _outputs,
}


def _adapter(request: Request) -> Any:
    """Import the one runtime's adapter, by name from the closed set."""
    runtime = request["runtime"]
    if runtime not in RUNTIMES:
        raise RunnerError("runtime %r is not known; known: %s" % (runtime, ", ".join(RUNTIMES)))
    try:
        return importlib.import_module("pipeline.runtimes." + runtime)
    except ImportError as error:
        raise RunnerError(
            "runtime %s cannot be imported: %s; run make setup" % (runtime, error)
        ) from error


def _load(adapter: Any, request: Request) -> Session:
    try:
        return cast(Session, adapter.load(request["model"], request["num_threads"]))
    except RunnerError as error:
        raise _RefusedError(str(error)) from error


def _raw_inputs(request: Request) -> Array:
    raw = cast(Array, mapped.arrays(request["inputs"])["inputs"])
    if not len(raw):
        raise RunnerError("%s holds no inputs" % Path(request["inputs"]).name)
    return raw


def _preprocess(request: Request, raw: Array) -> Array:
    return cast(Array, preprocessing.apply_all(request["preprocessing"], raw))


def _digest(sample: List[Array]) -> str:
    """Digest the encoded inputs in the session's order."""
    sha256 = hashlib.sha256()
    for tensor in sample:
        sha256.update(tensor.tobytes())
    return "sha256:" + sha256.hexdigest()


def _identity() -> Dict[str, Any]:
    return {"source_digest": source_digest(), "python": platform.python_version()}


def _die_with_parent() -> None:
    """Be killed when the host's process is, which must leave no worker behind. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_output() -> None:
    """Keep standard output for our one line: what the runtime prints goes to standard error."""
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w", encoding="utf-8")


if __name__ == "__main__":
    _die_with_parent()
    _own_output()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # what the runtime printed
    os._exit(code)  # all is written; taking a runtime's threads down takes up to a fifth of a start
