"""The learning-rate schedule, warmup-stable-decay, as a pure function of the budget spent."""

from __future__ import annotations

import math

from pretraining.names import DECAYS


def learning_rate(
    spent: float,
    *,
    peak: float,
    warmup: float,
    decay_start: float,
    decay_end: float,
    decay: str = "sqrt",
    warmup_start: float = 0.0,
) -> float:
    """Warmup-stable-decay: linear from 0 to `peak` over `warmup`, level, then to zero between the decay's ends.

    All but `peak` are in the budget's unit. `sqrt` is the 1 - sqrt(x) cooldown, the best of those compared by Hägele
    et al. 2024 (Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, section 3).
    """
    if warmup > 0 and spent < warmup_start + warmup:
        return peak * max(0.0, spent - warmup_start) / warmup
    if spent <= decay_start or decay_end <= decay_start:
        return peak
    done = min(1.0, (spent - decay_start) / (decay_end - decay_start))
    if decay == "linear":
        return peak * (1.0 - done)
    if decay == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))
    if decay == "sqrt":
        return peak * (1.0 - math.sqrt(done))
    raise ValueError(f"decay {decay!r} is unknown: use one of {', '.join(DECAYS)}")
