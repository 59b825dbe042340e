"""Measure a model file from anywhere, in one or more places: no project, no recipe, no manifest.

A place is a runtime and where it runs. Places on other devices are measured at the same time as
those here; a place that fails says why in its row, and stops no other.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import manifest, params
from pipeline.compatibility import ENVIRONMENTS, RUNTIMES, Converter, Environment, Runtime
from pipeline.errors import InputsError, PipelineError, TargetError
from pipeline.measurement import Measurement
from pipeline.profiling import measure, quality
from pipeline.profiling.agreement import Outputs
from pipeline.profiling.bench import Bench, Candidate, Preset
from pipeline.transports import probe

CANDIDATE, REFERENCE = "file", "reference"
WEIGHTS_BESIDE = (".bin", ".onnx.data")  # by the file's own stem


@dataclass(frozen=True)
class Place:
    """A runtime somewhere, as `place_of` read it; ``text`` is what was written."""

    text: str
    target: params.Target


@dataclass(frozen=True, eq=False)
class Data:
    """Raw inputs as a runner reads them (npz), and labels [N] or None."""

    inputs: Path
    labels: NDArray[Any] | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One place: its measurement, or why there is none. ``reference`` is that of --reference."""

    place: str
    measurement: Measurement | None = None
    reference: Measurement | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Profiled:
    """A row, and the file's outputs there."""

    row: Row
    outputs: Outputs | None


def place_of(text: str, targets: Mapping[str, params.Target], profile: params.Profile) -> Place:
    """Read ``RUNTIME`` or ``RUNTIME@WHERE``.

    Args:
        text: WHERE is an environment of this machine (``emulated-aarch64``), ``ssh:HOST[:PORT]``,
            ``adb:SERIAL``, or a target whose connection is meant.
        targets: of the project, if there is one.
        profile: how it is measured; its environment is replaced by the place's.

    Raises:
        InputsError: the runtime or the place is not known.
    """
    runtime, _, where = text.partition("@")
    converter = next((c for c, known in RUNTIMES.items() if runtime in known), None)
    if converter is None:
        known = ", ".join(dict.fromkeys(r for found in RUNTIMES.values() for r in found))
        raise InputsError(f"runtime {runtime!r} is not known; known: {known}")
    name = cast(Runtime, runtime)
    environment, connection = _where(where, name, targets)
    return Place(text, _target(converter, name, profile, environment, connection))


def _where(
    where: str, runtime: Runtime, targets: Mapping[str, params.Target]
) -> tuple[Environment, params.Connection | None]:
    here = ENVIRONMENTS[runtime][0]
    if not where:
        return here, None
    if where in ENVIRONMENTS[runtime]:
        return where, None
    kind, _, rest = where.partition(":")
    if kind == "ssh" and rest:
        host, _, port = rest.partition(":")
        return here, _connection({"transport": "ssh", "host": host}, port)
    if kind == "adb" and rest:
        return here, _connection({"transport": "adb", "serial": rest}, "")
    target = targets.get(where)
    if target is not None:
        return target.profile.environment, target.connection
    known = ", ".join([*ENVIRONMENTS[runtime], "ssh:HOST", "adb:SERIAL", *targets])
    raise InputsError(f"{where!r} is no place for {runtime}; known: {known}")


def _connection(fields: dict[str, Any], port: str) -> params.Connection:
    if port:
        fields["port"] = int(port) if port.isdigit() else port
    try:
        found: params.Connection = msgspec.convert(fields, params.Ssh | params.Adb)
    except msgspec.ValidationError as error:
        raise InputsError(f"{fields} is no device: {error}") from error
    return found


def _target(
    converter: Converter,
    runtime: Runtime,
    profile: params.Profile,
    environment: Environment,
    connection: params.Connection | None,
) -> params.Target:
    return params.Target(
        converter=converter,
        runtime=runtime,
        connection=connection,
        convert=params.Convert(precisions=()),
        profile=msgspec.structs.replace(profile, environment=environment),
        select=params.Select(),
    )


def profile(
    file: Path,
    reference: Path | None,
    places: Sequence[Place],
    data: Data,
    preset: Preset,
    *,
    environments: Path | None = None,
    on_step: Callable[[str], None] = lambda _note: None,
) -> list[Profiled]:
    """Measure the file in every place; quality drop and agreement are against the reference there.

    Args:
        file: of a format that the runtimes load; weights that lie beside it come along.
        reference: the fp32 form of the model, or None.
        places: where; those on other devices run at the same time.
        data: raw inputs; with labels, quality is accuracy.
        preset: how much is measured.
        environments: where foreign environments are.
        on_step: called with a short note at each worker.

    Raises:
        InputsError: a file is missing.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        candidates = [Candidate(CANDIDATE, _artifact(file, Path(folder) / "file"))]
        if reference is not None:
            there = Path(folder) / "reference"
            candidates.insert(0, Candidate(REFERENCE, _artifact(reference, there)))

        def one(place: Place) -> Profiled:
            try:
                bench = _bench(place, data, preset, environments)
                return _profile(candidates, bench, place, on_step)
            except PipelineError as error:
                return Profiled(Row(place=place.text, reason=str(error)), None)

        devices = _by_device(places)
        with ThreadPoolExecutor(len(devices)) as pool:
            done = pool.map(lambda members: [(p.text, one(p)) for p in members], devices)
            found = dict(itertools.chain.from_iterable(done))
        return [found[place.text] for place in places]


def _by_device(places: Sequence[Place]) -> list[list[Place]]:
    """Group the places: those of one device are measured one after another."""
    devices: dict[params.Connection | None, list[Place]] = {}
    for place in places:
        devices.setdefault(place.target.connection, []).append(place)
    return list(devices.values())


def _artifact(file: Path, folder: Path) -> Path:
    """Lay a file out as an artifact, under the name by which artifacts are loaded."""
    if not file.is_file():
        raise InputsError(f"{file} is missing; name a model file")
    folder.mkdir()
    shutil.copy(file, folder / f"model{file.suffix}")
    for suffix in WEIGHTS_BESIDE:
        beside = file.with_name(file.stem + suffix)
        if beside.is_file() and beside != file:
            # an OpenVINO file finds its weights by its own name, an ONNX file by the name it holds
            name = f"model{suffix}" if suffix == ".bin" else beside.name
            shutil.copy(beside, folder / name)
    manifest.write(folder, model=file.stem, stage="profile")
    return folder


def _bench(place: Place, data: Data, preset: Preset, environments: Path | None) -> Bench:
    return Bench(
        target_id=place.text,
        target=place.target,
        device=probe.of(place.target).device,
        inputs=data.inputs,
        labels=data.labels,
        preset=preset,
        environments=environments,
        judge=quality.JUDGES["top1" if data.labels is None else "accuracy"],
    )


def _profile(
    candidates: Sequence[Candidate],
    bench: Bench,
    place: Place,
    on_step: Callable[[str], None],
) -> Profiled:
    measured = measure.measure(
        candidates, REFERENCE, bench, lambda note: on_step(f"{place.text}: {note}")
    )
    found = {each.measurement.candidate: each for each in measured}
    told = found[CANDIDATE].measurement
    if told.kind == "not_measured":
        raise TargetError(f"{place.text}: {told.reason}")
    reference = found[REFERENCE].measurement if REFERENCE in found else None
    row = Row(place=place.text, measurement=told, reference=reference)
    return Profiled(row, found[CANDIDATE].outputs)


def data_of(path: Path, folder: Path) -> Data:
    """Read a user's npz (``inputs``, or ``inputs.NAME``; ``labels`` or none) for runners.

    Args:
        path: of the user.
        folder: where the file for runners is written.

    Raises:
        DataError: it holds something else.
    """
    from pipeline.data import npz

    arrays = npz.read_arrays(path)
    kind: Any = "classification" if "labels" in arrays else "agreement"
    samples = npz.read(path, kind=kind)
    inputs = folder / "inputs.npz"
    np.savez(inputs, inputs=np.asarray(samples.inputs))
    return Data(inputs, samples.labels if "labels" in arrays else None)
