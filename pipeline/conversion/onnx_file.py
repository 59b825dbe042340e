"""An ONNX file that says nothing of the machine it was made on, and what it says of itself."""

from collections.abc import Iterator
from typing import Any

import onnx

from pipeline.errors import ConversionError
from pipeline.manifest import Signature, Tensor

STANDARD = ""  # the standard operator set's domain
_IMAGE_LAYOUT = "NCHW"  # ONNX's own: its operators know no other
_LAST_TO_FIRST = [0, 3, 1, 2]
# What passes an image on with its axes as they are.
_PLAIN = {
    *("Add", "Cast", "Clip", "DequantizeLinear", "Div", "Identity", "Mul", "Pad", "QuantizeLinear"),
    *("Relu", "Sub"),
}


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """Serialize without metadata, doc strings, producer and operator sets that nothing uses.

    torch 2.13's exporter writes source paths and stack traces into ``metadata_props`` of nodes,
    values, graphs and functions. Equal models give equal bytes. The model is changed in place.
    """
    model.ClearField("metadata_props")
    for name in ("doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(name)
    used = {STANDARD}
    for part in parts(model):
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
    """Read the inputs and outputs from the graph; a symbolic axis is its name.

    Four axes are an image, NCHW; NHWC where the graph itself turns its input to NCHW.
    """
    return Signature(
        inputs=tuple(_tensor(v, _layout(model, v.name)) for v in inputs(model)),
        outputs=tuple(_tensor(v, _IMAGE_LAYOUT) for v in model.graph.output),
    )


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """List the inputs that a caller gives; older files list initializers among them."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain == STANDARD)


def check_tensors(model: onnx.ModelProto) -> None:
    """Refuse a sequence, map, string or typeless input or output, which no target takes.

    Raises:
        ConversionError: naming the first.
    """
    for role, values in (("input", inputs(model)), ("output", model.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            element = value.type.tensor_type.elem_type
            said = onnx.TensorProto.DataType.Name(element) if kind == "tensor_type" else kind
            if said in (None, "UNDEFINED", "STRING") or kind != "tensor_type":
                raise ConversionError(
                    f"{role} {value.name!r} is a {str(said).lower()}, not a tensor of numbers; "
                    "export the model without it"
                )


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Walk the main graph and those that nodes hold."""
    yield from (part for part in parts(model) if isinstance(part, onnx.GraphProto))


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Walk every node, those of subgraphs and functions included."""
    yield from (part for part in parts(model) if isinstance(part, onnx.NodeProto))


def name_of(node: onnx.NodeProto) -> str:
    """Return a node's name, or what it writes where it has none."""
    return str(node.name or next(iter(node.output), ""))


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, for reports; names stay where they can.

    ONNX Runtime refuses a file with equal names. The model is changed in place.
    """
    taken: set[str] = set()
    for number, node in enumerate(nodes(model)):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)


def number_names(model: onnx.ModelProto) -> dict[str, str]:
    """Replace every name by a number, in place, for a tool that takes some characters for its own.

    Returns:
        The nodes' new names to their old ones.
    """
    old_names = {}
    for number, node in enumerate(nodes(model)):
        old_names[f"node_{number:04d}"] = name_of(node)
        node.name = f"node_{number:04d}"
    values = {"": ""}  # an optional input left out

    def number_of(name: str) -> str:
        return values.setdefault(name, f"value_{len(values):04d}")

    for graph in graphs(model):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = number_of(value.name)
    for node in nodes(model):
        node.input[:] = [number_of(name) for name in node.input]
        node.output[:] = [number_of(name) for name in node.output]
    return old_names


def set_batch(model: onnx.ModelProto, batch: int | str) -> None:
    """Make the first axis of every input and output the batch, in place; forget inferred shapes.

    Args:
        model: its inputs have the batch for their first axis.
        batch: an integer, or the name of a symbolic axis.
    """
    del model.graph.value_info[:]
    for value in (*inputs(model), *model.graph.output):
        if value.type.tensor_type.shape.dim:
            set_axis(value.type.tensor_type.shape.dim[0], batch)


def axes(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Return each axis' length, its name where it is symbolic, None where it has neither."""
    return [
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]


def first_axis(value: onnx.ValueInfoProto) -> int | str | None:
    """Return the batch: a length, a name, or None."""
    return next(iter(axes(value)), None)


def set_axis(dim: Any, length: int | str) -> None:
    """Write a fixed or a symbolic length into one axis."""
    dim.Clear()
    if isinstance(length, str):
        dim.dim_param = length
    else:
        dim.dim_value = length


def _layout(model: onnx.ModelProto, name: str) -> str:
    """Follow an input to the first operator that tells images' layouts apart."""
    values = {name}
    for node in model.graph.node:
        if values.isdisjoint(node.input):
            continue
        if node.op_type == "Transpose":
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            return "NHWC" if order == _LAST_TO_FIRST else _IMAGE_LAYOUT
        if node.op_type not in _PLAIN:
            return _IMAGE_LAYOUT
        values.update(node.output)
    return _IMAGE_LAYOUT


def _tensor(value: onnx.ValueInfoProto, image_layout: str) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or int(dim.dim_value) for dim in kind.shape.dim)
    return Tensor(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        shape=shape,
        layout=image_layout if len(shape) == len(image_layout) else None,
    )


def parts(model: onnx.ModelProto) -> Iterator[Any]:
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
