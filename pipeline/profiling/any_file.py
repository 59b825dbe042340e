"""Measure a model file from anywhere, in one or more places: no project, no recipe, no manifest.

A place is a runtime and where it runs. Places on other devices are measured at the same time as
those here; a place that fails says why in its row, and stops no other.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import manifest, params
from pipeline.errors import InputsError, PipelineError, TargetError
from pipeline.measurement import Measurement
from pipeline.profiling import across_places, loadgen, measure, passes, quality, workers
from pipeline.profiling.across_places import Agreed, Ran
from pipeline.profiling.agreement import Outputs
from pipeline.profiling.bench import Bench, Candidate, Preset
from pipeline.profiling.loadgen import Settings, Verdict
from pipeline.profiling.places import Place
from pipeline.targets import hardware as catalogue
from pipeline.transports import probe

CANDIDATE, REFERENCE = "file", "reference"
WEIGHTS_BESIDE = (".bin", ".onnx.data")  # by the file's own stem


@dataclass(frozen=True, eq=False)
class Data:
    """Raw inputs as a runner reads them (npz), and labels [N] or None."""

    inputs: Path
    labels: NDArray[Any] | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One place: its measurement, or why there is none. ``reference`` is that of --reference.

    ``agreements``: the file's outputs beside those of other places. ``loadgen``: what MLPerf's
    LoadGen found, of what it was asked for.
    """

    place: str
    measurement: Measurement | None = None
    reference: Measurement | None = None
    reason: str | None = None
    agreements: tuple[Agreed, ...] = ()
    loadgen: tuple[Verdict, ...] = ()


@dataclass(frozen=True, eq=False)
class Profiled:
    """A row, and what ran in that place."""

    row: Row
    ran: Ran

    @property
    def outputs(self) -> Outputs | None:
        """The file's."""
        return self.ran.outputs


@dataclass(frozen=True)
class Asked:
    """What is measured in each place: how much of it, and what LoadGen shall judge beside."""

    preset: Preset
    loadgen: Sequence[Settings] = ()


def profile(
    file: Path,
    reference: Path | None,
    where: Sequence[Place],
    data: Data,
    asked: Asked,
    *,
    environments: Path | None = None,
    on_step: Callable[[str], None] = lambda _note: None,
) -> list[Profiled]:
    """Measure the file in every place; quality drop and agreement are against the reference there.

    Args:
        file: of a format that the runtimes load; weights that lie beside it come along.
        reference: the fp32 form of the model, or None.
        where: the places; those on other devices run at the same time.
        data: raw inputs; with labels, quality is accuracy.
        asked: what is measured.
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
                device = probe.of(place.target, environments).device
                bench = _bench(place, data, asked.preset, device, environments)
                _check_energy(bench)
                return _profile(candidates, bench, asked.loadgen, on_step)
            except PipelineError as error:
                return Profiled(Row(place=place.text, reason=str(error)), Ran(place.text))

        devices = _by_device(where)
        with ThreadPoolExecutor(len(devices)) as pool:
            done = pool.map(lambda members: [(p.text, one(p)) for p in members], devices)
            found = dict(itertools.chain.from_iterable(done))
    ordered = [found[place.text] for place in where]
    agreements = across_places.agreed([each.ran for each in ordered])
    return [
        replace(each, row=msgspec.structs.replace(each.row, agreements=with_others))
        for each, with_others in zip(ordered, agreements, strict=True)
    ]


def num_steps(where: Sequence[Place], data: Data, asked: Asked, *, has_reference: bool) -> int:
    """Return how often `profile` calls ``on_step`` when every place runs everything."""
    benches = [_bench(place, data, asked.preset, {}, None) for place in where]
    return sum(
        measure.num_steps(1 + has_reference, bench) + len(asked.loadgen) * bench.is_timed
        for bench in benches
    )


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


def _bench(
    place: Place,
    data: Data,
    preset: Preset,
    device: Mapping[str, Any],
    environments: Path | None,
) -> Bench:
    hardware = place.target.hardware
    return Bench(
        target_id=place.text,
        target=place.target,
        hardware=catalogue.find(hardware) if hardware else None,
        device=device,
        inputs=data.inputs,
        labels=data.labels,
        preset=preset,
        environments=environments,
        judge=quality.JUDGES["top1" if data.labels is None else "accuracy"],
    )


def _check_energy(bench: Bench) -> None:
    """Refuse a model of energy where nothing says which hardware's."""
    asked = bench.target.profile.energy
    if asked is not None and asked.meter == passes.MODELLED and bench.hardware is None:
        raise InputsError(
            f"{bench.target_id}: energy: modelled takes the power of the catalogue's hardware; "
            "measure at a target of params.yaml that has hardware, or name a meter"
        )


def _profile(
    candidates: Sequence[Candidate],
    bench: Bench,
    judged: Sequence[Settings],
    on_step: Callable[[str], None],
) -> Profiled:
    def note(text: str) -> None:
        on_step(f"{bench.target_id}: {text}")

    found = {
        each.measurement.candidate: each
        for each in measure.measure(candidates, REFERENCE, bench, note)
    }
    told, compared = found[CANDIDATE], found.get(REFERENCE)
    is_absent = told.measurement.kind == "not_measured"
    row = Row(
        place=bench.target_id,
        measurement=None if is_absent else told.measurement,
        reference=compared.measurement if compared else None,
        reason=f"{bench.target_id}: {told.measurement.reason}" if is_absent else None,
        loadgen=tuple(_verdicts(candidates[-1].artifact, bench, judged, note))
        if told.measurement.kind == "measured"
        else (),
    )
    fp32 = compared.outputs if compared else None
    return Profiled(row, Ran(bench.target_id, told.outputs, told.tensors, fp32))


def _verdicts(
    artifact: Path,
    bench: Bench,
    judged: Sequence[Settings],
    note: Callable[[str], None],
) -> Iterator[Verdict]:
    """Yield LoadGen's verdicts; where it cannot run, why."""
    job = workers.job_of(artifact, bench.inputs, bench.target, bench.environments)
    for settings in judged:
        note(f"LoadGen, {settings.scenario}")
        try:
            yield loadgen.judge(job, settings)
        except TargetError as error:
            document = settings.document(bench.target.profile.num_threads)
            yield loadgen.verdict_of(settings, document, {"reason": str(error)})


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
