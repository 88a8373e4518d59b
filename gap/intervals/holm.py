"""Several questions at once: Holm's (1979) correction, and the p-value that belongs to an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gap.intervals.bootstrap import ONE_T, Draws
from gap.intervals.interval import Statistic, statistic_draws
from gap.intervals.variance import Floats


def p_value(statistic: Statistic, draws: Draws) -> float:
    """The least error at which the interval of a statistic excludes 0; never below 2 / (number of draws + 1)."""
    limit = 1 - ONE_T
    usual = _tail(statistic_draws(statistic, draws))
    if usual > limit:
        return usual
    return min(limit, max(usual, _tail(statistic_draws(statistic, draws, confidence=1.0 - limit / 2))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: those below an error are, together, wrong with at most that error."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, number in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def _tail(values: Floats) -> float:
    """Twice the share of draws on the rarer side of 0; a draw without a value counts on both."""
    below, above = ((~(values > 0)).sum(), (~(values < 0)).sum())
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(values))))
