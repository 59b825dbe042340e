"""Times of single operators, as the adapters that can tell them give them.

Such an adapter has ``layers(model, num_threads, sample_inputs, num_runs)``: it runs one request in
a session of its own, since a runtime that notes operators' times is slower for it, and returns one
`row` an operator, in the order in which they ran.
"""

from __future__ import annotations

import statistics
from typing import Any, Dict, Sequence

NUM_WARMUP_RUNS = 10


def row(name: str, operator: str, times_ns: Sequence[float], provider: str) -> Dict[str, Any]:
    """Make the row of one operator: the median of its times; ``provider`` is what executed it."""
    return {
        "name": name,
        "operator": operator,
        "time_ns": round(statistics.median(times_ns)),
        "provider": provider,
    }
