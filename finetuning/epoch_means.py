"""Training measures averaged over the updates of the epoch so far: the last point of the cumulative curve."""

from __future__ import annotations

import math
from collections.abc import Mapping

NOT_A_MEASURE = ("update", "epoch", "learning_rate", "gradient_norm")

Sums = dict[str, list[float]]  # by measure: sum and number of the finite values; JSON, since a resume needs it


def add_update(sums: Sums, values: Mapping[str, float]) -> None:
    """Enter an update's measures; one that is not finite (the update was skipped) does not count."""
    for name, value in values.items():
        if name not in NOT_A_MEASURE and math.isfinite(value):
            total, count = sums.get(name, (0.0, 0.0))
            sums[name] = [total + value, count + 1]


def means(sums: Sums) -> dict[str, float]:
    """The mean of every measure over the updates entered."""
    return {name: total / count for name, (total, count) in sums.items()}
