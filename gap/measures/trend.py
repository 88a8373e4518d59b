"""How a score rises: per doubling of epochs, which shows a plateau, and per doubling of the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gap.intervals.interval import Estimate
from gap.intervals.variance import Floats

FLAT_POINTS = 1.0  # a doubling that brings less than one point
LAST_DOUBLINGS = 3  # epoch counts that the plateau is judged by


def doubling_slope(amounts: Sequence[float], scores: Floats, *, last: int | None = None) -> Floats:
    """Score gained per doubling of an amount (epochs, tokens) [D], by least squares; scores [D, E] at growing amounts.

    `last`: over so many of the largest amounts only. The slope is a linear contrast of the scores.
    """
    if len(amounts) < 2:
        raise ValueError(f"{len(amounts)} amount: a slope needs two; run the scratch_longer control, or more budgets")
    doublings = np.log2(np.asarray(amounts, dtype=np.float64))[-(last or len(amounts)) :]
    centred = doublings - doublings.mean()
    return scores[:, -len(centred) :] @ centred / (centred @ centred)


def plateau_verdict(slope: Estimate) -> str:
    """`rising`, `flat` (certainly less than a point per doubling), `falling`, or `not resolved`."""
    if slope.low is None or slope.high is None:
        return "not resolved"
    if slope.high < FLAT_POINTS / 100:
        return "falling" if slope.high < 0 else "flat"
    return "rising" if slope.low > 0 else "not resolved"
