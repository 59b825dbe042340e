"""How fast to learn at each step: linear warm-up, then a cosine to zero."""

import math


def learning_rate_factor(step: int, num_steps: int, warmup_ratio: float) -> float:
    """Return what to multiply the learning rate by at a step, in (0, 1].

    Warm-up rises linearly over the first ``warmup_ratio`` of the steps (Goyal et al. 2017,
    arXiv:1706.02677); the step after it has factor 1. From there half a cosine falls to zero,
    reached one step after the last (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    Args:
        step: 0 to ``num_steps`` - 1; a later step gets 0.
        num_steps: of the whole run.
        warmup_ratio: 0 to 1, rounded to whole steps.
    """
    num_warmup = min(round(warmup_ratio * num_steps), num_steps - 1)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    progress = min((step - num_warmup) / (num_steps - num_warmup), 1.0)
    return 0.5 * (1 + math.cos(math.pi * progress))
