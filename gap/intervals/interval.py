"""A statistic with its interval: any function of the checkpoints' scores, evaluated on the bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gap.intervals.bootstrap import ONE_T, Draws
from gap.intervals.variance import Floats

Statistic = Callable[[Floats], Floats]  # scores [D, C] -> values [D]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; low and high are None if the interval is refused, and `refused` says why."""

    value: float
    low: float | None = None
    high: float | None = None
    refused: str | None = None

    @property
    def includes_zero(self) -> bool:
        """Whether the interval does not exclude 0 (true for a refused interval)."""
        return self.low is None or self.high is None or self.low <= 0.0 <= self.high

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high is not None and self.high < 0.0


def statistic_draws(statistic: Statistic, draws: Draws, confidence: float = ONE_T) -> Floats:
    """Draws [D] of a statistic for an interval of this confidence, its sources combined by its slope in every score.

    Where it is flat or infinite at the observed scores nothing is taken out: the draws spread at least as far as they
    must.
    """
    return statistic(draws.scores(_gradient(statistic, draws), confidence))


def quantiles(values: Floats, confidence: float) -> tuple[float, float]:
    """Ends of the central interval of draws [D]; infinite draws keep their order and are never interpolated."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must lie between 0 and 1; use 0.95")
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, tail, method="lower"), np.quantile(values, 1.0 - tail, method="higher")
    return float(low), float(high)


def estimate(
    statistic: Statistic,
    draws: Draws,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The statistic of the observed scores with its interval, clipped to its possible range."""
    value = float(statistic(draws.observed[None])[0])
    low, high = quantiles(statistic_draws(statistic, draws, confidence), confidence)
    if not np.isfinite(low) or not np.isfinite(high):
        return Estimate(value, refused="the interval is unbounded at this size: add seeds")
    return Estimate(value, float(np.clip(low, *bounds)), float(np.clip(high, *bounds)))


def _gradient(statistic: Statistic, draws: Draws) -> Floats | None:
    """Slope of the statistic in every score [C], over half a standard deviation; None if it has no slope."""
    spread = (draws.pretraining + draws.finetuning + draws.examples).std(axis=0)
    steps = np.diag(np.maximum(spread / 2, 1e-6))
    values = statistic(np.concatenate([draws.observed + steps, draws.observed - steps]))
    size = len(draws.observed)
    with np.errstate(invalid="ignore"):
        gradient = (values[:size] - values[size:]) / (2 * np.diag(steps))
    if not np.isfinite(gradient).all() or not gradient.any():
        return None
    return gradient
