"""What a measurement needs: the candidates, the bench they share, how much is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline import params
from pipeline.data.splits import Split
from pipeline.profiling.quality import ACCURACY, Judge, Truth, judge_of, truth_of
from pipeline.targets import hardware as catalogue
from pipeline.targets.hardware import Hardware

NS_PER_S = 1e9


@dataclass(frozen=True)
class Preset:
    """How much is measured: restarts, and in each at most so much warm-up and so much timing.

    Timing goes on until both ``timed_s`` and ``min_samples`` are reached, however slow the net is.
    So ``num_restarts * min_samples`` is what a percentile surely has; which are had for that stands
    in `statistics.MIN_SAMPLES`, and below its count one is absent. Loads beside SingleStream take
    the same times, and ``min_samples`` queries.
    """

    num_restarts: int
    warmup_s: float
    timed_s: float
    min_samples: int

    def plan(self) -> dict[str, int]:
        """Return the fields of the worker's `pipeline.runtimes.clock.Plan`."""
        return {
            "warmup_ns": round(self.warmup_s * NS_PER_S),
            "timed_ns": round(self.timed_s * NS_PER_S),
            "min_samples": self.min_samples,
        }


PRESETS: dict[str, Preset] = {
    # 3 x (0.35 + 0.6) s, the rest of 3 s for load and first run; 3 x 4 samples are enough for a p50
    "quick": Preset(num_restarts=3, warmup_s=0.35, timed_s=0.6, min_samples=4),
    # Two restarts more take Student's t from 4.3 to 2.8, so an interval is half as wide. A p90 for
    # every net (5 x 13 >= 64); a p99 for those of up to 7 ms (662 runs in 5 x 1 s), so that a net
    # of 1 ms has it even on a busy machine.
    "ci": Preset(num_restarts=5, warmup_s=1.0, timed_s=1.0, min_samples=13),
    # A p99 for every net: 5 x 133 >= 662, which MLPerf Inference asks of it too (early stopping).
    # 10 s each is what clocks and heat need to settle; MLPerf asks for 600 s of one run, which
    # `pipeline.runtimes.loadgen` can be given.
    "official": Preset(num_restarts=5, warmup_s=5.0, timed_s=10.0, min_samples=133),
}


@dataclass(frozen=True)
class Candidate:
    """An artifact directory to measure, by its candidate id."""

    name: str
    artifact: Path


@dataclass(frozen=True, eq=False)
class Bench:
    """What candidates share: the target, its machine, raw inputs (npz) with labels, how much.

    ``labels`` None, and ``tensors`` (the inputs as the net sees them), as `Truth` has them.
    """

    target_id: str
    target: params.Target
    device: Mapping[str, Any]
    inputs: Path
    labels: NDArray[Any] | None
    preset: Preset
    environments: Path | None = None
    judge: Judge = ACCURACY
    hardware: Hardware | None = None
    tensors: NDArray[Any] | None = None

    @classmethod
    def of(
        cls,
        p: params.Params,
        target: str,
        inputs: Path,
        split: Split,
        *,
        device: Mapping[str, Any],
        preset: Preset | None = None,
        environments: Path | None = None,
    ) -> "Bench":
        """Make the bench of a project's target on a split, which ``inputs`` is the file of."""
        cfg, truth = p.targets[target], truth_of(p.task, split)
        known = catalogue.find(cfg.hardware) if cfg.hardware else None
        return cls(
            target_id=target,
            target=cfg,
            device=device,
            inputs=inputs,
            labels=truth.labels,
            preset=preset or PRESETS[cfg.profile.preset],
            environments=environments,
            judge=judge_of(p.task),
            hardware=known,
            tensors=truth.inputs,
        )

    @property
    def is_timed(self) -> bool:
        """Tell whether times taken there are those of the target."""
        return self.target.evidence in ("measured", "built")

    @property
    def truth(self) -> Truth:
        """What outputs are held against."""
        return Truth(self.labels, self.tensors)
