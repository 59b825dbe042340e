"""ONNX to OpenVINO's IR (model.xml, model.bin) for CPUs: fp32, bf16, fp16 weights, static int8.

Batch is fixed at 1: that is what a target runs, most of OpenVINO's devices need static shapes, and
NNCF and the plugin fold what depends on them. Shapes: N samples.
"""

import io
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from pipeline import manifest, params
from pipeline.compatibility import INTEGER_RULES
from pipeline.conversion import candidates, onnx_file
from pipeline.conversion.candidates import Description, Outcome, Variant
from pipeline.errors import ConversionError
from pipeline.runtimes import openvino as adapter
from pipeline.runtimes.errors import RunnerError

FILE_NAME = "model.xml"
RULES = INTEGER_RULES["to_openvino"]
NET_NAME = "net"
# "No conversion rule found for operations: mine.Foo, Det-20", "Conversion is failed for: Concat-20"
_REFUSED = re.compile(
    r"-- (?:No conversion rule found for operations|Conversion is failed for): (.+)"
)
# What OpenVINO calls a node that has no name, by a counter that runs through the process.
_GENERATED_NAME = re.compile(r"([A-Za-z]+)_\d+(?=$|/)")


def convert(
    variant: Variant,
    precisions: Sequence[params.Precision],
    calibration: NDArray[Any],
    cfg: params.Convert,
    out: Path,
) -> list[Outcome]:
    """Make ``out/CANDIDATE/model.xml`` and ``.bin`` for each precision; float32 in and out.

    Args:
        variant: of its ONNX file only first axes may be dynamic.
        precisions: of fp32, bf16 (fp32 weights, computed in bfloat16), fp16-weights (computed in
            fp32), int8-static (computed in int8, the rest in fp32).
        calibration: [N, ...] preprocessed, with a field an input where there are several.
            int8-static takes ranges from the first ``cfg.num_calibration`` by NNCF; or, where the
            variant learned its ranges, from its own Q/DQ file.
        cfg: ``num_calibration``.
        out: where the candidates' folders are made.

    Returns:
        One outcome a precision, in their order. Same inputs, same tools: same bytes.

    Raises:
        ConversionError: a precision that is not made here, or too few calibration samples.
    """
    candidates.check_precisions("to_openvino", precisions)
    learned = variant.onnx.with_name(candidates.QDQ_NAME).is_file()
    samples = (
        calibration[:0] if learned else candidates.choose_samples(calibration, cfg, precisions)
    )

    def make(precision: params.Precision) -> dict[str, bytes]:
        if precision != "int8-static":
            model = _read(variant.onnx)
        elif learned:
            model = _read(variant.onnx.with_name(candidates.QDQ_NAME))
        else:
            model = _quantize(_read(variant.onnx), samples)
        return _files(model, variant.onnx, precision)

    return [
        candidates.attempt(
            variant,
            precision,
            out,
            FILE_NAME,
            lambda precision=precision: make(precision),  # type: ignore[misc]
            lambda path: _describe(path, variant.onnx),
            tools=candidates.versions(_tools(precision, learned)),
            sources={"exported": variant.onnx.parent},
        )
        for precision in precisions
    ]


def _tools(precision: params.Precision, learned: bool) -> tuple[str, ...]:
    quantized = precision == "int8-static" and not learned
    return ("nncf", "openvino") if quantized else ("openvino",)


def _read(path: Path) -> Any:
    """Convert to OpenVINO's graph, with batch 1."""
    from openvino.frontend import OpConversionFailure
    from openvino.tools.ovc import convert_model
    from openvino.tools.ovc.error import Error

    source = onnx.load(path, load_external_data=False)
    try:
        model = convert_model(path)
        model.reshape({port: _static_shape(port) for port in model.inputs})
    except (OpConversionFailure, Error, *adapter.REFUSALS) as error:
        raise ConversionError(_reason(error, source)) from error
    return model


def _static_shape(port: Any) -> list[int]:
    axes = list(port.partial_shape)
    dynamic = [index for index, axis in enumerate(axes) if index and axis.is_dynamic]
    if not axes or dynamic:
        raise ConversionError(
            f"openvino: input {port.any_name!r} has shape {port.partial_shape}, and only its first "
            "axis, the batch, may be dynamic; fix the others in the ONNX file"
        )
    return [1, *(axis.get_length() for axis in axes[1:])]


def _reason(error: Exception, source: onnx.ModelProto) -> str:
    """Say which operator OpenVINO refuses, and the first node that is one."""
    found = _REFUSED.search(str(error))
    if found is None:
        return (
            f"openvino refuses the model: {adapter.reason(error)[: candidates.MAX_REASON_LENGTH]}"
        )
    operator = re.sub(r"-\d+$", "", found[1].split(", ")[0].strip())  # "-20" is the opset
    kind = operator.rsplit(".", 1)[-1]
    nodes = [node for node in source.graph.node if node.op_type == kind]
    where = f"node {nodes[0].name or nodes[0].output[0]!r}" if nodes else "a subgraph"
    return f"openvino does not support operator {operator}, {where}; replace the layer"


def _quantize(model: Any, samples: NDArray[Any]) -> Any:
    """Insert int8 with ranges (min-max) of the samples; weights symmetric with one scale a channel.

    NNCF's own choice, mean ranges with fast bias correction, costs 10 dB: ResNet-8 on digits, dense
    and pruned, has a signal-to-noise ratio of 19.1 and 15.9 dB with it, 28.6 and 26.0 without.
    """
    with _without_torch(), redirect_stdout(io.StringIO()):  # its progress bars
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level("ERROR")
        presets = nncf.QuantizationPreset
        try:
            quantized = nncf.quantize(
                model,
                nncf.Dataset(samples, lambda sample: _feed(sample, model)),
                preset=presets.PERFORMANCE if RULES.symmetric_activations else presets.MIXED,
                subset_size=len(samples),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    disable_bias_correction=True,
                ),
            )
        except adapter.REFUSALS as error:
            raise ConversionError(f"nncf refuses the model: {adapter.reason(error)}") from error
    if not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
        raise ConversionError("nncf finds no operator to quantize; leave it fp32")
    return quantized


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch from NNCF, which then takes 1.8 s of processor time less to be imported.

    NNCF does without where torch is not installed, and quantizes OpenVINO's graphs to equal bytes.
    """
    is_hidden = "torch" not in sys.modules
    if is_hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules["torch"]


def _feed(sample: Any, model: Any) -> dict[str, NDArray[Any]]:
    """Give each input its array, of batch 1."""
    if sample.dtype.names is None:
        return {model.inputs[0].any_name: sample[None]}
    return {name: sample[name][None] for name in sample.dtype.names}


def _files(model: Any, source: Path, precision: params.Precision) -> dict[str, bytes]:
    """Serialize with the precision stated, and nothing of the process or the machine."""
    from openvino import save_model

    graph = onnx.load(source, load_external_data=False).graph
    _name_nodes(model, graph)
    for key in list(model.rt_info):  # paths of the source, settings of NNCF
        del model.rt_info[key]
    model.set_rt_info(precision, [adapter.STATEMENT, adapter.PRECISION])
    model.set_rt_info(adapter.HINTS[precision], [adapter.STATEMENT, adapter.HINT])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        save_model(model, path, compress_to_fp16=precision == "fp16-weights")
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def _name_nodes(model: Any, graph: onnx.GraphProto) -> None:
    """Name inputs and outputs as ONNX does; number the nodes that only a counter had named.

    A name that goes on from one in ONNX keeps that: layers of two precisions are told by it.
    """
    model.set_friendly_name(NET_NAME)
    known = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    for index, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        kept = _known_start(name, known)
        numbered = _GENERATED_NAME.sub(rf"\1_{index}", name.removeprefix(kept))
        node.set_friendly_name(kept + numbered)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in initializers]
    for ports, names in ((model.inputs, inputs), (model.outputs, [v.name for v in graph.output])):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})


def _known_start(name: str, known: Collection[str]) -> str:
    """Return the longest known name that this one is, or goes on from behind a slash."""
    parts = name.split("/")
    starts = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((start for start in starts if start in known), "")


def _describe(path: Path, source: Path) -> Description:
    """Load the IR as the target will, which checks the precision that runs."""
    try:
        session = adapter.load(str(path), 1)
    except RunnerError as error:
        raise ConversionError(str(error)) from error
    stated = onnx_file.signature(onnx.load(source, load_external_data=False))
    layouts = {tensor.name: tensor.layout for tensor in (*stated.inputs, *stated.outputs)}

    def tensors(found: Sequence[Any]) -> tuple[manifest.Tensor, ...]:
        return tuple(manifest.Tensor(t.name, t.dtype, t.shape, layouts[t.name]) for t in found)

    return Description(
        manifest.Signature(inputs=tensors(session.inputs), outputs=tensors(session.outputs))
    )
