"""Adapter ``onnxruntime``: an ONNX file on ONNX Runtime's CPU provider."""

from __future__ import annotations

import bisect
import json
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from pipeline.runtimes.errors import RunnerError
from pipeline.runtimes.layers import NUM_WARMUP_RUNS, row
from pipeline.runtimes.session import Array, Tensor, check_batch

PROVIDER = "CPUExecutionProvider"
LOG_ERRORS = 3
# How a profile names a request, and ends the name of an operator's event.
_RUN, _KERNEL = "model_run", "_kernel_time"
_NS_PER_US = 1000
# ONNX Runtime's exceptions share no base class of their own.
REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def load(model: str, num_threads: int, batch_size: int = 1) -> OnnxSession:
    """Load an ONNX file. Raises `RunnerError` when ONNX Runtime or its CPU provider refuses it."""
    session = OnnxSession(model, num_threads)
    check_batch((*session.inputs, *session.outputs), batch_size, "the ONNX file")
    return session


def layers(
    model: str, num_threads: int, sample_inputs: List[Array], num_runs: int
) -> List[Dict[str, Any]]:
    """Return a row for each operator of a request (`pipeline.runtimes.layers`).

    ONNX Runtime's profile has whole microseconds. What noting an operator takes is in its time,
    several of them (an Identity takes 6 us in 1.31), so that all may sum to more than a request
    takes. ``provider`` is the execution provider that ran it.

    Raises:
        RunnerError: ONNX Runtime refuses the model, or its profile lacks runs.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        session = OnnxSession(model, num_threads, profile=str(Path(folder) / "profile"))
        for _ in range(NUM_WARMUP_RUNS + num_runs):
            session.run(sample_inputs)
        events = session.end_profile()
    return rows_of(events, num_runs)


def rows_of(events: Sequence[Dict[str, Any]], num_runs: int) -> List[Dict[str, Any]]:
    """Make the rows of the last ``num_runs`` runs in a profile.

    What runs within an operator (the body of a loop) is in that operator's time alone; an operator
    that runs several times a request counts with their sum.
    """
    starts = sorted(event["ts"] for event in events if event["name"] == _RUN)
    if len(starts) < num_runs:
        raise RunnerError(
            "ONNX Runtime's profile holds %d of %d runs; ask for fewer" % (len(starts), num_runs)
        )
    times: Dict[Tuple[str, str, str, str], List[int]] = {}
    end = 0
    nodes = [event for event in events if event["name"].endswith(_KERNEL)]
    for event in sorted(nodes, key=lambda event: (event["ts"], -event["dur"])):
        place = bisect.bisect_right(starts, event["ts"]) - 1 - (len(starts) - num_runs)
        if event["ts"] < end or place < 0:
            continue
        end = event["ts"] + event["dur"]
        about = event["args"]
        name = event["name"][: -len(_KERNEL)]
        key = (about["node_index"], name, about["op_name"], about["provider"])
        times.setdefault(key, [0] * num_runs)[place] += event["dur"] * _NS_PER_US
    return [row(name, kind, found, by) for (_, name, kind, by), found in times.items()]


class OnnxSession:
    """See `pipeline.runtimes.session.Session`."""

    def __init__(self, model: str, num_threads: int, profile: Optional[str] = None) -> None:
        """Load the file; ``num_threads`` work on one operator at a time.

        ``profile`` begins the path of a file for the times of operators, which `end_profile` reads.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_ERRORS
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
        except REFUSALS as error:
            raise RunnerError(
                "ONNX Runtime %s refuses the model: %s" % (onnxruntime.__version__, error)
            ) from error
        providers = list(self._session.get_providers())
        assert providers == [PROVIDER]
        self.inputs = tuple(_tensor(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value) for value in self._session.get_outputs())
        self.facts: Dict[str, Any] = {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": PROVIDER,
            "providers": providers,
            "kernel_library": "MLAS",
            "graph_optimization_level": options.graph_optimization_level.name,
            "num_threads": num_threads,
        }
        self._names = [tensor.name for tensor in self.inputs]

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        try:
            feed = dict(zip(self._names, inputs))  # noqa: B905 - Python 3.8
            outputs: List[Array] = self._session.run(None, feed)
        except REFUSALS as error:
            raise RunnerError("ONNX Runtime refuses the request: %s" % error) from error
        return outputs

    def end_profile(self) -> List[Dict[str, Any]]:
        """Stop noting times and return the events of all runs."""
        path = Path(self._session.end_profiling())
        events: List[Dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return events


def _tensor(value: Any) -> Tensor:
    if value.type not in DTYPES:
        raise RunnerError("%r has type %s; use one of %s" % (value.name, value.type, list(DTYPES)))
    # an axis without a name arrives as None
    shape = tuple(axis if isinstance(axis, (int, str)) else "?" for axis in value.shape)
    return Tensor(value.name, DTYPES[value.type], shape)
