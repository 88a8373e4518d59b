"""The spread of the fine-tuning seeds of every checkpoint, each estimated with the help of the others.

Three seeds say little about one checkpoint's spread, and eight checkpoints of one task say more, as far as their
spreads are alike. How far they are is estimated too: the logarithms of the standard deviations are normal around a
common value, whose prior is flat, with a spread tau, uniform from 0 (all alike) to 2 (nothing in common). The posterior
is integrated on a grid. It is the moderated variance of Smyth (2004) with the uncertainty of its two parameters, which
that method leaves out and which matters for a few checkpoints of three seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from gap.intervals.variance import Floats

TAUS = np.array([0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0])
STEP = 0.08  # of the grid of log standard deviations
CENTRES = np.linspace(-3.0, 3.0, 37)  # of the common value, around the median
HIGHEST = 4.0  # log units above the largest estimate where the grid ends


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of one seed: an estimate [C] and draws of what it may be [D, C], as factors on it."""

    estimate: Floats
    factors: Floats


def moderate(variances: Floats, degrees: NDArray[np.int64], draws: int, random: np.random.Generator) -> Spreads:
    """From variances [C], each of a chi-square with degrees [C] of freedom (0: not estimated) over its degrees.

    A variance of exactly 0 stays 0: such a checkpoint scores the same with every seed, as others do not. A single
    checkpoint's draws make its Gaussian a Student's t.
    """
    estimate, factors = np.sqrt(variances), np.ones((draws, len(variances)))
    members = np.flatnonzero((variances > 0) & (degrees > 0))
    if len(members) == 1:
        one = members[0]
        factors[:, one] = np.sqrt(degrees[one] / (2 * gammaincinv(degrees[one] / 2, random.random(draws))))
    elif len(members) > 1:
        sampled = _posterior(np.log(variances[members]) / 2, degrees[members], draws, random)
        harmonic = 1 / np.sqrt((1 / sampled**2).mean(axis=0))  # the estimate itself where it stands alone
        estimate[members], factors[:, members] = harmonic, sampled / harmonic
    return Spreads(estimate, factors)


def _posterior(logs: Floats, degrees: NDArray[np.int64], draws: int, random: np.random.Generator) -> Floats:
    """Draws [D, C] of the standard deviations, whose estimates have these logarithms [C]."""
    centres = np.median(logs) + CENTRES
    grid = np.arange(min(logs.min(), centres[0]) - 1.0, max(logs.max(), centres[-1]) + HIGHEST, STEP)
    own = degrees[:, None] * (logs[:, None] - grid - np.exp(2 * (logs[:, None] - grid)) / 2)
    likelihood = np.exp(own - own.max(axis=1, keepdims=True))  # [C, G]
    distance = (grid - centres[:, None]) / np.maximum(TAUS, STEP / 2)[:, None, None]
    prior = np.exp(-(distance**2) / 2)
    prior = (prior / prior.sum(axis=-1, keepdims=True)).reshape(-1, len(grid))  # [tau and centre, G]
    edges = np.concatenate([[0.0], (TAUS[1:] + TAUS[:-1]) / 2, TAUS[-1:]])
    weight = np.log(np.maximum(prior @ likelihood.T, 1e-300)).sum(axis=1) + np.log(np.diff(edges)).repeat(len(centres))
    weight = np.exp(weight - weight.max())
    counts = random.multinomial(draws, weight / weight.sum())
    sampled, first = np.empty((draws, len(logs))), 0
    for place in np.flatnonzero(counts):
        rows = slice(first, first + counts[place])
        first = rows.stop
        cumulated = np.cumsum(prior[place] * likelihood, axis=1)
        for column, row in enumerate(cumulated):
            sampled[rows, column] = grid[np.searchsorted(row, row[-1] * random.random(counts[place]))]
    sampled += STEP * (random.random(sampled.shape) - 0.5)
    return np.exp(random.permutation(sampled))
