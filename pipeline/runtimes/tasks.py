"""What a runner can be asked for, once it has a request that is well-formed.

The keys are those of docs/runner-protocol.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TextIO, Tuple, cast

import numpy as np

from pipeline import preprocessing
from pipeline.runtimes import clock, device_lock, host, mapped, scenarios, turns
from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.session import Array, Session, Tensor, decode_all, encode_all

NUM_MEMORY_RUNS = 10
NUM_LOAD_SAMPLES = 64  # a load goes through them again and again
CHUNK = 64  # samples preprocessed at once: enough to be quick, and little memory

Request = Mapping[str, Any]
Perform = Callable[[Request], Dict[str, Any]]


class RefusedError(Exception):
    """The runtime refused the model at load."""


class AbsentError(Exception):
    """The runtime is not installed here."""


class MisusedError(Exception):
    """The request is not one of this protocol."""


def load_only(request: Request) -> Dict[str, Any]:
    """Load the model, and tell of its tensors."""
    can_tell = host.reset_peak()
    before = host.resident_bytes()
    adapter = adapter_of(request)
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


def latency(request: Request) -> Dict[str, Any]:
    """Time one sample, again and again."""
    plan = _plan(request)
    adapter, raw = adapter_of(request), _raw_inputs(request)
    with device_lock.held(request.get("lock")):
        return _timed(adapter, raw, request, plan)


def latency_in_turns(request: Request, requests: TextIO, replies: TextIO) -> Dict[str, Any]:
    """Time one sample in turns, which lines of ``requests`` begin."""
    plan, asked = _plan(request), request["turns"]
    if not turns.are_well_formed(asked):
        raise MisusedError("turns takes %s, whole numbers; got %r" % (", ".join(turns.KEYS), asked))
    turns.use_cores(asked["core"] * request["num_threads"], request["num_threads"])
    adapter, raw = adapter_of(request), _raw_inputs(request)
    own = turns.Turns(asked["turn_ns"], request.get("lock"), requests, replies)
    with contextlib.closing(own):
        own.begin()
        return _timed(adapter, raw, request, plan, own)


def _plan(request: Request) -> clock.Plan:
    plan = request["plan"]
    if set(plan) != set(clock.Plan._fields) or not all(type(n) is int for n in plan.values()):
        raise MisusedError(
            "plan takes %s, whole numbers; got %r" % (", ".join(clock.Plan._fields), plan)
        )
    return clock.Plan(**plan)


def _timed(
    adapter: Any,
    raw: Array,
    request: Request,
    plan: clock.Plan,
    own: Optional[turns.Turns] = None,
) -> Dict[str, Any]:
    before = host.state()
    busy = own.busy if own is not None else host.OthersWatch()
    busy.start()  # again, in turns: the load counts too, the wait for the lock does not
    start = time.perf_counter_ns()
    session = _load(adapter, request)
    loaded = time.perf_counter_ns()
    sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
    ready = time.perf_counter_ns()
    session.run(sample)
    first = time.perf_counter_ns()
    timing = clock.time_runs(lambda: session.run(sample), plan, turns=own)
    busy.stop()
    return {
        "load_ns": loaded - start,
        "first_ns": first - ready,
        **timing.document(),
        "facts": session.facts,
        "input_digest": _digest(sample),
        "host_before": before,
        "host_after": host.state(),
        "others_ratio": busy.ratio(),
    }


def _outputs(request: Request) -> Dict[str, Any]:
    adapter, raw = adapter_of(request), _raw_inputs(request)
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
    adapter, raw = adapter_of(request), _raw_inputs(request)
    tensors = _preprocess(request, raw[:NUM_LOAD_SAMPLES])
    with device_lock.held(request.get("lock")):
        return scenarios.run_load(_opener(adapter, request), tensors, request["load"])


def _loadgen(request: Request) -> Dict[str, Any]:
    adapter, raw = adapter_of(request), _raw_inputs(request)
    try:
        loadgen = importlib.import_module("pipeline.runtimes.loadgen")
    except ImportError as error:
        raise AbsentError(
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
    adapter, raw = adapter_of(request), _raw_inputs(request)
    if not hasattr(adapter, "layers"):
        raise RunnerError("%s tells no times of single operators" % request["runtime"])
    session = _load(adapter, request)
    sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
    with device_lock.held(request.get("lock")):
        rows = adapter.layers(request["model"], request["num_threads"], sample, request["num_runs"])
    return {"layers": rows, "facts": session.facts}


def energy(request: Request, mark: Callable[[str], None] = lambda _name: None) -> Dict[str, Any]:
    """Run and idle before a meter; ``mark`` gets the names of what begins and ends."""
    from pipeline.runtimes import meters  # half of the room, and seldom asked for

    adapter, raw = adapter_of(request), _raw_inputs(request)
    with device_lock.held(request.get("lock")):
        session = _load(adapter, request)
        sample = encode_all(_preprocess(request, raw[:1]), session.inputs)
        return meters.measure(
            lambda: session.run(sample), request["meter"], request["window_ns"], mark=mark
        )


WHATS: Dict[str, Perform] = {
    "latency": latency,
    "outputs": _outputs,
    "scenario": _scenario,
    "layers": _layers,
    "energy": energy,
    "loadgen": _loadgen,
}
# What a request must hold, and as what.
LOAD_KEYS: Dict[str, Any] = {"runtime": str, "model": str, "num_threads": int}
RUN_KEYS: Dict[str, Any] = {"inputs": str, "preprocessing": (list, dict)}
KEYS: Dict[Perform, Dict[str, Any]] = {
    latency: {"plan": dict},
    _outputs: {"outputs": str},
    _scenario: {"load": dict},
    _layers: {"num_runs": int},
    energy: {"meter": str, "window_ns": int},
    _loadgen: {"loadgen": dict},
}


def adapter_of(request: Request) -> Any:
    """Import the one runtime's adapter, by name from the closed set."""
    runtime = request["runtime"]
    try:
        return importlib.import_module("pipeline.runtimes." + runtime)
    except ImportError as error:
        raise AbsentError(
            "runtime %s cannot be imported: %s; install it there" % (runtime, error)
        ) from error


def _load(adapter: Any, request: Request) -> Session:
    model = _model_file(request)
    try:
        return cast(Session, adapter.load(model, request["num_threads"]))
    except RunnerError as error:
        raise RefusedError(str(error)) from error


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
