"""Adapter ``openvino``: an OpenVINO IR (model.xml, model.bin) on OpenVINO's CPU plugin.

What precision runs is the artifact's own statement, ``slipway`` in its ``rt_info``: the plugin by
itself would execute fp32 files in bfloat16 on CPUs that have it. What really ran is read back from
the compiled graph, and a model that runs in another precision than it states is refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

# Two modules that openvino does without. The first would tell its vendor of every import and write
# a client id into the home folder (2026.4; the variable CI stops it only as "true"). The second
# converts models, of which running one has no use, and is half of the time that an import takes.
_CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
_is_hidden = sys.modules.setdefault(_CONVERTER, None) is None  # type: ignore[arg-type]

import openvino  # noqa: E402 - after the lines above

if _is_hidden:
    del sys.modules[_CONVERTER]  # whoever converts imports it by this name

from pipeline.runtimes.errors import RunnerError  # noqa: E402 - likewise
from pipeline.runtimes.layers import NUM_WARMUP_RUNS, row  # noqa: E402 - likewise
from pipeline.runtimes.session import Array, Tensor, check_batch  # noqa: E402 - likewise

DEVICE = "CPU"
# Keys of the statement in rt_info, under STATEMENT.
STATEMENT, PRECISION, HINT = "slipway", "precision", "inference_precision"
# What each precision asks of the plugin for whatever is not int8.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16-weights": "f32", "int8-static": "f32"}
REFUSALS = (RuntimeError, TypeError, ValueError)
INTEGERS = ("i8", "u8")
HALVES = ("bf16", "f16")
# A node's `primitiveType` is kernel, instructions, precision: brgconv_avx512_I8. Its
# `runtimePrecision` is no witness: of a convolution computed in fp32 with fp16 weights it says f16.
NO_KERNEL = "unknown"  # constants and views, which run nothing
# Lines of an exception that say where in OpenVINO's source it was thrown, or nothing.
_LOCATIONS = ("Exception from", "Check '", "FrontEnd API failed with", "Summary:")
REORDER = "Reorder"  # moves data between layouts and types; computes nothing
NUM_COUNTING_SESSIONS = 5
_NS_PER_US = 1000


def load(model: str, num_threads: int, batch_size: int = 1) -> OpenvinoSession:
    """Load an IR. Raises `RunnerError` when OpenVINO refuses it or runs another precision."""
    return OpenvinoSession(model, num_threads, batch_size)


def layers(
    model: str, num_threads: int, sample_inputs: List[Array], num_runs: int
) -> List[Dict[str, Any]]:
    """Return a row for each node that executes (`pipeline.runtimes.layers`).

    Of a node OpenVINO tells only the mean of all its runs in a session, in whole microseconds. So
    ``num_runs`` are spread over `NUM_COUNTING_SESSIONS` sessions; a node's time is the median of
    their means, without the runs of the warm-up, to about two microseconds. ``provider`` is the
    kernel with its instructions and precision.

    Raises:
        RunnerError: as `load`.
    """
    runs = -(-num_runs // NUM_COUNTING_SESSIONS)
    times: Dict[Tuple[int, str, str, str], List[float]] = {}
    for _ in range(NUM_COUNTING_SESSIONS):
        session = OpenvinoSession(model, num_threads, counting=True)
        for _ in range(NUM_WARMUP_RUNS):
            session.run(sample_inputs)
        before = session.means_us()
        for _ in range(runs):
            session.run(sample_inputs)
        for key, mean_us in session.means_us().items():
            total_us = mean_us * (NUM_WARMUP_RUNS + runs) - before[key] * NUM_WARMUP_RUNS
            times.setdefault(key, []).append(max(0.0, total_us / runs * _NS_PER_US))
    return [row(name, kind, found, kernel) for (_, name, kind, kernel), found in times.items()]


class OpenvinoSession:
    """See `pipeline.runtimes.session.Session`."""

    def __init__(
        self, model: str, num_threads: int, batch_size: int = 1, counting: bool = False
    ) -> None:
        """Compile for lowest latency: one stream, ``num_threads`` on one operator at a time.

        ``counting`` notes the time of each node, which `means_us` returns.
        """
        core = openvino.Core()
        what = "the model" if batch_size == 1 else "a batch of %d of the model" % batch_size
        try:
            ir = core.read_model(model)
            stated = statement(ir)
            _check_capability(stated, core)
            if batch_size != 1:
                _widen(ir, batch_size)
            settings = _settings(stated, num_threads)
            if counting:
                settings["PERF_COUNT"] = "YES"
            compiled = core.compile_model(ir, DEVICE, settings)
            plan = executed(compiled)
            self._request = compiled.create_infer_request()
            self.inputs = tuple(_tensor(port) for port in compiled.inputs)
            self.outputs = tuple(_tensor(port) for port in compiled.outputs)
            # views of the request's own memory; all shapes are static
            self._taken = [self._request.get_tensor(port).data for port in compiled.inputs]
            self._given = [self._request.get_tensor(port).data for port in compiled.outputs]
        except REFUSALS as error:
            raise RunnerError(
                "OpenVINO %s refuses %s: %s" % (_version(), what, reason(error))
            ) from error
        check_batch((*self.inputs, *self.outputs), batch_size, "the IR")
        check_executed(stated[PRECISION], plan["executed_precisions"])
        self.facts: Dict[str, Any] = {
            "runtime": "openvino",
            "version": _version(),
            "provider": DEVICE,
            "kernel_library": "oneDNN",
            "num_threads": num_threads,
            "inference_precision": stated[HINT],
            **plan,
        }

    def run(self, inputs: Sequence[Array]) -> List[Array]:
        """Run one request; the outputs are the caller's own arrays."""
        for tensor, memory, value in zip(self.inputs, self._taken, inputs):  # noqa: B905 - 3.8
            if value.shape != memory.shape or value.dtype != memory.dtype:
                raise RunnerError(
                    "OpenVINO input %r takes %s %s, got %s %s"
                    % (tensor.name, memory.dtype, memory.shape, value.dtype, value.shape)
                )
            np.copyto(memory, value)
        try:
            self._request.infer()
        except REFUSALS as error:
            raise RunnerError("OpenVINO refuses the request: %s" % reason(error)) from error
        return [memory.copy() for memory in self._given]

    def means_us(self) -> Dict[Tuple[int, str, str, str], float]:
        """Return the mean time of all runs so far by place, name, type and kernel of a node.

        What became part of another node, or does nothing, is left out.
        """
        executed = openvino.ProfilingInfo.Status.EXECUTED
        return {
            (place, info.node_name, info.node_type, info.exec_type): info.real_time
            / timedelta(microseconds=1)
            for place, info in enumerate(self._request.get_profiling_info())
            if info.status == executed
        }


def _widen(ir: openvino.Model, batch_size: int) -> None:
    """Set the first axis of every input; raises what OpenVINO raises when the graph forbids it."""
    shapes = {port: port.get_partial_shape() for port in ir.inputs}
    ir.reshape({port: [batch_size, *list(shape)[1:]] for port, shape in shapes.items()})


def statement(ir: openvino.Model) -> Dict[str, str]:
    """Return what the model states: its ``precision`` and ``inference_precision``."""
    for key in (PRECISION, HINT):
        if not ir.has_rt_info([STATEMENT, key]):
            raise RunnerError(
                "the IR states no %s in its rt_info, and the plugin's choice differs between CPUs; "
                "convert it with slipway" % key
            )
    stated = {key: ir.get_rt_info([STATEMENT, key]).astype(str) for key in (PRECISION, HINT)}
    if HINTS.get(stated[PRECISION]) != stated[HINT]:
        raise RunnerError(
            "the IR states precision %s in %s; known: %s; convert it again"
            % (stated[PRECISION], stated[HINT], ", ".join(HINTS))
        )
    return stated


def executed(compiled: openvino.CompiledModel) -> Dict[str, Any]:
    """Read from the compiled graph what will run.

    Returns:
        ``executed_precisions`` and ``kernels``: how many nodes compute in each, by the plugin's
        names in lower case; ``num_executed_nodes`` their sum; ``num_reorders`` of data beside them;
        ``num_fused_operators`` that became part of another operator's node.
    """
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kernels = [node for node in nodes if not _text(node, "primitiveType").startswith(NO_KERNEL)]
    computing = [node for node in kernels if _text(node, "layerType") != REORDER]
    precisions = Counter(_text(node, "primitiveType").split("_")[-1].lower() for node in computing)
    names = Counter(
        "%s %s" % (_text(node, "layerType"), _text(node, "primitiveType")) for node in computing
    )
    return {
        "executed_precisions": dict(sorted(precisions.items())),
        "kernels": dict(sorted(names.items())),
        "num_executed_nodes": len(computing),
        "num_reorders": len(kernels) - len(computing),
        "num_fused_operators": sum(
            max(0, len(_text(node, "originalLayersNames").split(",")) - 1) for node in computing
        ),
    }


def check_executed(precision: str, counts: Mapping[str, int]) -> None:
    """Refuse a model of which another precision than it states would run.

    Args:
        precision: what it states.
        counts: computing nodes by the plugin's names of precisions.
    """
    ran = ", ".join("%d %s" % (count, name) for name, count in counts.items()) or "none"
    halves = sum(counts.get(name, 0) for name in HALVES)
    integers = sum(counts.get(name, 0) for name in INTEGERS)
    wrong = {
        "fp32": halves > 0,
        "fp16-weights": halves > 0,
        "bf16": counts.get("bf16", 0) == 0,
        "int8-static": integers == 0 or halves > 0,
    }
    if wrong[precision]:
        raise RunnerError(
            "the model states %s, but OpenVINO's plan has nodes in %s; leave %s out of the "
            "target's precisions" % (precision, ran, precision)
        )


def reason(error: BaseException) -> str:
    """Return the telling lines of an exception of OpenVINO, without its source locations."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [
        line for line in lines if line and not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(telling) or type(error).__name__


def _check_capability(stated: Mapping[str, str], core: openvino.Core) -> None:
    """Refuse bfloat16 where the CPU has no instructions for it: the plugin would imitate them."""
    if stated[HINT] == "bf16" and "BF16" not in core.get_property(
        DEVICE, "OPTIMIZATION_CAPABILITIES"
    ):
        raise RunnerError(
            "the model states bf16, and this CPU has no bfloat16 instructions (AVX512-BF16 or "
            "AMX); use the fp32 candidate"
        )


def _settings(stated: Mapping[str, str], num_threads: int) -> Dict[str, str]:
    return {
        "INFERENCE_PRECISION_HINT": stated[HINT],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        # It would pin its threads to the first cores: those of every session, in every process, to
        # the same ones (2026.4.1, seen in /proc/self/task/*/status).
        "ENABLE_CPU_PINNING": "NO",
    }


def _tensor(port: openvino.ConstOutput) -> Tensor:
    shape = tuple(int(axis) for axis in port.shape)
    return Tensor(port.any_name, np.dtype(port.element_type.to_dtype()).name, shape)


def _text(node: Any, key: str) -> str:
    """Read one entry of a node of the compiled graph; all of them are strings."""
    return str(node[key].astype(str))


def _version() -> str:
    return str(openvino.__version__.split("-")[0])
