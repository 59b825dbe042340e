"""What lies behind the answers: samples, sensitivity, curves, lineage, read from paths handed in.

Shapes: B bins of a histogram.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import params
from pipeline.errors import ManifestError
from pipeline.reporting import lineage
from pipeline.reporting.lineage import Lineage
from pipeline.targets.hardware import Hardware

if TYPE_CHECKING:
    from pipeline.conversion.onnx_count import Costs

NS_PER_MS = 1e6
NUM_BINS = 40
# A histogram's axis ends where this share of a candidate's samples lies below: one scheduler tick
# of 10 ms would press all else into a line. What lies beyond is counted and said.
AXIS_RATIO = 0.99
RESTORE = "restore it (dvc checkout, or dvc repro)"


@dataclass(frozen=True)
class Sources:
    """Where the evidence lies. What does not exist was not made, and its figure is left out.

    ``profiled`` maps a target to the folder that holds, per candidate, ``samples.npz``;
    ``quantized`` holds per variant ``sensitivity.json``; ``curves`` holds one ``NAME.tsv`` a curve;
    ``manifests`` are folders with a manifest, for the lineage. ``targets`` says what was asked for;
    ``hardware`` is the catalogue's entry of a target that names one, whose roofline takes the costs
    of ``exported`` (per variant ``model.onnx``).
    """

    profiled: Mapping[str, Path] = field(default_factory=dict)
    quantized: Path | None = None
    curves: Path | None = None
    manifests: Sequence[Path] = ()
    targets: Mapping[str, params.Target] = field(default_factory=dict)
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    exported: Path | None = None


class Layer(msgspec.Struct, frozen=True):
    """How much one layer alone at low precision changes the outputs; SQNR None: not at all."""

    layer: str
    weight_bits: int
    sqnr_db: float | None
    top1_agreement: float | None = None


@dataclass(frozen=True)
class Curve:
    """One figure by training step."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How the times of one candidate are spread: the share of samples in each of B bins.

    ``num_beyond`` samples lie above the last edge. ``medians_ms`` has one entry a restart.
    """

    shares: NDArray[np.float64]
    num_samples: int
    num_beyond: int
    medians_ms: tuple[float, ...]
    runs_per_sample: int


@dataclass(frozen=True, eq=False)
class Distributions:
    """Histograms of one target's candidates over the same B + 1 edges, in ms."""

    edges_ms: NDArray[np.float64]
    of: dict[str, Histogram]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything the page shows beside the answers; empty where nothing was made."""

    distributions: dict[str, Distributions] = field(default_factory=dict)
    sensitivity: dict[str, tuple[Layer, ...]] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    targets: Mapping[str, params.Target] = field(default_factory=dict)
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    costs: Mapping[str, "Costs"] = field(default_factory=dict)


def read(sources: Sources) -> Evidence:
    """Read all that exists.

    Raises:
        ManifestError: naming a file that exists and cannot be read.
    """
    found = {target: _distributions(path) for target, path in sources.profiled.items()}
    return Evidence(
        distributions={target: d for target, d in found.items() if d is not None},
        sensitivity=_sensitivity(sources.quantized),
        curves=_curves(sources.curves),
        lineage=lineage.trace(sources.manifests),
        targets=sources.targets,
        hardware=sources.hardware,
        costs=_costs(sources.exported) if sources.hardware else {},
    )


def _costs(folder: Path | None) -> dict[str, "Costs"]:
    """Count every variant's multiply-accumulates and values moved; open axes leave it out."""
    from pipeline.conversion import onnx_count  # onnx takes a third of a second to import

    paths = sorted(folder.glob("*/model.onnx")) if folder else []
    found = {path.parent.name: onnx_count.costs(path) for path in paths}
    return {variant: costs for variant, costs in found.items() if costs is not None}


def _sensitivity(folder: Path | None) -> dict[str, tuple[Layer, ...]]:
    paths = sorted(folder.glob("*/sensitivity.json")) if folder else []
    return {path.parent.name: _layers(path) for path in paths}


def _layers(path: Path) -> tuple[Layer, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Layer, ...])
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{path} is malformed: {error}; {RESTORE}") from error


def _curves(folder: Path | None) -> tuple[Curve, ...]:
    paths = sorted(folder.glob("*.tsv")) if folder else []
    return tuple(_curve(path) for path in paths)


def _curve(path: Path) -> Curve:
    """Read what DVCLive wrote: ``step`` and one value, tab-separated, under a header."""
    try:
        header, *rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
        column = header.index("step")
        pairs = [(float(row[column]), float(row[1 - column])) for row in rows]
    except (ValueError, IndexError) as error:
        raise ManifestError(f"{path} is malformed: {error}; {RESTORE}") from error
    return Curve(path.stem, tuple(step for step, _ in pairs), tuple(value for _, value in pairs))


def _distributions(profiled: Path) -> Distributions | None:
    samples = {path.parent.name: _samples(path) for path in sorted(profiled.glob("*/samples.npz"))}
    samples = {name: restarts for name, restarts in samples.items() if restarts[0]}
    return spread(samples) if samples else None


def _samples(path: Path) -> tuple[list[NDArray[np.float64]], int]:
    """Read the times of each restart in ms a run, and how many runs a sample holds at most."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            runs = arrays["runs_per_sample"]
            restarts = [
                arrays[f"samples_ns_{index}"] / (int(count) * NS_PER_MS)
                for index, count in enumerate(runs)
            ]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ManifestError(f"{path} is malformed: {error}; {RESTORE}") from error
    return [restart for restart in restarts if len(restart)], int(max(runs, default=1))


def spread(samples: Mapping[str, tuple[list[NDArray[np.float64]], int]]) -> Distributions:
    """Bin the times [ms] of every candidate over one logarithmic axis that fits them all."""
    pooled = {name: np.concatenate(restarts) for name, (restarts, _) in samples.items()}
    lower = min(float(times.min()) for times in pooled.values())
    upper = max(float(np.quantile(times, AXIS_RATIO)) for times in pooled.values())
    edges = np.geomspace(lower, max(upper, lower * 1.1), NUM_BINS + 1)
    edges[0] = lower  # geomspace may round the first edge above the smallest sample
    histograms = {
        name: Histogram(
            shares=np.histogram(times, edges)[0] / len(times),
            num_samples=len(times),
            num_beyond=int((times > edges[-1]).sum()),
            medians_ms=tuple(float(np.median(restart)) for restart in samples[name][0]),
            runs_per_sample=samples[name][1],
        )
        for name, times in pooled.items()
    }
    return Distributions(edges, histograms)
