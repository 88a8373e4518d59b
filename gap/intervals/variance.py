"""Variance of a statistic by source: pretraining seeds, fine-tuning seeds, examples.

The model is the random-effects analysis of variance of pretraining seeds x fine-tuning seeds x examples. The variance
of a mean is V_p + (V_f - V_pf) + (V_e - V_pe), where V_x is the variance over the levels of x divided by their number:
the interactions are taken out because the spread of the pretraining seeds' means holds them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class SeedGrid:
    """The positions of one checkpoint's cells among all cells, as pretraining seeds x fine-tuning seeds."""

    pretraining_seeds: tuple[int, ...]
    finetuning_seeds: tuple[int, ...]
    cells: tuple[int, ...]  # row-major: cells[p * F + f]

    def scores(self, cell_scores: Floats) -> Floats:
        """This checkpoint's cells [..., P, F] out of all cells [..., M]."""
        shape = (len(self.pretraining_seeds), len(self.finetuning_seeds))
        return cell_scores[..., list(self.cells)].reshape(*cell_scores.shape[:-1], *shape)

    @property
    def seeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.pretraining_seeds, self.finetuning_seeds

    @property
    def source(self) -> int | None:
        """The seeds that the interval is based on: 0 pretraining; 1 fine-tuning, of a single run; None: one seed."""
        return 0 if len(self.pretraining_seeds) > 1 else 1 if len(self.finetuning_seeds) > 1 else None


@dataclass(frozen=True)
class Shares:
    """Factors on the shifts of the fine-tuning seeds (where there are several pretraining runs) and of the examples.

    `degrees` of freedom are given if the statistic depends on seeds of both kinds; else each column has its own.
    """

    finetuning: float = 1.0
    examples: float = 1.0
    degrees: float | None = None


def variance_shares(
    weights: Floats,
    grids: Sequence[SeedGrid],
    cell_scores: Floats,
    units: Sequence[Weights] | None,
    example_shifts: Floats,
) -> Shares:
    """How the sources combine in the linear statistic sum of weights [C] x scores [C].

    Checkpoints with the same seeds are paired; groups with different seeds count as independent. Without `units`
    (values [P, F, G] of each checkpoint by cluster of examples) nothing is taken out of the example shifts.
    """
    finetuning = interaction = example_interaction = 0.0
    for seeds in sorted({grid.seeds for grid in grids}):
        members = [number for number, grid in enumerate(grids) if grid.seeds == seeds and weights[number] != 0.0]
        if not members:
            continue
        scores = np.sum([weights[number] * grids[number].scores(cell_scores) for number in members], axis=0)
        if len(scores) > 1 and scores.shape[1] > 1:
            finetuning += float(scores.mean(axis=0).var(ddof=1)) / scores.shape[1]
            interaction += _interaction(scores)
        if units is not None:
            values = np.sum([np.float32(weights[number]) * units[number] for number in members], axis=0)
            example_interaction += _interaction(values.mean(axis=1) if len(values) > 1 else values[0])
    examples = float((example_shifts @ weights).var())
    return Shares(_kept(finetuning, interaction), _kept(examples, example_interaction))


def _kept(variance: float, interaction: float) -> float:
    """Factor on a shift that leaves variance - interaction of its variance."""
    return float(np.sqrt(max(0.0, 1.0 - interaction / variance))) if variance > 0 else 0.0


def _interaction(table: Floats) -> float:
    """Variance of the mean of a two-way table [A, B] that comes from the interaction alone."""
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return 0.0
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((residual**2).sum()) / ((rows - 1) * (columns - 1) * rows * columns)
