"""Variance of a statistic by source: pretraining seeds, fine-tuning seeds, examples.

Checkpoints of one run are paired by pretraining seed, and all by examples. They are not paired by fine-tuning seed: the
order of the data and the new weights that one seed draws do to one checkpoint what they do not do to another, so seeds
with the same number have nothing in common. The variance of a mean is V_seeds + (V_e - V_se), where V_x is the variance
over the levels of x divided by their number: the interaction of seeds and examples is taken out of the examples'
variance because the spread of the seeds holds it already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import polygamma

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class SeedGrid:
    """The positions of one checkpoint's cells among all cells, as pretraining seeds x fine-tuning seeds."""

    pretraining_seeds: tuple[int, ...]
    finetuning_seeds: tuple[int, ...]
    cells: tuple[int, ...]  # row-major: cells[p * F + f]
    run: int = 0  # pretraining seeds of one run are paired, those of two runs have nothing in common
    group: str = ""  # checkpoints of one group help to estimate each other's spread over the fine-tuning seeds

    def scores(self, cell_scores: Floats) -> Floats:
        """This checkpoint's cells [..., P, F] out of all cells [..., M]."""
        shape = (len(self.pretraining_seeds), len(self.finetuning_seeds))
        return cell_scores[..., list(self.cells)].reshape(*cell_scores.shape[:-1], *shape)

    @property
    def seeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.pretraining_seeds, self.finetuning_seeds

    @property
    def has_runs(self) -> bool:
        """Whether the spread of the pretraining seeds, which holds that of the fine-tuning seeds, is known."""
        return len(self.pretraining_seeds) > 1

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the spread of the pretraining seeds; 0 with one run."""
        return len(self.pretraining_seeds) - 1

    def within(self, cell_scores: Floats) -> tuple[float, int]:
        """Variance of a cell over the fine-tuning seeds of a run, and its degrees of freedom (0: unknown)."""
        scores = self.scores(cell_scores)
        rows, columns = scores.shape
        if columns < 2:
            return 0.0, 0
        return float(scores.var(axis=1, ddof=1).mean()), rows * (columns - 1)


def common_share(grids: Sequence[SeedGrid], cell_scores: Floats) -> float:
    """Share of the fine-tuning seeds' variance that the runs of a checkpoint have in common, over all grids.

    A new seed for every cell would have none. What is common averages out with fine-tuning seeds, not with runs.
    """
    variance = excess = 0.0
    for grid in grids:
        scores = grid.scores(cell_scores)
        if min(scores.shape) > 1:
            own = float(scores.mean(axis=0).var(ddof=1)) / scores.shape[1]
            variance += own
            excess += own - interaction(scores)
    return max(0.0, excess / variance) if variance > 0 else 0.0


def example_interaction(weights: Floats, grids: Sequence[SeedGrid], units: Sequence[Weights]) -> float:
    """Variance that the interaction of seeds and examples has in the sum of weights [C] x scores [C].

    `units` are the values [P, F, G] of each checkpoint by cluster of examples.
    """
    total = 0.0
    paired: dict[tuple[int, tuple[int, ...]], Weights] = {}
    for weight, grid, values in zip(weights, grids, units, strict=True):
        if weight == 0.0:
            continue
        if grid.has_runs:
            key = (grid.run, grid.pretraining_seeds)
            own = np.float32(weight) * values.mean(axis=1)
            paired[key] = paired[key] + own if key in paired else own
        else:
            total += weight**2 * interaction(values[0])
    return total + sum(interaction(values) for values in paired.values())


def kept(variance: float, removed: float) -> float:
    """Factor on a shift that leaves variance - removed of its variance."""
    return float(np.sqrt(max(0.0, 1.0 - removed / variance))) if variance > 0 else 0.0


def interaction(table: Floats | Weights) -> float:
    """Variance of the mean of a two-way table [A, B] that comes from the interaction alone."""
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((residual**2).sum()) / ((rows - 1) * (columns - 1) * rows * columns)


def degrees_of(variances: Floats) -> float:
    """Degrees of freedom of an estimated variance whose posterior has these draws [D]: the chi-square with the same
    variance of its logarithm."""
    spread = float(np.log(variances).var())
    if spread < 2e-4:
        return 1e4
    return 2 * float(brentq(lambda half: polygamma(1, half) - spread, 1e-3, 1e5))
