"""The closed sets, written out once: converters, runtimes, precisions, and what goes with what.

Rules of number formats belong to the target's converter, as data (`INTEGER_RULES`), not to code.
"""

from typing import Literal

import msgspec

Converter = Literal[
    "to_onnxruntime", "to_litert", "to_openvino", "to_ethos_u", "to_tensorrt", "to_tensorrt_bundle"
]
Runtime = Literal["onnxruntime", "litert", "tflite_runtime", "openvino", "tflite_micro", "tensorrt"]
# fp32 is the reference everywhere. bf16: fp32 weights, computed in bfloat16 (OpenVINO's default on
# CPUs that have it). fp16-weights: stored in 16 bits, computed in 32.
Precision = Literal["fp32", "bf16", "fp16", "fp16-weights", "int8-dynamic", "int8-static"]
Evidence = Literal["measured", "emulated", "estimated", "built"]
Environment = Literal["build", "device-tflite", "emulated-aarch64"]
# Environments whose interpreter runs under an emulator: outputs are the other instruction set's,
# times and memory are nobody's.
EMULATED: tuple[Environment, ...] = ("emulated-aarch64",)

PRECISIONS: dict[Converter, tuple[Precision, ...]] = {
    "to_onnxruntime": ("fp32", "int8-dynamic", "int8-static"),
    "to_litert": ("fp32", "fp16-weights", "int8-dynamic", "int8-static"),
    "to_openvino": ("fp32", "bf16", "fp16-weights", "int8-static"),
    "to_ethos_u": ("fp32", "int8-static"),
    "to_tensorrt": ("fp32", "fp16", "int8-static"),
    "to_tensorrt_bundle": ("fp32", "fp16", "int8-static"),
}
RUNTIMES: dict[Converter, tuple[Runtime, ...]] = {
    "to_onnxruntime": ("onnxruntime",),
    "to_litert": ("litert", "tflite_runtime"),
    "to_openvino": ("openvino",),
    "to_ethos_u": ("tflite_micro",),
    "to_tensorrt": ("tensorrt",),
    "to_tensorrt_bundle": ("tensorrt",),
}
ENVIRONMENTS: dict[Runtime, tuple[Environment, ...]] = {
    "onnxruntime": ("build", "emulated-aarch64"),
    "litert": ("build",),
    "tflite_runtime": ("device-tflite", "emulated-aarch64"),
    "openvino": ("build",),
    "tflite_micro": ("build",),
    "tensorrt": ("build",),
}
# The strongest evidence that a build machine can give of what a converter makes: an engine is only
# built where there is no GPU to load it; micro-NPU cycles are the compiler's estimate.
EVIDENCE: dict[Converter, Evidence] = {
    "to_onnxruntime": "measured",
    "to_litert": "measured",
    "to_openvino": "measured",
    "to_ethos_u": "estimated",
    "to_tensorrt": "built",
    "to_tensorrt_bundle": "built",
}


class IntegerRules(msgspec.Struct, frozen=True):
    """How int8-static files of a converter are laid out.

    Weights are int8, symmetric, one scale an output channel everywhere.
    """

    activation_dtypes: tuple[Literal["uint8", "int8"], ...]  # the first is the default
    symmetric_activations: bool
    integer_io: bool


INTEGER_RULES: dict[Converter, IntegerRules] = {
    # x86 with VNNI: int8 activations took 1.3 to 2.1x the time of fp32, uint8 0.64x (ResNet-8)
    "to_onnxruntime": IntegerRules(("uint8", "int8"), False, False),
    "to_litert": IntegerRules(("int8",), False, True),
    "to_openvino": IntegerRules(("uint8",), False, False),
    "to_ethos_u": IntegerRules(("int8",), False, True),  # a micro-NPU takes integers only
    "to_tensorrt": IntegerRules(("int8",), True, False),  # TensorRT refuses zero points
    "to_tensorrt_bundle": IntegerRules(("int8",), True, False),
}

# Extras of the wheel, beside `build`, that hold the tools of a converter: what set-up installs only
# for targets that are switched on.
CONVERTER_EXTRAS: dict[Converter, tuple[str, ...]] = {
    "to_onnxruntime": (),
    "to_litert": (),
    "to_openvino": ("openvino",),
    "to_ethos_u": ("ethos-u",),
    "to_tensorrt": ("tensorrt",),
    "to_tensorrt_bundle": (),
}
