"""What one field of a target says of another, and of the data: (key, what) for each problem.

What the hardware takes is the catalogue's to say: `pipeline.preflight`.
"""

from collections.abc import Iterator

from pipeline.compatibility import (
    EMULATED,
    ENVIRONMENTS,
    EVIDENCE,
    INTEGER_RULES,
    PRECISIONS,
    RUNTIMES,
)
from pipeline.params import Data, Scenario, Target

Problems = Iterator[tuple[tuple[str, ...], str]]

# What says nothing where an emulator runs: its times and its memory are nobody's.
OF_TIMES_AND_MEMORY = (
    ("profile", "energy"),
    ("profile", "layers"),
    ("profile", "scenarios"),
    ("profile", "sweep"),
    ("select", "max_latency_ms"),
    ("select", "max_memory_bytes"),
)
USUAL_SAMPLES_PER_QUERY = Scenario(scenario="MultiStream").samples_per_query


def problems(target: Target, data: Data) -> Problems:
    """Yield every problem of a target, with its key below the target's."""
    yield from _conversion(target, data)
    yield from _compiler(target)
    yield from _scenarios(target)
    yield from _connection(target)
    yield from _not_run(target)
    if _is_emulated(target):
        yield from _emulated(target)
    else:
        yield from _energy(target)


def _conversion(target: Target, data: Data) -> Problems:
    convert, converter = target.convert, target.converter
    precisions = ("convert", "precisions")
    for precision in convert.precisions:
        if precision not in PRECISIONS[converter]:
            makes = ", ".join(PRECISIONS[converter])
            yield precisions, f"{converter} makes {makes}, got {precision}"
    if len(set(convert.precisions)) < len(convert.precisions):
        yield precisions, f"names one twice, got {list(convert.precisions)}"
    if "fp32" not in convert.precisions:
        yield precisions, f"must hold fp32, the reference, got {list(convert.precisions)}"
    if target.select.precision not in (None, *convert.precisions):
        what = f"must be one of convert.precisions {list(convert.precisions)}"
        yield ("select", "precision"), f"{what}, got {target.select.precision}"
    if convert.num_calibration > data.num_calibration:
        what = f"must be at most data.num_calibration {data.num_calibration}"
        yield ("convert", "num_calibration"), f"{what}, got {convert.num_calibration}"
    if target.runtime not in RUNTIMES[converter]:
        readers = ", ".join(RUNTIMES[converter])
        yield ("runtime",), f"files of {converter} run in {readers}, got {target.runtime}"
    environments = ENVIRONMENTS[target.runtime]
    if target.profile.environment not in environments:
        what = f"{target.runtime} is in {', '.join(environments)}"
        yield ("profile", "environment"), f"{what}, got {target.profile.environment}"
    takes = INTEGER_RULES[converter].activation_dtypes
    if convert.activation_dtype not in (None, *takes):
        what = f"kernels for {converter} take {', '.join(takes)}"
        yield ("convert", "activation_dtype"), f"{what}, got {convert.activation_dtype}"


def _compiler(target: Target) -> Problems:
    """Ask for a cross-compiler's settings where there is one, and nowhere else."""
    settings = {
        "vela": (target.convert.vela, ("to_ethos_u",)),
        "tensorrt": (target.convert.tensorrt, ("to_tensorrt", "to_tensorrt_bundle")),
    }
    for key, (given, converters) in settings.items():
        if (given is not None) != (target.converter in converters):
            what = f"goes with {' and '.join(converters)}, and is required there"
            got = "and a section" if given is not None else "and no section"
            yield ("convert", key), f"{what}, got {target.converter} {got}"
    tensorrt = target.convert.tensorrt
    if target.converter == "to_tensorrt_bundle" and tensorrt and tensorrt.version is None:
        yield ("convert", "tensorrt"), "version must name the TensorRT of the device, got none"


def _scenarios(target: Target) -> Problems:
    key = ("profile", "scenarios")
    for load in target.profile.scenarios:
        if (load.queries_per_s is not None) != (load.scenario == "Server"):
            got = f"{load.queries_per_s:g}" if load.queries_per_s is not None else "none"
            what = "queries_per_s goes with Server, and is required there"
            yield key, f"{what}, got {load.scenario} and {got}"
        if load.samples_per_query != USUAL_SAMPLES_PER_QUERY and load.scenario != "MultiStream":
            what = "samples_per_query is of MultiStream"
            yield key, f"{what}, got {load.scenario} and {load.samples_per_query}"
        if load.scenario == "Server" and load.batch_size != 1:
            what = "a query of Server is one sample, so batch_size must be 1"
            yield key, f"{what}, got {load.batch_size}"
        if load.scenario == "MultiStream" and load.samples_per_query % load.batch_size:
            what = "batches must fill a query: samples_per_query must be a multiple of batch_size"
            yield key, f"{what} {load.batch_size}, got {load.samples_per_query}"


def _connection(target: Target) -> Problems:
    """A device is of use to what is measured through a connection; its paths start there."""
    if target.connection is None:
        return
    for key in ("python", "runner", "folder"):
        path = getattr(target.connection, key)
        if path is not None and path.startswith("~"):
            what = "no shell there sees its ~; start at /, or leave ~/ out: paths start in the home"
            yield ("connection", key), f"{what}, got {path}"
    evidence = EVIDENCE[target.converter]
    if evidence == "measured":
        return
    what = f"figures of {target.converter} are its compiler's, which needs no device"
    if evidence == "built":
        what = f"what {target.converter} makes is not run over a connection yet"
    transport = type(target.connection).__name__.lower()
    yield ("connection",), f"{what}; leave it out, got {transport}"


def _not_run(target: Target) -> Problems:
    """Loads and times of layers are of what runs; Vela gives layers without."""
    converter, keys = target.converter, ["scenarios", "sweep"]
    if EVIDENCE[converter] == "estimated":
        what = f"no load is run on what {converter} makes"
    elif converter == "to_tensorrt_bundle":
        keys.append("layers")
        what = "a bundle becomes an engine on its device, and is not run here"
    else:
        return
    for key in keys:
        if getattr(target.profile, key):
            yield ("profile", key), f"{what}; leave it out"


def _is_emulated(target: Target) -> bool:
    return target.connection is None and target.profile.environment in EMULATED


def _emulated(target: Target) -> Problems:
    """Outputs are all that can be had of an emulator."""
    environment, select = target.profile.environment, target.select
    if select.objective != "size":
        what = f"{environment} tells no latency and no energy; set objective: size, or give a"
        yield ("select", "objective"), f"{what} connection, got {select.objective}"
    if select.accept == "measured":
        what = f"nothing is measured in {environment}; set accept: emulated, or give a connection"
        yield ("select", "accept"), f"{what}, got measured"
    for section, key in OF_TIMES_AND_MEMORY:
        if getattr(getattr(target, section), key):
            what = f"times and memory in {environment} are the emulator's; leave it out, or give"
            yield (section, key), f"{what} a connection"


def _energy(target: Target) -> Problems:
    energy, key = target.profile.energy, ("profile", "energy")
    if energy is None:
        if target.select.objective == "energy":
            what = "energy needs profile.energy, which names the meter"
            yield ("select", "objective"), f"{what}, got none"
        return
    if (energy.port is not None) != (energy.meter == "serial"):
        what = "port goes with meter serial, and is required there"
        yield (*key, "port"), f"{what}, got {energy.meter} and {energy.port or 'no port'}"
    if energy.meter == "modelled" and target.hardware is None:
        what = "modelled takes the power of the catalogue's hardware"
        yield (*key, "meter"), f"{what}, got no hardware"
    yield from _metered(target, energy.meter)


def _metered(target: Target, meter: str) -> Problems:
    """A meter is for what runs beside it."""
    key = ("profile", "energy", "meter")
    if EVIDENCE[target.converter] == "estimated" and meter != "modelled":
        what = f"latency of {target.converter} is estimated, so its energy can only be modelled"
        yield key, f"{what}, got {meter}"
    elif target.converter == "to_tensorrt_bundle":
        yield key, f"a bundle becomes an engine on its device; leave energy out, got {meter}"
    elif meter == "nvml" and target.runtime != "tensorrt":
        yield key, f"nvml reads a GPU, and {target.runtime} runs on the processor, got nvml"
    elif meter == "rapl" and target.runtime == "tensorrt":
        yield key, "rapl reads the processor, and tensorrt runs on a GPU, got rapl"
