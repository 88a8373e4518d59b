"""The multi-bootstrap: pretraining seeds, fine-tuning seeds and examples resampled together, paired across checkpoints.

Sellam et al. 2022 (The MultiBERTs, section 4) resample seeds and examples with replacement. With three seeds that
interval is far too short, so seeds are resampled smoothly instead: a draw moves the scores along the seeds' observed
deviations by Gaussian multipliers, inflated by sqrt(df / chi2). For every linear combination of scores, differences
between budgets included, this is Student's t; a ratio gets Fieller's interval, a crossing the inversion of the
curve's band. Examples, of which there are many, are reweighted by Rubin's (1981) Bayesian bootstrap. Student's t for
the seeds plus a normal for the examples is Fisher's solution of the Behrens-Fisher problem: slightly too long where
both weigh the same, where Satterthwaite's degrees of freedom cover 90 to 96 % at three seeds (benchmarks/coverage.md).
A reference from outside has fine-tuning seeds only. Two separate Student's t, for it and for the pretraining seeds,
would together be far too long, so their variances share Welch's (1947) degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaincinv

from gap.intervals.variance import Floats, SeedGrid, Shares, Weights, variance_shares

Evaluate = Callable[[Weights], Floats]  # weights of the clusters [D, G] -> score of every cell [D, M]

PRETRAINING, FINETUNING, UNIFORMS = range(3)  # parts of a random stream
CHUNK_VALUES = 8_000_000  # weights held at once: 32 MB


@dataclass(frozen=True)
class Resampling:
    """The number of draws, their random stream, and whether they are corrected for few seeds (`percentile` is not)."""

    draws: int = 10_000
    seed: int = 0
    correction: str = "inflated"
    stream: int = 0  # runs scored on the same examples share `seed` and differ in `stream`, which draws their seeds
    example_stream: int = 0  # of the examples: averaged tasks share the draws of their seeds but not this

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise ValueError(f"draws is {self.draws}: an interval needs at least 100; use 10000")
        if self.correction not in ("inflated", "percentile"):
            raise ValueError(f"correction is {self.correction!r}: use 'inflated', or 'percentile' to compare with it")


@dataclass(frozen=True)
class Draws:
    """Resampled scores of C checkpoints, kept apart by source until a statistic says how they combine."""

    observed: Floats  # [C]
    pretraining: Floats  # [D, C] shifts from the pretraining seeds
    finetuning: Floats  # [D, C] shifts from the fine-tuning seeds
    examples: Floats  # [D, C] shifts from the examples
    uniforms: Floats  # [D, 2] quantile of the inflation in each draw: pretraining, fine-tuning
    grids: tuple[SeedGrid, ...]
    cell_scores: Floats  # [M]
    units: tuple[Weights, ...] | None  # per checkpoint: values [P, F, G] by cluster of examples, None: unknown
    corrected: bool = True

    def shares(self, weights: Floats) -> Shares:
        """How the sources combine in the statistic with these weights on the scores [C]."""
        shares = variance_shares(weights, self.grids, self.cell_scores, self.units, self.examples)
        return replace(shares, degrees=self._degrees(weights))

    def _degrees(self, weights: Floats) -> float | None:
        """Welch's degrees of freedom of a statistic that depends on seeds of both kinds; None if on one kind only."""
        variances, degrees = [], []
        for source, shifts in enumerate((self.pretraining, self.finetuning)):
            own = [column for column, grid in enumerate(self.grids) if grid.source == source and weights[column] != 0.0]
            if own:
                variances.append(float((shifts[:, own] @ weights[own]).var()))
                degrees.append(min(len(self.grids[column].seeds[source]) for column in own) - 1)
        if len(variances) < 2 or sum(variances) == 0.0:
            return None
        return sum(variances) ** 2 / sum(variance**2 / free for variance, free in zip(variances, degrees, strict=True))

    def scores(self, shares: Shares) -> Floats:
        """Draws of the scores [D, C]."""
        if not self.corrected:
            return self.observed + self.pretraining
        shift = shares.examples * self.examples
        inflation: dict[tuple[int, float], Floats] = {}
        for column, grid in enumerate(self.grids):
            source = grid.source
            if source is None:
                continue
            key = (source, len(grid.seeds[source]) - 1.0) if shares.degrees is None else (0, shares.degrees)
            if key not in inflation:
                inflation[key] = _inflation(self.uniforms[:, key[0]], key[1])
            coarse = (self.pretraining, self.finetuning)[source][:, column]
            shift[:, column] += coarse * inflation[key]
            if source == 0:
                shift[:, column] += self.finetuning[:, column] * shares.finetuning
        return self.observed + shift


def resample(
    grids: Sequence[SeedGrid],
    cell_scores: Floats,
    evaluate: Evaluate | None,
    *,
    num_clusters: int,
    resampling: Resampling,
    units: Sequence[Weights] | None = None,
) -> Draws:
    """Draw seeds and examples for the checkpoints whose cells are in `grids`.

    cell_scores [M] are the observed scores; `evaluate` scores all cells under weights of the clusters of examples
    (None: the examples are held fixed); `units` are the values of the cells by cluster, for metrics that are means.
    """
    observed = np.stack([grid.scores(cell_scores).mean() for grid in grids])
    stream = (resampling.seed, 1 + resampling.stream)
    uniforms = np.random.default_rng([*stream, UNIFORMS]).random((resampling.draws, 2))
    examples = np.random.default_rng([resampling.seed, 0, resampling.example_stream])
    shape = (resampling.draws, len(grids))
    if resampling.correction == "percentile":
        shifts = _percentile_draws(examples, grids, cell_scores, evaluate, num_clusters, resampling.draws) - observed
        zeros = np.zeros(shape)
        parts = (shifts, zeros, zeros, uniforms)
    else:
        example_shifts = np.zeros(shape)
        if evaluate is not None:
            for rows in _chunks(resampling.draws, num_clusters):
                scores = evaluate(_bayesian_weights(examples, rows.stop - rows.start, num_clusters))
                means = [grid.scores(scores).mean(axis=(-2, -1)) for grid in grids]
                example_shifts[rows] = np.stack(means, axis=1) - observed
        parts = (
            _seed_shifts(
                (*stream, PRETRAINING),
                [(grid.pretraining_seeds, grid.scores(cell_scores).mean(axis=1)) for grid in grids],
                shape,
            ),
            _seed_shifts(
                (*stream, FINETUNING),
                [(grid.finetuning_seeds, grid.scores(cell_scores).mean(axis=0)) for grid in grids],
                shape,
            ),
            example_shifts,
            uniforms,
        )
    corrected = resampling.correction == "inflated"
    return Draws(observed, *parts, tuple(grids), cell_scores, tuple(units) if units else None, corrected)


def _inflation(uniforms: Floats, degrees: float) -> Floats:
    """What turns a Gaussian of estimated variance into Student's t, [D]; one uniform serves all degrees of freedom."""
    return np.sqrt(degrees / (2.0 * gammaincinv(degrees / 2, uniforms)))


def _seed_shifts(
    stream: Sequence[int], checkpoints: Sequence[tuple[tuple[int, ...], Floats]], shape: tuple[int, int]
) -> Floats:
    """Gaussian shifts [D, C] with the variance of each checkpoint's mean over its seeds, paired by seed.

    Every seed has a random stream of its own: tasks whose seeds differ in number share those that they have in common.
    """
    numbers = sorted({seed for seeds, _ in checkpoints for seed in seeds})
    column = {seed: number for number, seed in enumerate(numbers)}
    gaussians = np.stack(
        [np.random.default_rng([*stream, seed % 2**64]).standard_normal(shape[0]) for seed in numbers], axis=1
    )
    shifts = np.zeros(shape)
    for number, (seeds, means) in enumerate(checkpoints):
        size = len(seeds)
        if size > 1:
            deviations = (means - means.mean()) / np.sqrt(size * (size - 1))
            shifts[:, number] = gaussians[:, [column[seed] for seed in seeds]] @ deviations
    return shifts


def _chunks(draws: int, clusters: int) -> Iterator[slice]:
    step = max(1, CHUNK_VALUES // max(1, clusters))
    for first in range(0, draws, step):
        yield slice(first, min(first + step, draws))


def _bayesian_weights(random: np.random.Generator, draws: int, clusters: int) -> Weights:
    """Dirichlet(1, ..., 1) weights of mean one, [draws, clusters]."""
    weights = random.standard_exponential((draws, clusters), dtype=np.float32)
    weights /= weights.mean(axis=1, keepdims=True)
    return weights


def _percentile_draws(
    random: np.random.Generator,
    grids: Sequence[SeedGrid],
    cell_scores: Floats,
    evaluate: Evaluate | None,
    num_clusters: int,
    draws: int,
) -> Floats:
    """The uncorrected multi-bootstrap: seeds and clusters drawn with replacement, and the plain mean of the draw."""

    def counts(choices: set[tuple[int, ...]]) -> dict[tuple[int, ...], Floats]:
        return {
            seeds: random.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), draws) / len(seeds)
            for seeds in sorted(choices)
        }

    pretraining = counts({grid.pretraining_seeds for grid in grids})
    finetuning = counts({grid.finetuning_seeds for grid in grids})
    result = np.zeros((draws, len(grids)))
    for rows in _chunks(draws, num_clusters):
        size = rows.stop - rows.start
        if evaluate is None:
            scores = np.broadcast_to(cell_scores, (size, len(cell_scores)))
        else:
            even = np.full(num_clusters, 1 / num_clusters)
            scores = evaluate(random.multinomial(num_clusters, even, size).astype(np.float32))
        for column, grid in enumerate(grids):
            first, second = pretraining[grid.pretraining_seeds][rows], finetuning[grid.finetuning_seeds][rows]
            result[rows, column] = np.einsum("dpf,dp,df->d", grid.scores(scores), first, second)
    return result
