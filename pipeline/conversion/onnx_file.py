"""An ONNX file that says nothing of the machine it was made on, and what it says of itself."""

from collections.abc import Iterator
from typing import Any

import onnx

from pipeline.manifest import Signature, Tensor

STANDARD = ""  # the standard operator set's domain
_IMAGE_LAYOUT = "NCHW"  # torch's, which the exporter keeps


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """Serialize without metadata, doc strings, producer and operator sets that nothing uses.

    torch 2.13's exporter writes source paths and stack traces into ``metadata_props`` of nodes,
    values, graphs and functions. Equal models give equal bytes. The model is changed in place.
    """
    model.ClearField("metadata_props")
    for name in ("doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(name)
    used = {STANDARD}
    for part in _parts(model):
        if isinstance(part, onnx.NodeProto):
            used.add(part.domain)
        for name in ("metadata_props", "doc_string"):
            if name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)
    # onnxruntime writes all the sets it knows, of which an older one on a board knows fewer
    imports = sorted((o.domain, o.version) for o in model.opset_import if o.domain in used)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in imports)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def signature(model: onnx.ModelProto) -> Signature:
    """Read the inputs and outputs from the graph; a symbolic axis is its name."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return Signature(
        inputs=tuple(_tensor(v) for v in model.graph.input if v.name not in initializers),
        outputs=tuple(_tensor(v) for v in model.graph.output),
    )


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain == STANDARD)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or int(dim.dim_value) for dim in kind.shape.dim)
    return Tensor(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        shape=shape,
        layout=_IMAGE_LAYOUT if len(shape) == len(_IMAGE_LAYOUT) else None,
    )


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    """Walk every message that can hold metadata or a doc string, subgraphs included."""
    yield from _graph_parts(model.graph)
    for function in model.functions:
        yield function
        yield from function.value_info
        for node in function.node:
            yield from _node_parts(node)


def _graph_parts(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for node in graph.node:
        yield from _node_parts(node)


def _node_parts(node: onnx.NodeProto) -> Iterator[Any]:
    yield node
    for attribute in node.attribute:
        yield attribute
        for graph in (attribute.g, *attribute.graphs):
            if graph.node:
                yield from _graph_parts(graph)
