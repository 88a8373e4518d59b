"""The multi-bootstrap: pretraining seeds, fine-tuning seeds and examples resampled together.

Sellam et al. 2022 (The MultiBERTs, section 4) resample seeds and examples with replacement. With three seeds that
interval is far too short, so seeds are resampled smoothly instead. Pretraining seeds move the scores of all checkpoints
of a run along the seeds' observed deviations by Gaussian multipliers, inflated by sqrt(df / chi2): for every linear
combination of scores, differences between budgets included, this is Student's t. The fine-tuning seeds of a single run
move each checkpoint by itself, with a spread that its neighbours help to estimate (gap/intervals/moderation.py). A
ratio gets Fieller's interval, a crossing the inversion of the curve's band. Examples, of which there are many, are
reweighted by Rubin's (1981) Bayesian bootstrap.

Student's t for the seeds plus a normal for the examples is Fisher's solution of the Behrens-Fisher problem: slightly
too long where both weigh the same. Up to a confidence of 95 % pretraining seeds and the rest therefore share one
Student's t with df / r^0.85 degrees of freedom, r the share of the seeds in the variance; beyond it, and with two runs,
where that would err too often, Fisher's solution stays (benchmarks/coverage.md). Of the runs of a series and the
fine-tuning seeds of a single run beside them, such as an outside reference, the fewer degrees count: Welch's (1947), as
if the better known of the two were not known better, cover as little as 92.7 %. The runs of two series share Welch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

from gap.intervals.moderation import Spreads, moderate
from gap.intervals.variance import (
    Floats,
    SeedGrid,
    Weights,
    common_share,
    degrees_of,
    example_interaction,
    kept,
)

Evaluate = Callable[[Weights], Floats]  # weights of the clusters [D, G] -> score of every cell [D, M]

PRETRAINING, FINETUNING, UNIFORMS, SPREADS = range(4)  # parts of a random stream
CHUNK_VALUES = 8_000_000  # weights held at once: 32 MB
ONE_T = 0.95  # the highest confidence at which seeds and examples share one Student's t
FEWEST_DEGREES = 2  # with two runs that t would cover as little as 91 %
POWER = 0.85  # of the seeds' share: 1 covers as little as 94.2 %, 2 (Satterthwaite's) 92.2 % (benchmarks/coverage.md)


@dataclass(frozen=True)
class Resampling:
    """The number of draws, their random stream, and whether they are corrected for few seeds (`percentile` is not)."""

    draws: int = 10_000
    seed: int = 0
    correction: str = "inflated"
    example_stream: int = 0  # of a task: tasks share the draws of their pretraining seeds, and no others

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise ValueError(f"draws is {self.draws}: an interval needs at least 100; use 10000")
        if self.correction not in ("inflated", "percentile"):
            raise ValueError(f"correction is {self.correction!r}: use 'inflated', or 'percentile' to compare with it")


@dataclass(frozen=True)
class Draws:
    """Resampled scores of C checkpoints, kept apart by source until a statistic says how they combine."""

    observed: Floats  # [C]
    pretraining: Floats  # [D, C] shifts from the pretraining seeds, where there are several
    finetuning: Floats  # [D, C] shifts from the fine-tuning seeds: all of a single run's, what runs have in common else
    factors: Floats  # [D, C] on the fine-tuning shifts of single runs: what their spread may be over its estimate
    examples: Floats  # [D, C] shifts from the examples
    uniforms: Floats  # [D, runs] quantile of the inflation of each run's pretraining seeds
    grids: tuple[SeedGrid, ...]
    units: tuple[Weights, ...] | None  # per checkpoint: values [P, F, G] by cluster of examples, None: unknown
    corrected: bool = True

    def example_share(self, weights: Floats) -> float:
        """Factor on the examples' shifts in the statistic with these weights on the scores [C]."""
        if self.units is None:
            return 1.0
        variance = float((self.examples @ weights).var())
        return kept(variance, example_interaction(weights, self.grids, self.units))

    def seed_sources(self, weights: Floats) -> list[tuple[float, float]]:
        """Variances that seeds have in the statistic with these weights, with degrees of freedom: of the runs that
        vary, and of the fine-tuning seeds of single runs. Those of several series share Welch's."""
        found, single = [], [c for c, grid in enumerate(self.grids) if not grid.has_runs and weights[c] != 0.0]
        for run in sorted({grid.run for grid in self.grids}):
            own = [c for c, grid in enumerate(self.grids) if grid.run == run and grid.has_runs and weights[c] != 0.0]
            if own:
                variance = float((self.pretraining[:, own] @ weights[own]).var())
                found.append((variance, min(len(self.grids[column].pretraining_seeds) for column in own) - 1.0))
        sources = [_welch(found)] if found else []
        spread = (self.finetuning[:, single] * weights[single]).var(axis=0)
        if spread.sum() > 0:
            sources.append((float(spread.sum()), degrees_of(self.factors[:, single] ** 2 @ spread)))
        return sources

    def seed_degrees(self, weights: Floats) -> tuple[float, float]:
        """Variance that seeds have in the statistic with these weights, and its degrees of freedom (Welch)."""
        return _welch(self.seed_sources(weights))

    def scores(self, weights: Floats | None, confidence: float = ONE_T) -> Floats:
        """Draws of the scores [D, C] for an interval of the statistic with these weights [C] on the scores.

        Without weights (a statistic that has no slope) nothing is taken out and each source keeps its own degrees.
        """
        if not self.corrected:
            return self.observed + self.pretraining
        examples = self.examples if weights is None else self.example_share(weights) * self.examples
        fewest = min(
            (
                grid.degrees
                for c, grid in enumerate(self.grids)
                if grid.has_runs and weights is not None and weights[c] != 0.0
            ),
            default=0,
        )
        if weights is not None and fewest >= FEWEST_DEGREES and confidence <= ONE_T:
            sources = self.seed_sources(weights)
            others = self.finetuning[:, [grid.has_runs for grid in self.grids]]
            shared = weights[[grid.has_runs for grid in self.grids]]
            total = sum(variance for variance, _ in sources)
            total += float((examples @ weights).var()) + float((others * shared).var(axis=0).sum())
            degrees = [float(shared_degrees(free, variance / total)) for variance, free in sources if variance > 0]
            one = _inflation(self.uniforms[:, 0], min(degrees, default=np.inf))
            return self.observed + one[:, None] * (self.pretraining + self.finetuning + examples)
        shift = examples + self.finetuning * self.factors
        for column, grid in enumerate(self.grids):
            if grid.has_runs:
                inflation = _inflation(self.uniforms[:, grid.run], float(grid.degrees))
                shift[:, column] += inflation * self.pretraining[:, column]
        return self.observed + shift


def _welch(sources: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The sum of variances that were estimated with these degrees of freedom, and its own (Welch 1947)."""
    total = sum(variance for variance, _ in sources)
    if total == 0.0:
        return 0.0, np.inf
    return total, total**2 / sum(variance**2 / degrees for variance, degrees in sources)


def shared_degrees(degrees: float, share: Floats | float) -> Floats:
    """Degrees of freedom of an estimated variance of which the seeds, with `degrees`, have this share (0 to 1)."""
    with np.errstate(divide="ignore"):
        return np.minimum(degrees / np.asarray(share, dtype=np.float64) ** POWER, 1e9)


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
    seed, own = resampling.seed, resampling.example_stream
    runs = 1 + max(grid.run for grid in grids)
    uniforms = np.random.default_rng([seed, 1, UNIFORMS]).random((runs, resampling.draws)).T
    examples = np.random.default_rng([seed, 0, own])
    shape = (resampling.draws, len(grids))
    if resampling.correction == "percentile":
        shifts = _percentile_draws(examples, grids, cell_scores, evaluate, num_clusters, resampling.draws) - observed
        zeros = np.zeros(shape)
        parts = (shifts, zeros, np.ones(shape), zeros, uniforms)
    else:
        example_shifts = np.zeros(shape)
        if evaluate is not None:
            for rows in _chunks(resampling.draws, num_clusters):
                scores = evaluate(_bayesian_weights(examples, rows.stop - rows.start, num_clusters))
                means = [grid.scores(scores).mean(axis=(-2, -1)) for grid in grids]
                example_shifts[rows] = np.stack(means, axis=1) - observed
        spreads = _spreads(grids, cell_scores, units, resampling.draws, np.random.default_rng([seed, 1, SPREADS, own]))
        deviations = _deviations(grids, cell_scores, spreads.estimate)
        gaussians = np.random.default_rng([seed, 1, FINETUNING, own]).standard_normal((len(grids), resampling.draws)).T
        parts = (
            _pretraining_shifts((seed, 1, PRETRAINING), grids, cell_scores, shape),
            gaussians * deviations,
            spreads.factors,
            example_shifts,
            uniforms,
        )
    corrected = resampling.correction == "inflated"
    return Draws(observed, *parts, tuple(grids), tuple(units) if units else None, corrected)


def _spreads(
    grids: Sequence[SeedGrid],
    cell_scores: Floats,
    units: Sequence[Weights] | None,
    draws: int,
    random: np.random.Generator,
) -> Spreads:
    """The spread of one fine-tuning seed at every checkpoint, moderated within each group of checkpoints."""
    variances, degrees = np.array([grid.within(cell_scores) for grid in grids]).T
    for column in np.flatnonzero((variances == 0) & (degrees > 0)).tolist():
        if units is not None and np.ptp(units[column], axis=(0, 1)).any():
            # Equal scores of unequal answers are a coincidence of rounding, and no certainty.
            variances[column] = 1 / (12 * units[column].shape[-1] ** 2)
    estimate, factors = np.zeros(len(grids)), np.ones((draws, len(grids)))
    for group in sorted({grid.group for grid in grids}):
        members = [column for column, grid in enumerate(grids) if grid.group == group]
        found = moderate(variances[members], degrees[members].astype(int), draws, random)
        estimate[members], factors[:, members] = found.estimate, found.factors
    factors[:, [column for column, grid in enumerate(grids) if grid.has_runs]] = 1.0
    return Spreads(estimate, factors)


def _deviations(grids: Sequence[SeedGrid], cell_scores: Floats, spreads: Floats) -> Floats:
    """Standard deviation [C] of each checkpoint's mean from the fine-tuning seeds, beyond its pretraining seeds'."""
    found = np.zeros(len(grids))
    for run in {grid.run for grid in grids}:
        several = [column for column, grid in enumerate(grids) if grid.run == run and grid.has_runs]
        common = common_share([grids[column] for column in several], cell_scores)
        for column in several:
            means = grids[column].scores(cell_scores).mean(axis=0)
            found[column] = np.sqrt(common * means.var(ddof=1) / len(means)) if len(means) > 1 else 0.0
    for column, grid in enumerate(grids):
        if not grid.has_runs:
            found[column] = spreads[column] / np.sqrt(len(grid.finetuning_seeds))
    return found


def _inflation(uniforms: Floats, degrees: float) -> Floats:
    """What turns a Gaussian of estimated variance into Student's t, [D]; one uniform serves all degrees of freedom."""
    if degrees > 1e6:
        return np.ones_like(uniforms)
    return np.sqrt(degrees / (2.0 * gammaincinv(degrees / 2, uniforms)))


def _pretraining_shifts(
    stream: Sequence[int], grids: Sequence[SeedGrid], cell_scores: Floats, shape: tuple[int, int]
) -> Floats:
    """Gaussian shifts [D, C] with the variance of each checkpoint's mean over its runs, paired by seed within a run.

    Every seed has a random stream of its own: tasks whose seeds differ in number share those that they have in common.
    """
    numbers = sorted({(grid.run, seed) for grid in grids if grid.has_runs for seed in grid.pretraining_seeds})
    gaussians = {
        (run, seed): np.random.default_rng([*stream, run, seed % 2**64]).standard_normal(shape[0])
        for run, seed in numbers
    }
    shifts = np.zeros(shape)
    for column, grid in enumerate(grids):
        if grid.has_runs:
            means, size = grid.scores(cell_scores).mean(axis=1), len(grid.pretraining_seeds)
            deviations = (means - means.mean()) / np.sqrt(size * (size - 1))
            for seed, deviation in zip(grid.pretraining_seeds, deviations, strict=True):
                shifts[:, column] += deviation * gaussians[grid.run, seed]
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
