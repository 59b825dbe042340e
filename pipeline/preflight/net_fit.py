"""What the hardware does not take of the net: its operators' version, its shapes, its size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor

from pipeline import console, params
from pipeline.compatibility import Converter, Precision
from pipeline.preflight.cases import Case
from pipeline.targets.hardware import Fact

# At least so many bytes a parameter; biases and scales come on top.
BYTES: dict[Precision, int] = {
    "fp32": 4, "bf16": 4, "fp16": 2, "fp16-weights": 2, "int8-dynamic": 1, "int8-static": 1,
}  # fmt: skip
# Their weights stay in flash; all others are loaded.
FROM_FLASH: tuple[Converter, ...] = ("to_ethos_u",)
# They carry the export's operators to the device.
ONNX: tuple[Converter, ...] = ("to_onnxruntime", "to_tensorrt", "to_tensorrt_bundle")


@dataclass(frozen=True)
class Model:
    """What is known of the net before it is trained; ``shapes`` of the inputs, one sample each."""

    num_parameters: int
    shapes: tuple[tuple[int, ...], ...]
    opset: int
    is_batch_open: bool = True


def problems(case: Case, model: Model, p: params.Params) -> Iterator[str]:
    """Yield what the hardware does not take of the net."""
    graph, converter = case.hardware.graph, case.target.converter
    if graph.max_opset and converter in ONNX and model.opset > graph.max_opset.value:
        what = f"{case.hardware.name} takes opset {graph.max_opset.value}"
        basis = case.basis("graph.max_opset", graph.max_opset)
        yield case.line("hardware", f"{what}, the export has {model.opset} {basis}")
    static = graph.static_shapes
    if static and static.value and converter == "to_onnxruntime" and model.is_batch_open:
        what = f"{case.hardware.name} takes fixed shapes, files of {converter} leave the batch open"
        yield case.line("converter", f"{what} {case.basis('graph.static_shapes', static)}")
    for shape in model.shapes:
        rank = sum(length > 1 for length in shape)
        if graph.max_rank and rank > graph.max_rank.value:
            what = f"{case.hardware.name} takes {graph.max_rank.value} dimensions above 1, an input"
            basis = case.basis("graph.max_rank", graph.max_rank)
            yield case.line("hardware", f"{what} is {list(shape)} {basis}")
    sizes, too_large = _sizes(case, model, p), _too_large(case, model, p)
    if sizes and len(too_large) == len(sizes) and converter not in FROM_FLASH:
        yield case.line("hardware", f"no candidate fits: {_listed(case, too_large)}")


def remarks(case: Case, model: Model, p: params.Params) -> Iterator[str]:
    """Say which candidates cannot fit, where others may."""
    too_large = _too_large(case, model, p)
    if too_large and case.target.converter in FROM_FLASH:
        what = "will fit only if its compiler compresses them"
        yield f"{case.name}: candidates {what}: {_listed(case, too_large)}"
    elif too_large:
        yield f"{case.name}: candidates will not fit: {_listed(case, too_large)}"


def _sizes(case: Case, model: Model, p: params.Params) -> dict[str, int]:
    """Return the least size of each candidate that may ship, in bytes.

    Pruning keeps ``1 - ratio`` of a group's channels, rounded down: more than half of that, in both
    of a weight's channel axes.
    """
    takes, _ = case.taken()
    found = {}
    for name, recipe in p.recipes.items():
        kept = 1.0
        if recipe.prune != params.SKIP:
            kept = ((1 - p.prune[recipe.prune].ratio) / 2) ** 2
        for precision in case.target.convert.precisions:
            if not takes or precision in takes:
                found[f"{name}-{precision}"] = floor(model.num_parameters * kept * BYTES[precision])
    return found


def _budgets(case: Case) -> Mapping[str, Fact[int]]:
    """Return the memories that must hold the weights, where they are known."""
    memory = case.hardware.memory
    known = {"memory.flash_bytes": memory.flash_bytes, "memory.ram_bytes": memory.ram_bytes}
    if case.target.converter in FROM_FLASH:
        del known["memory.ram_bytes"]
    return {key: fact for key, fact in known.items() if fact is not None}


def _too_large(case: Case, model: Model, p: params.Params) -> dict[str, int]:
    least = min((fact.value for fact in _budgets(case).values()), default=None)
    sizes = _sizes(case, model, p)
    return {} if least is None else {name: size for name, size in sizes.items() if size > least}


def _listed(case: Case, sizes: Mapping[str, int]) -> str:
    key, fact = min(_budgets(case).items(), key=lambda item: item[1].value)
    least = [f"{name} of at least {console.scaled(size, 'B')}" for name, size in sizes.items()]
    has = f"{case.hardware.name} has {console.scaled(fact.value, 'B')} {case.basis(key, fact)}"
    return f"{', '.join(least)}; {has}"
