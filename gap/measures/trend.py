"""Plateau test: the slope of a score over the last doublings of epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gap.intervals.interval import Estimate
from gap.intervals.variance import Floats

FLAT_POINTS = 1.0  # a doubling that brings less than one point


def doubling_slope(epochs_factors: Sequence[float], scores: Floats, *, last: int = 3) -> Floats:
    """Score gained per doubling of epochs [D], by least squares; scores [D, E] at increasing factors."""
    if len(epochs_factors) < 2:
        raise ValueError(f"{len(epochs_factors)} epoch counts: a slope needs two; run the scratch_longer control")
    doublings = np.log2(np.asarray(epochs_factors, dtype=np.float64))[-last:]
    centred = doublings - doublings.mean()
    return scores[:, -len(centred) :] @ centred / (centred @ centred)


def plateau_verdict(slope: Estimate) -> str:
    """`rising`, `flat` (certainly less than a point per doubling), `falling`, or `not resolved`."""
    if slope.low is None or slope.high is None:
        return "not resolved"
    if slope.high < FLAT_POINTS / 100:
        return "falling" if slope.high < 0 else "flat"
    return "rising" if slope.low > 0 else "not resolved"
