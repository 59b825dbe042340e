"""An ONNX file to LiteRT by onnx2tf and TensorFlow, which have an environment of their own.

They work in a process of that environment (`tensorflow_worker`). onnx2tf turns images from NCHW to
NHWC, LiteRT's layout, and guesses where; so the outputs are compared with the ONNX file's, there
and again here on the finished file, in LiteRT. Shapes: N samples.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from pipeline import processes
from pipeline.conversion import candidates, onnx_file, onnx_run, tensorflow_worker
from pipeline.errors import ConversionError, TargetError
from pipeline.runtimes import structured
from pipeline.targets import tools
from pipeline.targets.tools import CONVERT_TENSORFLOW, ONNX_LOWERING_TOOLS

NUM_SAMPLES = 8  # compared; a swapped layout or a wrong axis shows on the first
TIME_LIMIT_S = 900.0
CHANNELS_LAST, CHANNELS_FIRST, AS_IS = "channels_last", "channels_first", "as_is"


@dataclass(frozen=True)
class LoweredOnnx:
    """The fp32 .tflite, batch 1; how each input is laid out; the largest difference seen."""

    content: bytes
    layouts: Mapping[str, str]
    max_abs_error: float


def lower(path: Path, samples: NDArray[Any], max_abs_error: float) -> LoweredOnnx:
    """Give the file in LiteRT's format, with the ONNX file's names in signature serving_default.

    Args:
        path: an adopted (or exported) ONNX file.
        samples: [N, ...] preprocessed for the ONNX file, a structured array for several inputs; the
            first NUM_SAMPLES are compared.
        max_abs_error: the largest difference allowed of any output, as export.max_abs_error.

    Returns:
        ``layouts`` maps each input to ``channels_last`` where the file takes [1, ..., C] for the
        ONNX file's [1, C, ...], else to ``channels_first`` or ``as_is``: the ONNX file's own.

    Raises:
        ConversionError: an operator has no form there, named with its node; or the outputs differ,
            with both numbers.
        TargetError: the environment is absent or broken.
    """
    chosen = samples[:NUM_SAMPLES]
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        here = Path(folder)
        model = _prepared(path, here)
        names = [value.name for value in model.graph.input]
        feeds = onnx_run.feeds(names, chosen)
        expected = onnx_run.run(path.read_bytes(), chosen, batch=1)
        tries = _tries(model)
        nodes = onnx_file.number_names(model)
        onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), here / "model.onnx")
        arrays = {f"inputs_{number}": feeds[name][:, None] for number, name in enumerate(names)}
        for number, values in enumerate(expected.values()):
            arrays[f"outputs_{number}"] = values[:, None]
        np.savez(here / "samples.npz", **arrays)  # type: ignore[arg-type]
        request = {
            "model": str(here / "model.onnx"),
            "inputs": names,
            "outputs": list(expected),
            "samples": str(here / "samples.npz"),
            "tries": [list(layouts.values()) for layouts in tries],
            "max_abs_error": max_abs_error,
            "lowered": str(here / "model.tflite"),
            "result": str(here / "result.json"),
        }
        reply = _ask(request, here)
        if "difference" in reply:
            raise ConversionError(_differs("onnx2tf", reply["difference"], max_abs_error))
        if "error" in reply:
            raise ConversionError(_reason(reply, nodes))
        content, layouts = (here / "model.tflite").read_bytes(), tries[reply["try"]]
    found = _run_tflite(content, feeds, layouts)
    error = max(float(np.abs(found[name] - expected[name]).max()) for name in expected)
    if not error <= max_abs_error:  # NaN too
        raise ConversionError(_differs("litert", error, max_abs_error))
    return LoweredOnnx(content, layouts, error)


def versions(environments: Path | None = None) -> dict[str, str]:
    """Return the versions of what lowers, in its environment."""
    place = environments or tools.environments_path()
    return {
        tool: tools.version(tool, CONVERT_TENSORFLOW, place) or tools.ABSENT
        for tool in ONNX_LOWERING_TOOLS
    }


def arranged(samples: NDArray[Any], layouts: Mapping[str, str]) -> NDArray[Any]:
    """Lay samples [N, ...] out as the lowered file takes them."""
    if samples.dtype.names is None:
        (layout,) = layouts.values()
        return _arranged(samples, layout)
    return structured.join({n: _arranged(samples[n], layouts[n]) for n in samples.dtype.names})


def _arranged(samples: NDArray[Any], layout: str) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(samples, 1, -1) if layout == CHANNELS_LAST else samples)


def _prepared(path: Path, folder: Path) -> onnx.ModelProto:
    """Fix the batch at 1 and fold constants, so that every shape is known.

    ONNX Runtime's basic level folds and removes; it fuses nothing that is not in the standard.
    """
    fixed, folded = folder / "fixed.onnx", folder / "folded.onnx"
    model = onnx.load(path)
    onnx_file.set_batch(model, 1)
    onnx.save(model, fixed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = onnx_run.LOG_ERRORS
    with candidates.refusals("onnxruntime", *onnx_run.REFUSALS):
        onnxruntime.InferenceSession(fixed, options, providers=["CPUExecutionProvider"])
    return onnx.load(folded)


def _tries(model: onnx.ModelProto) -> list[dict[str, str]]:
    """List the layouts to try, by input in their order; the one LiteRT profits from first."""
    found = {
        tensor.name: (tensor.layout, len(tensor.shape))
        for tensor in onnx_file.signature(model).inputs
    }
    tries = [
        {
            name: CHANNELS_LAST
            if layout == "NCHW"
            else CHANNELS_FIRST
            if num_axes in (3, 5) and layout is None
            else AS_IS
            for name, (layout, num_axes) in found.items()
        },
        {n: CHANNELS_FIRST if axes in (3, 4, 5) else AS_IS for n, (_, axes) in found.items()},
        dict.fromkeys(found, AS_IS),
    ]
    return [item for number, item in enumerate(tries) if item not in tries[:number]]


def _ask(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the worker; what TensorFlow prints goes where this process prints, which is a log."""
    python = tools.environment_python(CONVERT_TENSORFLOW)
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    script = Path(tensorflow_worker.__file__).absolute()
    too_long = ConversionError(
        f"onnx2tf took longer than {TIME_LIMIT_S:g} s and was stopped; is the model this large?"
    )
    arguments = [str(python), "-I", str(script), str(folder / "request.json")]
    done = processes.run(arguments, work, (TIME_LIMIT_S, too_long))
    print(done.stdout, done.stderr, flush=True)  # noqa: T201 - the stage's log
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}".strip()
        last = (said.splitlines() or ["no message"])[-1]
        raise TargetError(
            f"environment {CONVERT_TENSORFLOW} fails: {last[: candidates.MAX_REASON_LENGTH]}; "
            "run make setup"
        )
    reply: dict[str, Any] = json.loads(Path(request["result"]).read_bytes())
    return reply


def _differs(what: str, error: float, allowed: float) -> str:
    return (
        f"{what}: outputs differ from the ONNX file's by {error:.3g}, allowed {allowed:g} "
        "(export.max_abs_error); raise it, or replace the layer that differs"
    )


def _reason(reply: dict[str, Any], nodes: Mapping[str, str]) -> str:
    line = candidates.shortened(reply["error"])
    if "node" not in reply:
        return f"onnx2tf refuses the model: {line}"
    return (
        f"litert does not support operator {reply['operator']}, node {nodes[reply['node']]!r}: "
        f"{line}; replace the layer"
    )


def _run_tflite(
    content: bytes, feeds: Mapping[str, NDArray[Any]], layouts: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Run each sample alone in LiteRT and return the outputs [N, ...] by name."""
    from ai_edge_litert.interpreter import Interpreter

    with candidates.refusals("litert"):
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(tensorflow_worker.SIGNATURE)
        laid = {name: _arranged(value, layouts[name]) for name, value in feeds.items()}
        rows = [
            runner(**{name: value[row : row + 1] for name, value in laid.items()})
            for row in range(len(next(iter(laid.values()))))
        ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
