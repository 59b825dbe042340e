"""The user's own ONNX file: checked, fitted to the samples, brought to an opset that targets take.

What comes out is one self-contained file like those of `to_onnx`, with proof that it computes what
the user's does. Shapes: N samples.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray

from pipeline import params
from pipeline.conversion import candidates, onnx_file, onnx_read, onnx_run
from pipeline.conversion.onnx_count import Described, describe
from pipeline.conversion.onnx_read import inlined
from pipeline.errors import ConversionError, ParityError
from pipeline.manifest import Signature

__all__ = ["Adopted", "Described", "adopt", "describe", "inlined"]

FILE_NAME = "model.onnx"
BATCH = "batch"
MIN_OPSET = 13  # the first in which QuantizeLinear takes one scale a channel
TOOLS = ("onnx", "onnxruntime")
CHUNK = 128  # samples at once: bounds memory

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Adopted:
    """The file's bytes, what they say, and how far their outputs are from the original's.

    The largest absolute difference, and the ratio of samples with the same best value of the first
    output.
    """

    content: bytes
    signature: Signature
    opset: int
    max_abs_error: float
    top1_agreement_ratio: float


def adopt(path: Path, samples: NDArray[Any], max_abs_error: float) -> Adopted:
    """Read the user's file and give the one that converters take.

    The batch becomes symbolic, or stays 1 where the file says 1; every other axis is fixed to the
    samples'; opsets below MIN_OPSET are raised; functions are inlined, metadata is dropped.

    Args:
        path: the user's file; weights in files beside it are taken in.
        samples: [N, ...] preprocessed, a structured array with a field an input for several.
        max_abs_error: the largest difference allowed of any output, of all samples.

    Returns:
        Same file and tools, same bytes.

    Raises:
        ConversionError: the file is damaged, invalid, too large, or does not take the samples.
        ParityError: outputs differ from the original's, or are not finite.
    """
    original = onnx_read.read(path)
    onnx_file.check_tensors(original)
    _check_dtypes(original)
    onnx_file.name_nodes(original)
    content = original.SerializeToString(deterministic=True)
    batch, expected = _run_original(original, content, samples)
    model = _upgraded(onnx.inliner.inline_local_functions(original))
    _fit(model, samples, batch)
    _finish(model, expected)
    made = onnx_file.canonical_bytes(model)
    error, same = _compare(made, samples, expected, batch=batch, max_abs_error=max_abs_error)
    return Adopted(made, onnx_file.signature(model), onnx_file.opset(model), error, same)


def check_classes(signature: Signature, labels: tuple[str, ...], task: params.Task) -> None:
    """A classifier gives one value a class; any other number is another model's data."""
    shape = signature.outputs[0].shape
    if task.kind == "classification" and shape[1:] != (len(labels),):
        named = ", ".join(labels[:5]) + (", .." if len(labels) > 5 else "")
        raise ConversionError(
            f"output {signature.outputs[0].name!r} has shape {list(shape)}, and there are "
            f"{len(labels)} classes ({named}); mend data.labels, or task.kind"
        )


def _check_dtypes(model: onnx.ModelProto) -> None:
    for role, values in (("input", onnx_file.inputs(model)), ("output", model.graph.output)):
        for value in values:
            element = value.type.tensor_type.elem_type
            if element != onnx.TensorProto.FLOAT:
                name = onnx.TensorProto.DataType.Name(element).lower()
                raise ConversionError(
                    f"{role} {value.name!r} is {name}; slipway gives and takes float32, so export "
                    "the model with a cast there, or without it"
                )


def _run_original(
    model: onnx.ModelProto, content: bytes, samples: NDArray[Any]
) -> tuple[int | None, Outputs]:
    """Return the batch that the file insists on (None: any) and its outputs on all samples."""
    _check_shapes(model, samples)
    firsts = {onnx_file.first_axis(value) for value in onnx_file.inputs(model)}
    fixed = sorted(length for length in firsts if isinstance(length, int))
    if len(fixed) > 1:
        raise ConversionError(
            f"the inputs have different batches, {' and '.join(map(str, fixed))}; the first axis "
            "of every input must be the batch, mend the model"
        )
    batch = fixed[0] if fixed else CHUNK
    try:
        outputs = _named(model, lambda: onnx_run.run(content, samples, batch))
    except ConversionError:
        if fixed:
            raise
        # some files call the batch dynamic and reshape to one sample inside
        batch, outputs = 1, _named(model, lambda: onnx_run.run(content, samples, 1))
    _check_finite(outputs)
    return (None if batch != 1 else 1), outputs


def _named(model: onnx.ModelProto, run: Any) -> Outputs:
    """Run; where ONNX Runtime refuses an operator, add the first node that is one."""
    try:
        outputs: Outputs = run()
    except ConversionError as error:
        for node in onnx_file.nodes(model):
            operator = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
            if f"operator {operator}:" in str(error):
                name = onnx_file.name_of(node)
                raise ConversionError(f"{error} (node {name!r})") from error
        raise
    return outputs


def _check_finite(outputs: Outputs) -> None:
    for name, values in outputs.items():
        broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if broken.any():
            raise ParityError(
                f"output {name!r} of the user's file is NaN or infinite for {broken.sum()} of "
                f"{len(values)} validation samples; mend the model, or data.preprocessing"
            )


def _check_shapes(model: onnx.ModelProto, samples: NDArray[Any]) -> None:
    """Hold every input against the preprocessed samples, the batch aside."""
    names = [value.name for value in onnx_file.inputs(model)]
    for name, values in onnx_run.feeds(names, samples).items():
        value = next(v for v in onnx_file.inputs(model) if v.name == name)
        takes, given = onnx_file.axes(value), list(values.shape[1:])
        fits = len(takes) == len(given) + 1 and all(
            length in (want, None) or isinstance(length, str)
            for length, want in zip(takes[1:], given, strict=False)
        )
        if not fits:
            shown = ", ".join("?" if length is None else str(length) for length in takes)
            raise ConversionError(
                f"input {name!r} takes [{shown}], the preprocessed samples are "
                f"[batch, {', '.join(map(str, given))}]; {_hint(takes[1:], given)}"
            )


def _hint(takes: list[Any], given: list[int]) -> str:
    if len(given) == 3 and takes == [given[2], *given[:2]]:
        return "end data.preprocessing with channels_first"
    if len(given) == 3 and takes == [*given[1:], given[0]]:
        return "leave channels_first out of data.preprocessing"
    return "mend data.preprocessing (resize, add_channel, channels_first) to give that shape"


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise the opset to MIN_OPSET where it is below; drop initializers from the inputs.

    Raises:
        ConversionError: an operator has no form in the newer set.
    """
    old = onnx_file.opset(model)
    if old < MIN_OPSET:
        kinds = (onnx.version_converter.ConvertError,)
        with candidates.refusals(f"opset {old} cannot be raised to {MIN_OPSET}: onnx", *kinds):
            model = onnx.version_converter.convert_version(model, MIN_OPSET)
    kept = onnx_file.inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    oldest = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(model.ir_version, oldest)
    return model


def _fit(model: onnx.ModelProto, samples: NDArray[Any], batch: int | None) -> None:
    """Fix every axis but the batch to the samples', in place; forget shapes inferred for others."""
    onnx_file.set_batch(model, batch or BATCH)
    names = [value.name for value in onnx_file.inputs(model)]
    given = onnx_run.feeds(names, samples)
    for value in onnx_file.inputs(model):
        dims = value.type.tensor_type.shape.dim
        for dim, length in zip(dims[1:], given[value.name].shape[1:], strict=True):
            onnx_file.set_axis(dim, length)


def _finish(model: onnx.ModelProto, expected: Outputs) -> None:
    """Name new nodes, state the outputs' shapes as found, infer the others, check; in place."""
    onnx_file.name_nodes(model)
    first = onnx_file.first_axis(onnx_file.inputs(model)[0])
    for value in model.graph.output:
        shape = value.type.tensor_type.shape
        shape.Clear()
        for length in (first, *expected[value.name].shape[1:]):
            onnx_file.set_axis(shape.dim.add(), length)
    kinds = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
    with candidates.refusals("after fixing its axes, onnx", *kinds):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
    model.CopyFrom(inferred)


def _compare(
    content: bytes,
    samples: NDArray[Any],
    expected: Outputs,
    *,
    batch: int | None,
    max_abs_error: float,
) -> tuple[float, float]:
    """Run the new file, one sample alone and in batches, and compare every output."""
    try:
        alone = onnx_run.run(content, samples[:1], 1)
        found = onnx_run.run(content, samples, batch or CHUNK)
    except ConversionError as error:
        raise ConversionError(
            f"the file fixes its batch inside and cannot run one sample, as targets do: {error}; "
            "export it with a dynamic batch, or a batch of 1"
        ) from error
    largest = max(
        max(_distance(expected[name], found[name]), _distance(expected[name][:1], alone[name]))
        for name in expected
    )
    if not largest <= max_abs_error:  # NaN too
        raise ParityError(
            f"the adopted file's outputs differ from the user's by {largest:.3g}, allowed "
            f"{max_abs_error:g} (export.max_abs_error); export it at opset {MIN_OPSET} or later"
        )
    first = next(iter(expected))
    pairs = (expected[first], found[first])
    best = [values.reshape(len(values), -1).argmax(1) for values in pairs]
    return largest, float((best[0] == best[1]).mean())


def _distance(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return float(np.abs(expected.astype(np.float64) - found).max(initial=0.0))
