"""Read an ONNX file of unknown origin: sizes before bytes, weights from nowhere but beside it."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from pipeline.conversion import candidates, onnx_file
from pipeline.errors import ConversionError

LIMIT_BYTES = 2**31  # of a protobuf message; ONNX files above it have external weights
LARGEST_NAMED = "2 GB (2,147,483,648 bytes)"


def read(path: Path) -> onnx.ModelProto:
    """Read and check a model; weights in files beside it are taken into it.

    Raises:
        ConversionError: one line: the file is missing, damaged, too large, no ONNX, or invalid;
            a file of weights is missing, elsewhere or too short; weights hold NaN.
    """
    model = _parse(path)
    _inline(model, path)
    if not model.graph.node or not model.graph.output:
        raise ConversionError(f"{path} holds no graph to run; export the model again")
    _check_operators(model, path)
    kinds = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, TypeError)
    with candidates.refusals(f"{path.name}: onnx", *kinds):
        onnx.checker.check_model(model, full_check=True)
    for name, tensor in _tensors(model):
        _check_finite(path, name, tensor)
    return model


def inlined(path: Path) -> bytes:
    """Return the bytes of a file that needs no other: its own where it names no other.

    Raises:
        ConversionError: as `read`.
    """
    model = read(path)
    if not any(_is_external(tensor) for _, tensor in _tensors(_parse(path))):
        return path.read_bytes()
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ConversionError(f"there is no file {path}; put it there, or name another (net.onnx)")
    size = path.stat().st_size
    if size >= LIMIT_BYTES:
        raise ConversionError(f"{path} has {size:,} bytes; {_too_large()}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ConversionError(
            f"{path} ({size:,} bytes) is no readable ONNX file: it is truncated, damaged or of "
            "another format; export the model again"
        ) from error
    _check_text(model, path)
    # few random bytes are a valid message of unknown fields
    if not model.ir_version or not model.opset_import or not model.HasField("graph"):
        raise ConversionError(
            f"{path} ({size:,} bytes) is no ONNX file: it has no graph or operator set; "
            "export the model again"
        )
    return model


def _check_text(model: onnx.ModelProto, path: Path) -> None:
    """Refuse names that are no text: protobuf hands them out as bytes, which nothing expects."""
    texts = [text for entry in model.opset_import for text in (entry.domain,)]
    for part in onnx_file.parts(model):
        if isinstance(part, onnx.TensorProto):  # its values are bytes and may be large
            texts.append(part.name)
            continue
        for field, value in part.ListFields():
            if field.type == field.TYPE_STRING:
                texts += [value] if isinstance(value, (str, bytes)) else value
    if not all(isinstance(text, str) for text in texts):
        raise ConversionError(
            f"{path} is damaged: a name in it is no UTF-8 text; export the model again"
        )


def _too_large() -> str:
    return f"slipway takes models with weights below {LARGEST_NAMED}; use a smaller model"


def _inline(model: onnx.ModelProto, path: Path) -> None:
    """Take external weights into the model, in place; all sizes are judged first."""
    external = [(name, tensor) for name, tensor in _tensors(model) if _is_external(tensor)]
    places = [_place(path, name, tensor) for name, tensor in external]
    total = model.ByteSize() + sum(length for _, _, length in places)
    if total >= LIMIT_BYTES:
        raise ConversionError(f"{path} and its weights have {total:,} bytes; {_too_large()}")
    for (_, tensor), (weights, offset, length) in zip(external, places, strict=True):
        with weights.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")


def _place(path: Path, name: str, tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    """Return the file, offset and length of external weights, which lie below the model's folder.

    A location may be written by anyone: absolute ones, ``..`` and links out of it are refused.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, what = entries.get("location", ""), f"{path}: external data of {name!r}"
    home, weights = path.parent.resolve(), path.parent / location
    relative = PurePosixPath(location)
    if (
        not location
        or relative.is_absolute()
        or ".." in relative.parts
        or "\\" in location
        or "\0" in location
        or not weights.resolve().is_relative_to(home)
    ):
        raise ConversionError(
            f"{what} is at {location!r}, outside of the model's folder; put the weights beside the "
            "model and name them by a relative path"
        )
    if not weights.is_file():
        raise ConversionError(
            f"{what} is missing: there is no file {weights}; put it beside the model"
        )
    size = weights.stat().st_size
    offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", ""))
    offset = 0 if offset is None else offset
    length = size - offset if length is None else length
    if offset + length > size or length < 0:
        raise ConversionError(
            f"{what} is cut short: {weights} has {size:,} bytes, not {offset + length:,}; "
            "copy it again"
        )
    return weights, offset, length


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Name the first standard operator that is none, with its node; onnx's own line is not clear.

    Operators of other domains are for the toolchains to judge.
    """
    version = next((o.version for o in model.opset_import if o.domain == onnx_file.STANDARD), None)
    if version is None:
        raise ConversionError(
            f"{path} imports no standard operator set; export it again with opset 13 or later"
        )
    if version > onnx.defs.onnx_opset_version():
        raise ConversionError(
            f"{path} has opset {version}, onnx {onnx.__version__} knows up to "
            f"{onnx.defs.onnx_opset_version()}; export it with an older one"
        )
    functions = {(function.domain, function.name) for function in model.functions}
    for node in onnx_file.nodes(model):
        known = onnx.defs.has(node.op_type, onnx_file.STANDARD)
        if not node.domain and not known and ("", node.op_type) not in functions:
            kind = " ".join(node.op_type.split())
            raise ConversionError(
                f"{path}: operator {kind} of node {onnx_file.name_of(node)!r} is not in ONNX's "
                f"opset {version}; give it the domain it is from, or replace the layer"
            )


def _check_finite(path: Path, name: str, tensor: onnx.TensorProto) -> None:
    """Refuse NaN; infinity is a legitimate mask."""
    if tensor.data_type not in {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    }:
        return
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except ValueError as error:
        raise ConversionError(
            f"{path}: {name!r} does not hold the {list(tensor.dims)} values that it says; "
            "export the model again"
        ) from error
    num_nan = int(np.isnan(values).sum())
    if num_nan:
        raise ConversionError(
            f"{path}: weights {name!r} are NaN in {num_nan:,} of {values.size:,} values; "
            "training diverged or the file is damaged, export the model again"
        )


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Walk every tensor that holds weights, subgraphs and functions included."""
    for graph in onnx_file.graphs(model):
        yield from _named(graph.initializer)
        for sparse in graph.sparse_initializer:
            yield from _named([sparse.values, sparse.indices])
    for node in onnx_file.nodes(model):
        for attribute in node.attribute:
            held = [attribute.t] if attribute.HasField("t") else []
            for tensor in (*held, *attribute.tensors):
                yield tensor.name or onnx_file.name_of(node), tensor


def _named(tensors: Iterable[onnx.TensorProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in tensors:
        yield tensor.name, tensor
