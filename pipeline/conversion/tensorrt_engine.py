"""ONNX bytes and a recipe in, engine bytes out: by TensorRT-RTX without a GPU, or by TensorRT.

Both have one API, and this module serves both; it imports neither before it is asked, and nothing
else that a board lacks. Networks are strongly typed: every layer computes in the type that the ONNX
file gives it, so a precision is a property of the file, and no tool chooses another. TF32 is off:
fp32 is fp32.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline import params
from pipeline.errors import ConversionError, DependencyError
from pipeline.runtimes import cuda

FILE_NAME = "model.engine"
RECIPE_NAME = "build.json"  # beside the ONNX file in a build bundle
SCHEMA_VERSION = 1
# In the order of preference: the first builds for GPUs that are not here, the second for the one
# that is.
MODULES = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
_PLACES = re.compile(r"\s*(In \w+ at /_src\S+|\(In \S+ at /_src.*)$")
_NUMBERS = re.compile(r"\d+")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine is built from the ONNX file beside it.

    ``shapes`` are smallest, best and largest of the one optimization profile, by input.
    ``versions`` are TensorRT's, from the first up to but without the second; None takes any.
    ``timing_cache`` names the file in which a device keeps what it timed.
    """

    schema_version: int = SCHEMA_VERSION
    precision: params.Precision
    compute_capability: str
    shapes: dict[str, tuple[int, ...]]
    versions: tuple[str, str] | None = None
    network_flags: tuple[str, ...] = ("STRONGLY_TYPED",)
    cleared_flags: tuple[str, ...] = ("TF32",)
    workspace_bytes: int | None = None
    timing_cache: str | None = None


@dataclass(frozen=True)
class Built:
    """An engine, and the timing cache with what this build added to it."""

    engine: bytes
    timing_cache: bytes | None


def find_module() -> Any:
    """Import TensorRT-RTX, or TensorRT where that is what is installed.

    Raises:
        DependencyError: neither is.
    """
    for name in MODULES:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    raise DependencyError("tensorrt-rtx", "tensorrt")


def build(
    content: bytes, recipe: Recipe, tensorrt: Any, timing_cache: bytes | None = None
) -> Built:
    """Parse an ONNX file and build its engine.

    Args:
        content: the file.
        recipe: what to build; TensorRT itself builds for the GPU that is here, whatever
            ``compute_capability`` says.
        tensorrt: the module ``tensorrt_rtx`` or ``tensorrt``.
        timing_cache: what earlier builds timed, empty for the first; None keeps none, as
            TensorRT-RTX does.

    Raises:
        ConversionError: the operator, and the layer, that the parser refuses, or why none is built.
    """
    logger = _logger(tensorrt)
    builder = tensorrt.Builder(logger)
    creation = [_member(tensorrt, "NetworkDefinitionCreationFlag", n) for n in recipe.network_flags]
    network = builder.create_network(sum(1 << int(flag) for flag in creation))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(content):
        raise ConversionError(_refusal(tensorrt, parser))
    config = builder.create_builder_config()
    for name in recipe.cleared_flags:
        config.clear_flag(_member(tensorrt, "BuilderFlag", name))
    config.add_optimization_profile(_profile(builder, network, recipe))
    if recipe.workspace_bytes is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    _set_compute_capability(tensorrt, config, recipe)
    if timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(timing_cache), False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        said = logger.errors[0] if logger.errors else "no reason given"
        raise ConversionError(f"{_named(tensorrt)} builds no engine: {said}; replace the layer")
    kept = None if timing_cache is None else bytes(config.get_timing_cache().serialize())
    return Built(bytes(engine), kept)


def _profile(builder: Any, network: Any, recipe: Recipe) -> Any:
    """Pin every input to the recipe's shape, one of which may be the file's dynamic batch."""
    names = {network.get_input(index).name for index in range(network.num_inputs)}
    if names != set(recipe.shapes) or not network.num_outputs:
        raise ConversionError(
            f"the file has the inputs {', '.join(sorted(names)) or 'none'}, the recipe names "
            f"{', '.join(sorted(recipe.shapes)) or 'none'}; convert it again"
        )
    profile = builder.create_optimization_profile()
    for name, shape in recipe.shapes.items():
        profile.set_shape(name, shape, shape, shape)
    return profile


def _set_compute_capability(tensorrt: Any, config: Any, recipe: Recipe) -> None:
    """Build for a GPU that need not be here, where the library can."""
    if not builds_for_others(tensorrt):
        return
    name = "SM" + recipe.compute_capability.replace(".", "")
    known = tensorrt.ComputeCapability.__members__
    if name not in known:
        takes = ", ".join(_dotted(each) for each in known if each.startswith("SM"))
        raise ConversionError(
            f"{_named(tensorrt)} builds for compute capability {takes}, got "
            f"{recipe.compute_capability}; mend convert.tensorrt.compute_capability of the target"
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[name], 0)


def _member(tensorrt: Any, kind: str, name: str) -> Any:
    known = getattr(tensorrt, kind).__members__
    if name not in known:
        raise ConversionError(f"{_named(tensorrt)} has no {kind} {name!r}; convert it again")
    return known[name]


def builds_for_others(tensorrt: Any) -> bool:
    """Say whether the library builds for GPUs that are not here."""
    return hasattr(tensorrt, "ComputeCapability")


def _dotted(name: str) -> str:
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _refusal(tensorrt: Any, parser: Any) -> str:
    error = parser.get_error(0)
    lines = [_PLACES.sub("", line).strip() for line in error.desc().splitlines()]
    # the parser's own assertions say nothing ("false") where the operator is the reason
    reason = next((line for line in reversed(lines[:2]) if line not in ("", "false")), "")
    what = f"{_named(tensorrt)} does not support operator {error.node_operator() or 'unknown'}"
    where = f" (layer {error.node_name()})" if error.node_name() else ""
    return f"{what}{where}{': ' + reason if reason else ''}; replace the layer"


def _named(tensorrt: Any) -> str:
    return f"{tensorrt.__name__} {tensorrt.__version__}"


def _logger(tensorrt: Any) -> Any:
    """Keep what the library says, which it would write to standard error."""

    class Lines(tensorrt.ILogger):  # type: ignore[misc]  # its type is not known
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.ERROR:
                self.errors.append(_PLACES.sub("", message))

    return Lines()


def wrong_version(recipe: Recipe, tensorrt: Any) -> str | None:
    """Say that the recipe asks for another version than the one installed; None if it does not."""
    if recipe.versions is None or _within(tensorrt.__version__, recipe.versions):
        return None
    lowest, above = recipe.versions
    return f"{_named(tensorrt)} is installed, the recipe is for {lowest} up to but without {above}"


def wrong_gpu(recipe: Recipe, gpu: cuda.Device | str) -> str | None:
    """Say that the GPU here is not the recipe's; ``gpu`` is one, or one line on why there is none.

    None if it is the recipe's.
    """
    if isinstance(gpu, str):
        return gpu
    if gpu.compute_capability == recipe.compute_capability:
        return None
    return (
        f"{gpu.name} has compute capability {gpu.compute_capability}, the recipe is for "
        f"{recipe.compute_capability}"
    )


def version_range(version: str) -> tuple[str, str]:
    """Return the versions that a prefix covers: ``10.3`` stands for 10.3 up to but without 10.4."""
    *first, last = _numbers(version)
    return version, ".".join(map(str, (*first, last + 1)))


def _within(version: str, versions: tuple[str, str]) -> bool:
    """Say whether a version is at least the first and below the second."""
    lowest, above = versions
    return _numbers(lowest) <= _numbers(version) < _numbers(above)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; of ``10.3.0.post1`` the first three."""
    return tuple(int(part) for part in version.split(".") if _NUMBERS.fullmatch(part))
