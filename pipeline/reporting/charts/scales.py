"""Map values to coordinates, linear or logarithmic, and choose ticks whose labels fit."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Above this ratio of largest to smallest, a linear axis would press the small ones together.
LOG_RATIO = 8.0
PADDING = 0.06  # of the span, at both ends
LOG_STEPS = ((1, 2, 5), (1, 3), (1,))
LINEAR_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """From ``lower``..``upper`` to the coordinates ``start``..``end``."""

    lower: float
    upper: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value; what lies beyond is put on the border."""
        value = min(max(value, self.lower), self.upper)
        if self.log:
            ratio = math.log(value / self.lower) / math.log(self.upper / self.lower)
        else:
            ratio = (value - self.lower) / (self.upper - self.lower)
        return self.start + ratio * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Tell whether a value lies within."""
        return self.lower <= value <= self.upper

    def ticks(self, gap: float) -> list[float]:
        """Give round values at least ``gap`` coordinates apart."""
        if self.log:
            for steps in LOG_STEPS:
                found = self._log_ticks(steps)
                if len(found) > 1 and self._narrowest(found) >= gap:
                    return found
        return self._linear_ticks(gap)

    def _narrowest(self, ticks: Sequence[float]) -> float:
        return min(abs(self(b) - self(a)) for a, b in itertools.pairwise(ticks))

    def _log_ticks(self, steps: Iterable[int]) -> list[float]:
        first, last = math.floor(math.log10(self.lower)), math.ceil(math.log10(self.upper))
        values = (step * 10.0**power for power in range(first, last + 1) for step in steps)
        return [value for value in values if self.holds(value)]

    def _linear_ticks(self, gap: float) -> list[float]:
        span = self.upper - self.lower
        most = max(2, int(abs(self.end - self.start) / gap))
        size = 10.0 ** math.floor(math.log10(span / most))
        closest: list[float] = []
        for step in LINEAR_STEPS:
            width = step * size
            first = math.floor(self.lower / width)
            count = math.ceil(self.upper / width) - first + 1
            values = [v for i in range(count) if self.holds(v := (first + i) * width)]
            if len(values) == 1 or (len(values) > 1 and self._narrowest(values) >= gap):
                return values
            closest = values or closest
        return closest[:1]


def fit(values: Sequence[float], start: float, end: float, *, log: bool | None = None) -> Scale:
    """Make a scale that holds all values with some room; ``log`` None decides by their ratio.

    A lone value gets room on both sides.
    """
    lower, upper = min(values), max(values)
    if log is None:
        log = lower > 0 and upper / lower >= LOG_RATIO
    if log:
        ratio = max(upper / lower, 1.2) ** PADDING
        return Scale(lower / ratio, upper * ratio, start, end, log=True)
    room = (upper - lower) * PADDING or abs(upper) * 0.1 or 1.0
    return Scale(lower - room, upper + room, start, end)


def label(value: float) -> str:
    """Write a tick: no more digits than it needs."""
    return f"{value:.10g}" if abs(value) < 1e5 else f"{value:.3g}"
