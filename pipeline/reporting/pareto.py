"""The Pareto front: what nothing else beats on both quality and latency."""

from collections.abc import Sequence

from pipeline.measurement import Measurement


def front(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return the undominated of one kind of evidence, fastest first.

    By point values: p50 and quality, in the metric's own direction. Of two equal in both, both
    stay. What lacks either figure is left out.
    """
    assert len({m.kind for m in measurements}) <= 1, "kinds of evidence are never compared"
    judged = [(m, p) for m in measurements if (p := _point(m)) is not None]
    kept = [(m, p) for m, p in judged if not any(_beats(other, p) for _, other in judged)]
    return tuple(m for m, _ in sorted(kept, key=lambda pair: (pair[1], pair[0].candidate)))


def _point(m: Measurement) -> tuple[float, float] | None:
    """Give both figures so that less is better."""
    if m.latency_ms.p50 is None or m.quality is None:
        return None
    sign = -1 if m.quality.direction == "higher" else 1
    return m.latency_ms.p50, sign * m.quality.value


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and a[0] <= b[0] and a[1] <= b[1]
