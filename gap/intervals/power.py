"""Power analysis: the number of seeds that resolve a given difference, from the variances of pilot cells.

It predicts the interval that the analysis will compute (gap/intervals/bootstrap.py): seeds move by Student's t,
examples by a normal whose variance has the interaction with the seeds taken out, since the spread of the seeds holds
it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, t

from gap.intervals.bootstrap import FEWEST_DEGREES, ONE_T, shared_degrees
from gap.intervals.variance import Floats

MOST_SEEDS = 100


@dataclass(frozen=True)
class PilotVariance:
    """Variances of a difference of two checkpoints by source, for one seed; `examples` is that of the mean, alone.

    `examples` is the variance over the test set without the interaction with the seeds; more seeds do not lower it.
    `degrees` are the degrees of freedom that a fine-tuning seed beyond the first adds to the estimated spread: 1 for a
    spread of its own, more where the other checkpoints help to estimate it.
    """

    pretraining: float  # between pretraining runs; 0 with only one, and then the plan is conditional on that run
    finetuning: float
    examples: float
    degrees: float = 1.0

    @staticmethod
    def of(first: Floats, second: Floats, *, examples: float = 0.0) -> PilotVariance:
        """From the scores [P, F] of two checkpoints, paired by pretraining seed; needs two fine-tuning seeds."""
        rows, columns = first.shape
        if columns < 2:
            raise ValueError(f"{columns} fine-tuning seeds: a pilot needs two or more to see their spread")
        finetuning = float(first.var(axis=1, ddof=1).mean() + second.var(axis=1, ddof=1).mean())
        between = float((second - first).mean(axis=1).var(ddof=1)) if rows > 1 else 0.0
        return PilotVariance(max(0.0, between - finetuning / columns), finetuning, examples)


@dataclass(frozen=True)
class SeedPlan:
    """The number of seeds that resolve a difference, or the `reason` why none does."""

    difference: float
    pretraining_seeds: int
    finetuning_seeds: int | None
    power: float | None
    reason: str | None = None
    between: str = "two checkpoints"


def plan_seeds(
    pilot: PilotVariance,
    difference: float,
    *,
    pretraining_seeds: int = 1,
    power: float = 0.8,
    confidence: float = 0.95,
) -> SeedPlan:
    """Fewest fine-tuning seeds, 3 to 100, that see the difference (in score, 0..1) with this power."""
    if difference <= 0:
        raise ValueError(f"difference is {difference}: it must be above 0, such as 0.01 for one point")

    def reached(seeds: int) -> float:
        return power_of(pilot, difference, pretraining_seeds, seeds, confidence=confidence)

    if (seeds := fewest(reached, 3, power)) is not None:
        return SeedPlan(difference, pretraining_seeds, seeds, reached(seeds))
    most = reached(MOST_SEEDS)
    reason = f"{MOST_SEEDS} fine-tuning seeds reach only a power of {most:.0%}"
    steady = replace(pilot, finetuning=0.0)  # as if any number of fine-tuning seeds were run
    if power_of(steady, difference, pretraining_seeds, MOST_SEEDS, confidence=confidence) < power:
        floor = np.sqrt(pilot.pretraining / pretraining_seeds + pilot.examples)
        reason += (
            f": pretraining runs and test examples alone leave a standard error of {100 * floor:.2f} points; add "
            "pretraining runs or test examples"
        )
    else:
        reason += ": their own spread is too wide for so small a difference; use a steadier recipe"
    return SeedPlan(difference, pretraining_seeds, None, most, reason)


def fewest(reached: Callable[[int], float], first: int, power: float) -> int | None:
    """The fewest seeds or runs, from `first` to 100, that reach the power; more of them reach more. None: too few."""
    if reached(MOST_SEEDS) < power:
        return None
    return first + bisect_left(range(first, MOST_SEEDS + 1), power, key=reached)


def power_of(
    pilot: PilotVariance, difference: float, pretraining_seeds: int, finetuning_seeds: int, *, confidence: float = 0.95
) -> float:
    """Chance that the interval of this design lies above 0 when the true difference is `difference`."""
    halves, error = _intervals(pilot, pretraining_seeds, finetuning_seeds, confidence)
    return 1.0 if error == 0.0 else float(ndtr((difference - halves) / error).mean())


def smallest_difference(
    pilot: PilotVariance, pretraining_seeds: int, finetuning_seeds: int, *, power: float = 0.8, confidence: float = 0.95
) -> float:
    """The least difference (in score) that this design sees with this power."""
    halves, error = _intervals(pilot, pretraining_seeds, finetuning_seeds, confidence)
    if error == 0.0:
        return 0.0
    highest = float(halves.max()) + 10 * error
    return float(brentq(lambda difference: ndtr((difference - halves) / error).mean() - power, 0.0, highest))


def _intervals(
    pilot: PilotVariance, pretraining_seeds: int, finetuning_seeds: int, confidence: float
) -> tuple[Floats, float]:
    """Half-lengths [K] of the intervals that this design may give, equally likely, and the true standard error.

    They are as long as the report would make them from an estimate of the seeds' error, which varies by its chi-square.
    """
    several = pretraining_seeds > 1
    degrees = pretraining_seeds - 1.0 if several else pilot.degrees * max(1, finetuning_seeds - 1)
    between = pilot.pretraining / pretraining_seeds if several else 0.0
    seeds = math.sqrt(between + pilot.finetuning / (pretraining_seeds * finetuning_seeds))
    examples = math.sqrt(pilot.examples)
    error = math.hypot(seeds, examples)
    if error == 0.0:
        return np.zeros(1), error
    estimated = seeds * np.sqrt(chi2.ppf(_parts(50), degrees) / degrees)
    tail = (1 + confidence) / 2
    if several and degrees >= FEWEST_DEGREES and confidence <= ONE_T:
        whole = np.hypot(estimated, examples)
        return t.ppf(tail, shared_degrees(degrees, estimated**2 / whole**2)) * whole, error
    return _half_lengths(estimated, examples, degrees, tail), error


def _half_lengths(seeds: Floats, examples: float, degrees: float, tail: float) -> Floats:
    """The quantile at `tail` of seeds [K] x Student's t + examples x normal, by bisection."""
    highest = seeds * t.ppf(tail, degrees) + examples * ndtri(tail)  # of sums no quantile is beyond the quantiles' sum
    if examples == 0.0:
        return np.asarray(highest)
    moved = seeds[:, None] * t.ppf(_parts(200), degrees)
    low, high = np.zeros_like(highest), highest
    for _ in range(25):
        middle = (low + high) / 2
        is_short = ndtr((middle[:, None] - moved) / examples).mean(axis=1) < tail
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return high


def _parts(number: int) -> Floats:
    """The middles of equal parts of a distribution."""
    return (np.arange(number) + 0.5) / number
