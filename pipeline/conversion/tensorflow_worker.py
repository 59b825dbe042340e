"""ONNX to a LiteRT file by onnx2tf: run as a file by the interpreter of `convert-tensorflow`.

That environment has TensorFlow and neither torch nor this package, so nothing of ours is imported.
``python -I tensorflow_worker.py REQUEST.json`` in an empty folder; the request names

``model``     the ONNX file: batch 1, every shape known, plain names, each only once.
``inputs``, ``outputs``  the names that they get.
``samples``   .npz of ``inputs_I`` and ``outputs_I`` [N, 1, ...]: what ONNX Runtime gives.
``tries``     layouts to try in turn, each one an input: ``channels_last`` (the file takes N..C
              where the ONNX file takes NC..), ``channels_first`` (it takes NC.. and transposes
              inside) or ``as_is``.
``max_abs_error``, ``lowered`` (the file to write), ``result`` (JSON).

The first try whose outputs are within the tolerance is written. The result is its number in
``tries`` with its ``max_abs_error``; or, of the first try, ``difference``, a number too large; or
``error``, with the ``operator`` and ``node`` that it is about where they are known.
"""

import copy
import importlib.util
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# No device; plain kernels, as the outputs are compared.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}

# onnx2tf would download it; it runs the model on these to see which axes it must transpose
ITS_SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"
ITS_SAMPLES_SHAPE = (20, 128, 128, 3)
SIGNATURE = "serving_default"
MAX_ERROR_LENGTH = 600
# LiteRT's GELU is made of the whole pattern; any other erf of five terms, right to 1.5e-7
PSEUDO_OPERATORS = ("erf",)
_NO_KERNEL = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")


def main(path: Path) -> None:
    """Do what the request asks and write its result."""
    request = json.loads(path.read_text(encoding="utf-8"))
    samples = np.random.default_rng(0).random(ITS_SAMPLES_SHAPE, np.float32)
    np.save(ITS_SAMPLES, samples)
    Path(request["result"]).write_text(json.dumps(_lower(request)), encoding="utf-8")


def _lower(request: dict[str, Any]) -> dict[str, Any]:
    import onnx

    model = onnx.load(request["model"])
    for node in model.graph.node:
        if node.domain or importlib.util.find_spec(f"onnx2tf.ops.{node.op_type}") is None:
            return _refusal(node, f"onnx2tf has no {node.op_type}")
    arrays = dict(np.load(request["samples"], allow_pickle=False))
    failures = []
    for number, layouts in enumerate(request["tries"]):
        found = _try(model, layouts, arrays, request)
        if "max_abs_error" in found:
            return {"try": number, **found}
        failures.append(found)
    return failures[0]


def _try(
    model: Any, layouts: list[str], arrays: dict[str, Any], request: dict[str, Any]
) -> dict[str, Any]:
    owners: dict[str, str] = {}
    net = _to_keras(model, layouts, owners)
    if isinstance(net, dict):
        return net
    error, orders = _compare(net, len(model.graph.output), layouts, arrays)
    if not error <= request["max_abs_error"]:  # NaN too
        return {"difference": error}
    content = _to_tflite(net, orders)
    if isinstance(content, str):
        # every operator's place in the graph holds the name of its Keras layer
        told = [node for layer, node in owners.items() if f"/{layer}/" in content]
        kernel = _NO_KERNEL.search(content)
        line = f"LiteRT has no kernel for {kernel[1]}" if kernel else content
        return _refusal(next((n for n in model.graph.node if n.name in told), None), line)
    Path(request["lowered"]).write_bytes(_renamed(content, request["inputs"], request["outputs"]))
    return {"max_abs_error": error}


def _to_keras(model: Any, layouts: list[str], owners: dict[str, str]) -> Any:
    """Return the Keras model, or a refusal that names the node onnx2tf was at.

    ``owners`` is filled: Keras layer to the ONNX node that it is of.
    """
    import onnx2tf

    def named(layout: str) -> list[str]:
        pairs = zip(model.graph.input, layouts, strict=True)
        return [value.name for value, found in pairs if found == layout]

    try:
        with _recorded({node.op_type for node in model.graph.node}, owners):
            return onnx2tf.convert(
                onnx_graph=copy.deepcopy(model),
                output_folder_path="unused",
                not_use_onnxsim=True,  # the host has folded constants already
                not_use_opname_auto_generate=True,
                keep_ncw_or_nchw_or_ncdhw_input_names=named("channels_first"),
                keep_shape_absolutely_input_names=named("as_is"),
                replace_to_pseudo_operators=list(PSEUDO_OPERATORS),
                disable_model_save=True,
                non_verbose=True,
            )
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it raises every kind, and exits
        return _refusal(_node_of(error, model), f"{type(error).__name__}: {error}")


@contextmanager
def _recorded(operators: set[str], owners: dict[str, str]) -> Iterator[None]:
    """Note which Keras layers are new after each node; onnx2tf keeps no such record."""
    modules: list[Any] = [
        importlib.import_module(f"onnx2tf.ops.{operator}") for operator in operators
    ]
    makers = [module.make_node for module in modules]

    def recording(make: Any) -> Any:
        def make_and_record(*, graph_node: Any, tf_layers_dict: Any, **settings: Any) -> None:
            make(graph_node=graph_node, tf_layers_dict=tf_layers_dict, **settings)
            waiting = [tf_layers_dict[value.name].get("tf_node") for value in graph_node.outputs]
            while waiting:
                node = getattr(waiting.pop(), "node", None)  # a constant has none
                if node is not None and node.layer.name not in owners:
                    owners[node.layer.name] = graph_node.name
                    waiting += _flat(node.keras_inputs)

        return make_and_record

    for module, make in zip(modules, makers, strict=True):
        module.make_node = recording(make)
    try:
        yield
    finally:
        for module, make in zip(modules, makers, strict=True):
            module.make_node = make


def _flat(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _node_of(error: BaseException, model: Any) -> Any:
    """Find the node that was being converted: a local of some frame of onnx2tf's own."""
    names = {node.name: node for node in model.graph.node}
    found, trace = None, error.__traceback__
    while trace is not None:
        local = trace.tb_frame.f_locals.get("graph_node")
        found = names.get(getattr(local, "name", None), found)
        trace = trace.tb_next
    return found


def _refusal(node: Any, line: str) -> dict[str, Any]:
    refusal = {"error": line[:MAX_ERROR_LENGTH]}
    if node is not None:
        operator = ".".join(part for part in (node.domain, node.op_type) if part)
        refusal.update(operator=operator, node=node.name)
    return refusal


def _compare(
    net: Any, num_outputs: int, layouts: list[str], arrays: dict[str, Any]
) -> tuple[float, list[tuple[int, ...]]]:
    """Return the largest error over all samples, and the order of axes that gives it, by output.

    onnx2tf leaves images at the output with their channels last; a transposition brings them back.
    """
    found: list[list[Any]] = [[] for _ in range(num_outputs)]
    for row in range(len(arrays["inputs_0"])):
        feeds = [
            _arranged(arrays[f"inputs_{number}"][row], layout)
            for number, layout in enumerate(layouts)
        ]
        given = net(feeds if len(feeds) > 1 else feeds[0], training=False)
        for values, value in zip(found, _flat(given), strict=True):
            values.append(value.numpy())
    best = [
        _best_order(np.stack(values), arrays[f"outputs_{number}"])
        for number, values in enumerate(found)
    ]
    return max(error for error, _ in best), [order for _, order in best]


def _arranged(sample: Any, layout: str) -> Any:
    return np.moveaxis(sample, 1, -1) if layout == "channels_last" else sample


def _best_order(found: Any, expected: Any) -> tuple[float, tuple[int, ...]]:
    """Compare [N, 1, ...] in every order of the axes behind the batch; the plain one goes first."""
    orders = [(0, *rest) for rest in itertools.permutations(range(1, found.ndim - 1))]
    errors = []
    for order in orders:
        turned = found.transpose(0, *(axis + 1 for axis in order))
        fits = turned.shape == expected.shape
        difference = np.abs(turned.astype(np.float64) - expected).max() if fits else np.inf
        errors.append((float(difference), order))
    return min(errors, key=lambda pair: (np.isnan(pair[0]), pair[0]))


def _to_tflite(net: Any, orders: list[tuple[int, ...]]) -> bytes | str:
    """Return the file's bytes, or what is said where an operator has no built-in kernel."""
    import tensorflow as tf

    # numbered: TensorFlow sorts a signature by name, and must not change the order
    specs = [
        tf.TensorSpec(value.shape, value.dtype, name=f"input_{number:03d}")
        for number, value in enumerate(net.inputs)
    ]

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator]
    def serve(*values: Any) -> dict[str, Any]:
        given = _flat(net(list(values) if len(values) > 1 else values[0], training=False))
        return {
            f"output_{number:03d}": tf.identity(value)
            if order == tuple(range(len(order)))
            else tf.transpose(value, order)
            for number, (value, order) in enumerate(zip(given, orders, strict=True))
        }

    holder = tf.Module()
    holder.net, holder.serve = net, serve
    tf.saved_model.save(holder, "saved", signatures=serve.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model("saved", signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except Exception as error:  # noqa: BLE001 - ConverterError, and what MLIR raises
        return str(error) or type(error).__name__


def _renamed(content: bytes, names: list[str], outputs: list[str]) -> bytes:
    """Give inputs and outputs the names that they have in the ONNX file."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    (signature,) = model.signatureDefs
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    for entries, wanted in ((signature.inputs, names), (signature.outputs, outputs)):
        for entry in entries:
            entry.name = wanted[int(entry.name.decode().rpartition("_")[2])].encode()
    taken = {tensor.name for tensor in tensors}
    for entry in (*signature.inputs, *signature.outputs):
        if entry.name not in taken:  # quantizers take a tensor's name for its own
            tensors[entry.tensorIndex].name = entry.name
            taken.add(entry.name)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)  # before TensorFlow is imported
    main(Path(sys.argv[1]))
