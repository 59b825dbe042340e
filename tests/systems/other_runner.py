#!/usr/bin/env python3
"""A runner that is not slipway's: ONNX Runtime alone, written from docs/runner-protocol.md.

An example for whoever writes one in another language. It imports nothing of slipway.
"""

import fcntl
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np

DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
SAMPLE_NS = 100_000


class FailureError(Exception):
    """Ends the runner with a code of the protocol and one line."""

    def __init__(self, code, line):
        super().__init__(line)
        self.code = code


def describe(_request):
    device = {
        "arch": platform.machine(),
        "cpu_model": platform.processor() or "unknown",
        "isa_flags": [],
        "num_cores": os.cpu_count(),
        "accelerator": "none",
    }
    return {"runner": "other 1.0", "device": device, "runtimes": {"onnxruntime": version()}}


def version():
    return metadata.version("onnxruntime")


def load(request):
    start = time.perf_counter_ns()
    session = open_session(request)
    return {
        "load_ns": time.perf_counter_ns() - start,
        "peak_memory_bytes": None,
        "facts": {"version": version(), "provider": "CPUExecutionProvider"},
        "inputs": [tensor(value) for value in session.get_inputs()],
        "outputs": [tensor(value) for value in session.get_outputs()],
    }


def open_session(request):
    import onnxruntime

    if not Path(request["model"]).is_file():
        raise FailureError(1, f"{request['model']} is not here; send it first")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["num_threads"]
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            request["model"], options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise FailureError(3, f"ONNX Runtime refuses the model: {error}") from error


def tensor(value):
    shape = [axis if isinstance(axis, int) else str(axis) for axis in value.shape]
    dtype = DTYPES[value.type]
    return {"name": value.name, "dtype": dtype, "shape": shape, "scale": None, "zero_point": None}


def run(request):
    try:
        with np.load(request["inputs"]) as arrays:
            samples = arrays["inputs"]
    except OSError as error:
        raise FailureError(1, f"{request['inputs']}: {error}; send it first") from error
    return WHATS[request["what"]](request, samples)


def preprocess(steps, samples):
    found = samples.astype(np.float32)
    for step in steps:
        if step["step"] == "scale":
            found = found * np.float32(step["factor"])
        elif step["step"] == "normalize":
            found = (found - np.array(step["mean"])) / np.array(step["std"])
        else:
            raise FailureError(1, f"step {step['step']} is not known here; leave it out")
    return found


def feed(request, session, sample):
    """Give every input its tensor: the sample [1, ...] itself, or its field of that name."""
    steps, inputs = request["preprocessing"], session.get_inputs()
    names = sample.dtype.names
    found = {}
    for value in inputs:
        part = preprocess(steps[value.name], sample[value.name]) if names else (
            preprocess(steps, sample)
        )  # fmt: skip
        found[value.name] = part.astype(DTYPES[value.type])
    return found


def outputs(request, samples):
    session = open_session(request)
    names = [value.name for value in session.get_outputs()]
    rows = [session.run(None, feed(request, session, samples[[i]])) for i in range(len(samples))]
    parts = [np.concatenate(part).astype(np.float32) for part in zip(*rows, strict=True)]
    found = parts[0]
    if len(parts) > 1:
        fields = [(name, "f4", part.shape[1:]) for name, part in zip(names, parts, strict=True)]
        found = np.empty(len(samples), fields)
        for name, part in zip(names, parts, strict=True):
            found[name] = part
    np.savez(request["outputs"], outputs=found)
    return {
        "num_samples": len(samples),
        "peak_memory_bytes": None,
        "facts": {"version": version()},
        "tensors": [tensor(value) for value in session.get_outputs()],
    }


def latency(request, samples):
    with lock(request.get("lock")):
        start = time.perf_counter_ns()
        session = open_session(request)
        loaded = time.perf_counter_ns()
        tensors = feed(request, session, samples[:1])
        first = sample_ns(session, tensors, 1)
        taken, runs, num_warmup, steady = measure(session, tensors, request["plan"])
    digest = hashlib.sha256(b"".join(part.tobytes() for part in tensors.values())).hexdigest()
    return {
        "load_ns": loaded - start,
        "first_ns": first,
        "samples_ns": taken,
        "runs_per_sample": runs,
        "num_warmup": num_warmup,
        "steady": steady,
        "loop_overhead_ns": 0.0,
        "facts": {"version": version()},
        "input_digest": f"sha256:{digest}",
        "host_before": {},
        "host_after": {},
        "others_ratio": None,
    }


def measure(session, tensors, plan):
    runs = 1
    while statistics.median(sample_ns(session, tensors, runs) for _ in range(5)) < 2 * SAMPLE_NS:
        runs *= 2
    warm, start = [], time.perf_counter_ns()
    while time.perf_counter_ns() - start < plan["warmup_ns"]:
        warm.append(sample_ns(session, tensors, runs))
    steady = len(warm) >= 10 and max(warm[-10:]) < 1.02 * min(warm[-10:])
    taken, start = [], time.perf_counter_ns()
    while len(taken) < plan["min_samples"] or time.perf_counter_ns() - start < plan["timed_ns"]:
        taken.append(sample_ns(session, tensors, runs))
    return taken, runs, len(warm) * runs + 10 * runs, steady


def sample_ns(session, tensors, runs):
    start = time.perf_counter_ns()
    for _ in range(runs):
        session.run(None, tensors)
    return time.perf_counter_ns() - start


@contextmanager
def lock(path):
    if path is None:
        yield
        return
    with Path(path).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


COMMANDS = {"describe": describe, "load": load, "run": run}
WHATS = {"outputs": outputs, "latency": latency}
KEYS = {
    "load": ("model", "num_threads"),
    "run": ("model", "num_threads", "inputs", "preprocessing"),
}


def read(command, text):
    """Return the request that a line holds, or say why it is none."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise FailureError(2, f"no JSON: {error}") from error
    if request.get("protocol") != 1:
        raise FailureError(2, f"protocol {request.get('protocol')!r} is not 1")
    if request.get("runtime") != "onnxruntime":
        raise FailureError(2, f"runtime {request.get('runtime')!r} is not known here")
    if command == "run" and request.get("what") not in WHATS:
        raise FailureError(2, f"what {request.get('what')!r} is not known here")
    missing = [key for key in KEYS[command] if key not in request]
    if missing:
        raise FailureError(2, f"{missing} is missing")
    return request


def wait(request):
    if request.get("wait"):
        say(json.dumps({"ready": True}))
        if not sys.stdin.readline():
            raise FailureError(1, "nobody is there")


def answer(arguments):
    """Return the reply and the exit code."""
    try:
        if len(arguments) != 1 or arguments[0] not in COMMANDS:
            raise FailureError(2, f"commands are {list(COMMANDS)}, not {arguments}")
        (command,) = arguments
        request = {} if command == "describe" else read(command, sys.stdin.readline())
        wait(request)
        return COMMANDS[command](request), 0
    except FailureError as error:
        return {"error": " ".join(str(error).split())}, error.code


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def start():
    say("other 1.0: what stands before the reply is noise")
    reply, code = answer(sys.argv[1:])
    say(json.dumps({"protocol": 1, **reply}))
    sys.exit(code)


if __name__ == "__main__":
    start()
