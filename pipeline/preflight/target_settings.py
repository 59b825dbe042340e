"""What the hardware does not take of a target's settings: converter, precisions, keys, place."""

import platform
from collections.abc import Iterator

from pipeline.compatibility import EMULATED, EVIDENCE, INTEGER_RULES
from pipeline.errors import PipelineError
from pipeline.preflight.cases import Case
from pipeline.profiling import energy
from pipeline.targets import bindings, hardware
from pipeline.targets.hardware import Fact

# `platform.machine()` in the catalogue's words.
ISAS = {"x86_64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64", "riscv64": "RISC-V"}


def problems(case: Case) -> Iterator[str]:
    """Yield a line for each setting that the hardware does not take."""
    yield from _converter(case)
    yield from _precisions(case)
    yield from _integers(case)
    yield from _bindings(case)
    yield from _place(case)
    meter = case.target.profile.energy
    if meter is not None and meter.meter == "modelled":
        try:
            energy.busy_power(case.hardware)
        except PipelineError as error:
            yield case.line("profile.energy.meter", str(error))


def _converter(case: Case) -> Iterator[str]:
    served = case.hardware.converters
    if not served:
        what = f"nothing here serves {case.hardware.name} yet: {case.hardware.not_supported_yet}"
        yield case.line("hardware", what)
    elif case.target.converter not in served:
        what = f"{case.hardware.name} is served by {', '.join(served)}"
        yield case.line("converter", f"{what}, got {case.target.converter}")


def _precisions(case: Case) -> Iterator[str]:
    """Fp32 is the reference everywhere, also where it never ships."""
    takes, basis = case.taken()
    wrong = [p for p in case.target.convert.precisions if p not in (*takes, "fp32")]
    if takes and wrong:
        what = f"{case.hardware.name} takes {', '.join(takes)}"
        yield case.line("convert.precisions", f"{what}, got {', '.join(wrong)} {basis}".rstrip())


def _integers(case: Case) -> Iterator[str]:
    """Hold the number format of int8-static, which is the converter's, against the hardware's."""
    if "int8-static" not in case.target.convert.precisions:
        return
    rules, numerics = INTEGER_RULES[case.target.converter], case.hardware.numerics
    integers = case.target.convert.activation_dtype or rules.activation_dtypes[0]
    ours = {
        "weight_granularity": "per_channel",
        "weight_symmetry": "symmetric",
        "activation_granularity": "per_tensor",
        "activation_symmetry": "symmetric" if rules.symmetric_activations else "asymmetric",
        "io_dtypes": integers if rules.integer_io else "float32",
    }
    for key, made in ours.items():
        fact: Fact[tuple[str, ...]] | None = getattr(numerics, key)
        if fact is not None and made not in fact.value:
            what = f"int8-static of {case.target.converter} has {key} {made}, and"
            takes = f"{case.hardware.name} takes {', '.join(fact.value)}"
            basis = case.basis(f"numerics.{key}", fact)
            yield case.line("convert.precisions", f"{what} {takes} {basis}")


def _bindings(case: Case) -> Iterator[str]:
    takes = bindings.taken(case.hardware)
    section = "vela" if case.target.convert.vela is not None else "tensorrt"
    for bound, value in bindings.of(case.target).items():
        if bound in takes and value not in takes[bound]:
            what = f"{case.hardware.name} takes {', '.join(takes[bound])}, got {value}"
            yield case.line(f"convert.{section}.{bound}", f"{what} {_bound_basis(case, bound)}")
    tensorrt, has = case.target.convert.tensorrt, case.hardware.software.get("tensorrt")
    version = tensorrt.version if tensorrt is not None else None
    if version is not None and has is not None and not _within(version, has.oldest, has.newest):
        what = f"{case.hardware.name} has {has.oldest or 'any'} to {has.newest or 'any'}"
        basis = case.basis("software.tensorrt", has)
        yield case.line("convert.tensorrt.version", f"{what}, got {version} {basis}")


def _bound_basis(case: Case, bound: hardware.Bound) -> str:
    found = getattr(case.hardware.artifact, bindings.FACTS[bound][-1])
    fact = next(iter(found.values())) if isinstance(found, dict) else found
    return case.basis(".".join(bindings.FACTS[bound]), fact)


def _within(version: str, oldest: str | None, newest: str | None) -> bool:
    """Compare as many numbers as a bound has; ``10.x`` has one."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".") if part.isdigit()]

    has = numbers(version)
    low, high = (numbers(bound) if bound else [] for bound in (oldest, newest))
    return has[: len(low)] >= low and has[: len(high)] <= high


def _place(case: Case) -> Iterator[str]:
    """What is measured on another instruction set is another machine's."""
    target, isa = case.target, case.hardware.cpu.isa
    if target.connection is not None or EVIDENCE[target.converter] != "measured" or isa is None:
        return
    environment = target.profile.environment
    machine = platform.machine()
    if environment in EMULATED:
        machine = environment.removeprefix("emulated-")
    here = ISAS.get(machine)
    if here not in (None, isa.value):
        what = f"{case.hardware.name} is {isa.value}, and environment {environment} is {here}"
        remedy = "give a connection, or an environment that emulates it"
        yield case.line("hardware", f"{what}; {remedy} {case.basis('cpu.isa', isa)}")
