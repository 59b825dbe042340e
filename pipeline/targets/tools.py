"""Which tools a target needs and which versions are installed; no process is started for it.

Most tools are in the build environment, this interpreter's own. A tool that cannot be there
(tflite-runtime needs numpy < 2) has an environment of its own, read here by its site-packages
folder.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline import compatibility, files, params
from pipeline.compatibility import Converter, Runtime
from pipeline.errors import TargetError

ABSENT = "absent"
UNREACHABLE = "unreachable"  # the device that would know does not answer
BUILD = "build"
ENVIRONMENTS_VARIABLE = "SLIPWAY_ENVIRONMENTS"
ENVIRONMENTS_PATH = Path(".venvs")

# Distributions without which a converter makes nothing; their versions decide the bytes.
CONVERTER_TOOLS: dict[Converter, tuple[str, ...]] = {
    "to_onnxruntime": ("onnx", "onnxruntime"),
    "to_litert": (
        "ai-edge-litert",
        "ai-edge-quantizer",
        "litert-converter",
        "litert-torch",
        "torch",
    ),
    "to_openvino": ("nncf", "onnx", "openvino"),
    "to_ethos_u": (
        "ai-edge-litert",
        "ai-edge-quantizer",
        "ethos-u-vela",
        "litert-converter",
        "litert-torch",
        "torch",
    ),
    "to_tensorrt": ("onnx", "onnxruntime", "tensorrt-rtx"),
    "to_tensorrt_bundle": ("onnx", "onnxruntime"),
}
# A model that came as an ONNX file is lowered to LiteRT by other tools, in their own environment.
CONVERT_TENSORFLOW = "convert-tensorflow"
LOWERING_TOOLS = ("litert-converter", "litert-torch", "torch")
ONNX_LOWERING_TOOLS = ("onnx2tf", "tensorflow")
# The distribution that each runtime is.
RUNTIME_TOOLS: dict[Runtime, str] = {
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "tflite_runtime": "tflite-runtime",
    "openvino": "openvino",
    "tflite_micro": "tflite-micro",
    "tensorrt": "tensorrt-rtx",
}
# The extra that brings a tool of the build environment; the others are in `build`.
EXTRAS = {
    "ethos-u-vela": "ethos-u",
    "nncf": "openvino",
    "openvino": "openvino",
    "tensorrt-rtx": "tensorrt",
    "tflite-micro": "ethos-u",
}
REMEDIES = {
    "device-tflite": "make setup (needs Python 3.11 or earlier)",
    "emulated-aarch64": "make setup (needs apt-get, with root or sudo)",
    CONVERT_TENSORFLOW: "make setup",
}


@dataclass(frozen=True)
class Row:
    """One tool: its version or None, where it belongs, who uses it, how to get it if absent."""

    tool: str
    version: str | None
    environment: str
    used_by: tuple[str, ...]
    remedy: str | None


def environments_path() -> Path:
    """Return where foreign environments are: SLIPWAY_ENVIRONMENTS, else .venvs beside our own.

    ``scripts/setup`` makes them there, also for projects that lie elsewhere.
    """
    beside = Path(sys.prefix).parent / ENVIRONMENTS_PATH
    return Path(os.environ.get(ENVIRONMENTS_VARIABLE, beside))


def own_version() -> dict[str, str]:
    """Return this slipway's version and the digest of its code: projects depend on both."""
    room = Path(__file__).parents[1]
    sources = sorted(path for path in room.rglob("*") if path.suffix in {".py", ".yaml"})
    listed = {path.relative_to(room).as_posix(): files.digest_file(path) for path in sources}
    code = files.digest_bytes(files.encode_json(listed))
    return {"version": metadata.version("slipway"), "code": code}


def environment_python(name: str, environments: Path | None = None) -> Path:
    """Return the interpreter of an environment.

    Raises:
        TargetError: there is none; it was never made, or was removed.
    """
    if name == BUILD:
        return Path(sys.executable)
    # absolute, not resolved: a virtual environment is found by the path of its interpreter's link
    python = ((environments or environments_path()) / name / "bin" / "python").absolute()
    if not python.is_file():
        raise TargetError(f"environment {name} has no interpreter {python}; run make setup")
    return python


def converter_tools(converter: Converter, *, from_onnx: bool = False) -> dict[str, str]:
    """Map each distribution that a converter needs to its environment.

    With ``from_onnx`` the model came as an ONNX file (net.onnx).
    """
    wanted = dict.fromkeys(CONVERTER_TOOLS[converter], BUILD)
    if from_onnx and "litert-torch" in wanted:
        wanted = {tool: BUILD for tool in wanted if tool not in LOWERING_TOOLS}
        wanted |= dict.fromkeys(ONNX_LOWERING_TOOLS, CONVERT_TENSORFLOW)
    return wanted


def versions(
    target: params.Target,
    environments: Path,
    *,
    from_onnx: bool = False,
    runtimes: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the version, or ``absent``, of every distribution that the target's tools are.

    Of a target with a connection the runtime's is what its device said, ``runtimes``; or
    ``unreachable``, where that is None.
    """
    wanted = converter_tools(target.converter, from_onnx=from_onnx)
    found = {tool: version(tool, where, environments) or ABSENT for tool, where in wanted.items()}
    tool = runtime_tool(target)
    if target.connection is None:
        found[tool] = version(tool, target.profile.environment, environments) or ABSENT
    else:
        there = {} if runtimes is None else runtimes
        found[tool] = there.get(target.runtime, UNREACHABLE if runtimes is None else ABSENT)
    return dict(sorted(found.items()))


def runtime_tool(target: params.Target) -> str:
    """Return the distribution without which the target cannot be measured."""
    return RUNTIME_TOOLS[target.runtime]


def version(tool: str, environment: str, environments: Path) -> str | None:
    """Return the installed version of a distribution in an environment, None where it is absent."""
    paths = None if environment == BUILD else _site_packages(environments / environment)
    if paths is None:
        found = list(metadata.distributions(name=tool))
    else:
        found = list(metadata.distributions(name=tool, path=paths))
    return found[0].version if found else None


def doctor(p: params.Params, environments: Path) -> list[Row]:
    """List every tool that some target could use, with the targets that do."""
    places = {tool: BUILD for tools in CONVERTER_TOOLS.values() for tool in tools}
    for runtime, tool in RUNTIME_TOOLS.items():
        places[tool] = compatibility.ENVIRONMENTS[runtime][0]
    places |= dict.fromkeys(ONNX_LOWERING_TOOLS, CONVERT_TENSORFLOW)
    return [
        _row(tool, environment, _used_by(tool, p), environments)
        for tool, environment in sorted(places.items())
    ]


def _used_by(tool: str, p: params.Params) -> tuple[str, ...]:
    from_onnx = p.net.onnx is not None
    return tuple(
        name
        for name, target in p.targets.items()
        if tool in converter_tools(target.converter, from_onnx=from_onnx)
        or tool == runtime_tool(target)
    )


def _row(tool: str, environment: str, used_by: tuple[str, ...], environments: Path) -> Row:
    found = version(tool, environment, environments)
    return Row(tool, found, environment, used_by, None if found else remedy(tool, environment))


def remedy(tool: str, environment: str) -> str:
    """Say what installs an absent tool."""
    return REMEDIES.get(environment, f"pip install 'slipway[{EXTRAS.get(tool, BUILD)}]'")


def _site_packages(environment: Path) -> list[str]:
    return [str(path) for path in environment.glob("lib/python3.*/site-packages")]
