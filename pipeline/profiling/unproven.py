"""What can be said of an engine where no GPU can load it: that it was built, and its size.

Where its GPU and its runtime are, it is measured as any other artifact.
"""

import importlib.util
from collections.abc import Callable, Sequence

from pipeline import params
from pipeline.measurement import Measurement
from pipeline.profiling import measure as measuring
from pipeline.profiling import summary
from pipeline.profiling.bench import Bench, Candidate
from pipeline.profiling.summary import Measured
from pipeline.runtimes import cuda

MODULES = ("tensorrt_rtx", "tensorrt")


def measure(
    candidates: Sequence[Candidate],
    reference: str,
    bench: Bench,
    on_step: Callable[[str], None] = lambda _note: None,
) -> list[Measured]:
    """Measure every candidate here, or else record each as ``built``, with the reason.

    Raises:
        TargetError: as `pipeline.profiling.measure.measure`.
    """
    reason = why_unproven(bench.target, cuda.find())
    if reason is None:
        return measuring.measure(candidates, reference, bench, on_step)
    found = []
    for candidate in candidates:
        on_step(f"{candidate.name}: built")
        found.append(Measured(built(candidate, reason, bench), {}, None))
    return found


def built(candidate: Candidate, reason: str, bench: Bench) -> Measurement:
    """Record a candidate that exists and never ran: no latency, no quality, its size."""
    return Measurement(kind="built", reason=reason, **summary.identity(candidate, bench))


def why_unproven(target: params.Target, gpu: cuda.Device | str) -> str | None:
    """Say in one line why this machine cannot run the target's artifacts; None if it can.

    Args:
        target: of a converter whose evidence is ``built``.
        gpu: the first GPU here, or one line on why there is none.
    """
    settings = target.convert.tensorrt
    assert settings is not None  # a rule of params.yaml
    if target.converter == "to_tensorrt_bundle":
        return "its engine is built on the device itself, by slipway device build"
    if isinstance(gpu, str):
        return gpu
    if gpu.compute_capability != settings.compute_capability:
        return (
            f"{gpu.name} has compute capability {gpu.compute_capability}, the engine is for "
            f"{settings.compute_capability}"
        )
    if not any(importlib.util.find_spec(module) for module in MODULES):
        return "neither tensorrt-rtx nor tensorrt is installed; pip install 'slipway[tensorrt]'"
    return None
