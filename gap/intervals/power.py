"""Power analysis: the number of seeds that resolve a given difference, from the variances of pilot cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import nct, t

from gap.intervals.variance import Floats

MOST_SEEDS = 100


@dataclass(frozen=True)
class PilotVariance:
    """Variances of one cell's paired difference by source; `examples` is that of the mean over the test set."""

    pretraining: float  # between pretraining runs; 0 with only one, and then the plan is conditional on that run
    finetuning: float
    examples: float

    @staticmethod
    def of(differences: Floats, *, examples: float = 0.0) -> PilotVariance:
        """From differences [P, F] of two checkpoints' cells, paired by seed; needs two fine-tuning seeds.

        `examples`: the variance of the difference's mean over the test set, from the bootstrap; more seeds do not
        lower it.
        """
        rows, columns = differences.shape
        if columns < 2:
            raise ValueError(f"{columns} fine-tuning seeds: a pilot needs two or more to see their spread")
        finetuning = float(differences.var(axis=1, ddof=1).mean())
        between = float(differences.mean(axis=1).var(ddof=1)) if rows > 1 else 0.0
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
    reached = 0.0
    for seeds in range(3, MOST_SEEDS + 1):
        reached = power_of(pilot, difference, pretraining_seeds, seeds, confidence=confidence)
        if reached >= power:
            return SeedPlan(difference, pretraining_seeds, seeds, reached)
    floor = np.sqrt(pilot.pretraining / pretraining_seeds + pilot.examples)
    return SeedPlan(
        difference,
        pretraining_seeds,
        None,
        reached,
        f"{MOST_SEEDS} fine-tuning seeds reach only a power of {reached:.0%}: pretraining runs and test examples alone "
        f"leave a standard error of {100 * floor:.2f} points; add pretraining runs or test examples",
    )


def power_of(
    pilot: PilotVariance, difference: float, pretraining_seeds: int, finetuning_seeds: int, *, confidence: float = 0.95
) -> float:
    """Chance that the interval of this design excludes 0 when the true difference is `difference`.

    Student's t with the degrees of freedom of the coarsest source that is resampled (noncentral under the difference).
    """
    cells = pretraining_seeds * finetuning_seeds
    between = pilot.pretraining / pretraining_seeds if pretraining_seeds > 1 else 0.0
    error = np.sqrt(between + pilot.finetuning / cells + pilot.examples)
    if error == 0.0:
        return 1.0
    degrees = (pretraining_seeds if pretraining_seeds > 1 else finetuning_seeds) - 1
    critical = t.ppf((1 + confidence) / 2, degrees)
    return float(1 - nct.cdf(critical, degrees, difference / error))
