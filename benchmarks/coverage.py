"""How often the 95 % intervals cover the truth, by simulated experiments whose answers are known.

    python benchmarks/coverage.py --simulations 1000
    python benchmarks/coverage.py --simulations 1000 --only "outside reference"
    python benchmarks/coverage.py --simulations 1000 --only "mean of 3"

An example i of the test set is answered right by the checkpoint of budget b, pretraining seed p and fine-tuning seed f
with probability Phi(eta_b + pretraining_bp + finetuning_bpf + difficulty_i), all effects normal. So every expected
score, and with it the gap closed and the crossing, is known in closed form. Pretraining seeds move a score by 1.5
points, fine-tuning seeds by 1.0, half of the pretraining variance is common to all budgets. A reference from outside
the series is one pretraining run: its fine-tuning seeds are drawn, its pretraining seed is not. Where tasks are
averaged, a pretraining run moves them in part alike; their fine-tuning seeds and examples have nothing in common.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from gap.analysis.macro import mean_interval
from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.interval import Statistic, quantiles, statistic_draws
from gap.intervals.variance import SeedGrid
from gap.measures.curve import MonotoneCurve, gap_closed

Floats = NDArray[np.float64]
LAYOUTS = ((1, 3), (3, 3), (3, 5), (5, 5))
LEVELS = (0.5, 0.9, 0.95, 0.99)
OUTSIDE = 0.88  # score of a reference from outside: the largest budget closes 94 % of its gap
IN_REACH = 0.835  # of one whose 95 and 99 % lie between the budgets


@dataclass(frozen=True)
class World:
    """A study with known answers; scores in 0..1, spreads in points."""

    scratch: float = 0.2
    top: float = 0.85
    middle_tokens: float = 1e6
    budgets: tuple[float, ...] = tuple(float(250_000 * 2**step) for step in range(7))
    pretraining_points: float = 1.5
    finetuning_points: float = 1.0
    paragraphs: int = 500
    questions: int = 2  # to a paragraph
    difficulty: float = 1.0  # spread of the paragraphs' difficulty, in units of the answer's noise
    common_pretraining: float = 0.5  # share of the pretraining variance that all budgets of one run have in common
    crossed: bool = False  # fine-tuning seed f does the same to all pretraining runs
    outside: float | None = None  # score of a reference from outside the series; None: the largest budget

    def expected(self, tokens: Floats) -> Floats:
        """True score after so many tokens (0: scratch)."""
        share = (np.asarray(tokens, dtype=np.float64) / self.middle_tokens) ** 1.5
        return self.scratch + (self.top - self.scratch) * share / (1 + share)

    @property
    def scores(self) -> Floats:
        """True scores [C]: scratch, the budgets and, where there is one, the reference from outside."""
        own = self.expected(np.array([0.0, *self.budgets]))
        return own if self.outside is None else np.append(own, self.outside)

    def true_crossing(self, level: float, scratch: float, reference: float) -> float:
        """log10 tokens at which the expected score has closed `level` of the gap; infinite where none are enough."""
        share = (level * (reference - scratch) + scratch - self.scratch) / (self.top - self.scratch)
        if share >= 1:
            return np.inf
        return float(np.log10(self.middle_tokens * (1 / share - 1) ** (-1 / 1.5)))


TASKS = (
    World(),
    World(questions=20, difficulty=0.3),
    World(scratch=0.5, top=0.9, middle_tokens=2e6, paragraphs=2000, questions=1, difficulty=0.5),
)
COMMON_SHARES = (0.0, 0.5, 1.0)  # of the tasks' pretraining variance


@dataclass(frozen=True)
class Experiment:
    """Answers [C, P, F, N] of one simulated study and what they estimate."""

    answers: NDArray[np.float32]  # of a reference from outside only the first pretraining seed counts
    truth: Floats  # [C], given this pretraining run when there is one
    expected: Floats  # [C], over all pretraining runs


def run_effects(world: World, num_pretraining: int, random: np.random.Generator) -> Floats:
    """What pretraining seeds do to every checkpoint [C, P], in standard deviations."""
    common = random.standard_normal(num_pretraining)
    own = random.standard_normal((len(world.scores), num_pretraining))
    return np.sqrt(world.common_pretraining) * common + np.sqrt(1 - world.common_pretraining) * own


def simulate(
    world: World,
    num_pretraining: int,
    num_finetuning: int,
    random: np.random.Generator,
    effects: Floats | None = None,
) -> Experiment:
    """One study: checkpoint 0 is scratch, the last one the reference; `effects` stand in for `run_effects`."""
    expected = world.scores
    checkpoints = len(expected)
    points = np.full(checkpoints, world.pretraining_points)
    if world.outside is not None:
        points[-1] = 0.0
    spread = np.sqrt(1 + world.difficulty**2)
    slope = norm.pdf(norm.ppf(expected)) / spread  # of the score over eta
    if effects is None:
        effects = run_effects(world, num_pretraining, random)
    pretraining = effects * (points / 100 / slope)[:, None]
    finetuning = random.standard_normal((checkpoints, 1 if world.crossed else num_pretraining, num_finetuning))
    finetuning = finetuning * (world.finetuning_points / 100 / slope)[:, None, None]
    difficulty = world.difficulty * random.standard_normal(world.paragraphs)
    variance_f = (world.finetuning_points / 100 / slope) ** 2
    variance_p = (points / 100 / slope) ** 2
    eta = norm.ppf(expected) * np.sqrt(spread**2 + variance_f + variance_p)
    chance = norm.cdf(eta[:, None, None, None] + (pretraining[:, :, None] + finetuning)[..., None] + difficulty)
    answers = (random.binomial(world.questions, chance) / world.questions).astype(np.float32)
    if num_pretraining > 1:
        return Experiment(answers, expected, expected)
    return Experiment(answers, norm.cdf((eta + pretraining[:, 0]) / np.sqrt(spread**2 + variance_f)), expected)


def draws_of(world: World, experiment: Experiment, resampling: Resampling) -> Draws:
    """The resampled scores of one simulated study."""
    answers = experiment.answers
    checkpoints, rows, columns, clusters = answers.shape
    flat = answers.reshape(-1, clusters)
    runs = [rows] * checkpoints if world.outside is None else [*[rows] * (checkpoints - 1), 1]
    starts = range(0, len(flat), rows * columns)
    grids = [
        SeedGrid(tuple(range(own)), tuple(range(columns)), tuple(range(start, start + own * columns)))
        for own, start in zip(runs, starts, strict=True)
    ]
    return resample(
        grids,
        flat.mean(axis=1).astype(np.float64),
        lambda weights: (weights @ flat.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
        num_clusters=clusters,
        resampling=resampling,
        units=[values[:own] for values, own in zip(answers, runs, strict=True)],
    )


def closed(scores: Floats) -> Floats:
    """Gap closed [D, C - 1] by every checkpoint above scratch."""
    return gap_closed(scores[:, 1:], scores[:, 0], scores[:, -1])


def intervals(world: World, experiment: Experiment, resampling: Resampling) -> dict[str, Floats]:
    """Ends [2, ...]: `score` [C], `gap` between scratch and reference [C-2], `crossing` [levels] in log10 tokens."""
    draws, checkpoints = draws_of(world, experiment, resampling), len(experiment.answers)

    def ends(statistic: Statistic) -> tuple[float, float]:
        return quantiles(statistic_draws(statistic, draws), 0.95)

    def crossing(scores: Floats, level: float) -> Floats:
        return MonotoneCurve.fit(world.budgets, closed(scores)[:, : len(world.budgets)]).crossing(level)

    columns_of = range(checkpoints)
    return {
        "score": np.array([ends(lambda s, c=c: s[:, c]) for c in columns_of]).T,
        "gap": np.array([ends(lambda s, c=c: closed(s)[:, c]) for c in columns_of[:-2]]).T,
        "crossing": np.array([ends(lambda s, level=level: crossing(s, level)) for level in LEVELS]).T,
    }


def truths(world: World, experiment: Experiment, *, over_runs: bool = False) -> dict[str, Floats]:
    """What each interval of `intervals` should cover."""
    scores = experiment.expected if over_runs else experiment.truth
    scratch, reference = scores[0], scores[-1]
    shares = (scores[1:] - scratch) / (reference - scratch)
    if scores is experiment.expected:
        crossing = [world.true_crossing(level, scratch, reference) for level in LEVELS]
    else:  # given this run: its own true scores, joined as the fit joins them
        curve = MonotoneCurve.fit(world.budgets, shares[None, : len(world.budgets)])
        crossing = [float(curve.crossing(level)[0]) for level in LEVELS]
    return {"score": scores, "gap": shares[:-1], "crossing": np.array(crossing)}


def coverage(
    world: World,
    layout: tuple[int, int],
    *,
    simulations: int,
    correction: str = "inflated",
    over_runs: bool = False,
    draws: int = 2000,
    seed: int = 0,
    first: int = 0,
) -> dict[str, Floats]:
    """Share of simulated studies whose interval covers the truth, per checkpoint or level.

    The simulations are numbered from `first`. `over_runs` judges a single pretraining run by the mean over all runs,
    which its interval does not claim to cover.
    """
    hits: dict[str, list[NDArray[np.bool_]]] = {"score": [], "gap": [], "crossing": []}
    for number in range(first, first + simulations):
        experiment = simulate(world, *layout, np.random.default_rng([seed, *layout, number]))
        found = intervals(world, experiment, Resampling(draws=draws, seed=number, correction=correction))
        for name, truth in truths(world, experiment, over_runs=over_runs).items():
            low, high = found[name]
            hits[name].append((low <= truth) & (truth <= high))
    return {name: np.mean(rows, axis=0) for name, rows in hits.items()}


def mean_coverage(
    worlds: Sequence[World],
    layout: tuple[int, int],
    *,
    simulations: int,
    common: float = 0.5,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Floats]:
    """The same for the mean score and the mean gap closed over tasks with equally many budgets.

    `common` is the share of the pretraining variance that all tasks have in common.
    """
    checkpoints = len(worlds[0].scores)
    hits: dict[str, list[NDArray[np.bool_]]] = {"score": [], "gap": []}
    for number in range(simulations):
        random = np.random.default_rng([seed, len(worlds), *layout, number])
        alike = run_effects(worlds[0], layout[0], random)
        effects = [np.sqrt(common) * alike + np.sqrt(1 - common) * run_effects(w, layout[0], random) for w in worlds]
        made = [simulate(w, *layout, random, own) for w, own in zip(worlds, effects, strict=True)]
        drawn = [
            draws_of(w, one, Resampling(draws=draws, seed=number, example_stream=task))
            for task, (w, one) in enumerate(zip(worlds, made, strict=True))
        ]
        true = [truths(w, one) for w, one in zip(worlds, made, strict=True)]
        statistics: dict[str, list[Statistic]] = {
            "score": [lambda s, c=c: s[:, c] for c in range(checkpoints)],  # type: ignore[misc]
            "gap": [lambda s, c=c: closed(s)[:, c] for c in range(checkpoints - 2)],  # type: ignore[misc]
        }
        for name, listed in statistics.items():
            low, high = np.array([mean_interval([(one, own) for own in drawn], 0.95) for one in listed]).T
            truth = np.mean([one[name] for one in true], axis=0)
            hits[name].append((low <= truth) & (truth <= high))
    return {name: np.mean(rows, axis=0) for name, rows in hits.items()}


def studies(
    simulations: int, draws: int, only: str, first: int = 0
) -> Iterator[tuple[str, tuple[int, int], str, dict[str, Floats]]]:
    """Name, layout, interval and coverage of all simulated studies whose name holds `only`."""
    small, large = World(), World(questions=20, difficulty=0.3)
    worlds = {
        "1,000 questions": small,
        "10,000 questions": large,
        "10,000, seeds crossed": replace(large, crossed=True),
        "1,000, outside reference": replace(small, outside=OUTSIDE),
        "10,000, outside reference": replace(large, outside=OUTSIDE),
        "10,000, outside reference, seeds crossed": replace(large, outside=OUTSIDE, crossed=True),
        "1,000, reference in reach": replace(small, outside=IN_REACH),
        "10,000, reference in reach": replace(large, outside=IN_REACH),
    }
    single = [
        (name, world, layout, "inflated", False)
        for name, world in worlds.items()
        for layout in LAYOUTS[int(world.crossed) :]  # crossed or not is the same with one pretraining run
    ]
    single += [("10,000 questions", large, layout, "percentile", False) for layout in LAYOUTS]
    single += [("10,000, over all runs", large, (1, 3), "percentile", True)]
    size = {"simulations": simulations, "draws": draws}
    for name, world, layout, correction, over_runs in single:
        if only in name:
            found = coverage(world, layout, correction=correction, over_runs=over_runs, first=first, **size)
            yield name, layout, correction, found
    for common in COMMON_SHARES:
        name = f"mean of {len(TASKS)} tasks, {common:.0%} in common"
        for layout in LAYOUTS if only in name else ():
            yield name, layout, "inflated", mean_coverage(TASKS, layout, common=common, **size)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="", help="only studies whose name holds this")
    parser.add_argument("--first", type=int, default=0, help="number of the first simulation (of single tasks)")
    options = parser.parse_args()
    print("| test set | seeds | interval | scores | gap closed | tokens to", *(f"{level:.0%}" for level in LEVELS), "|")
    print("|---|---|---|---|---|---|", flush=True)
    for name, layout, correction, found in studies(options.simulations, options.draws, options.only, options.first):
        parts = [
            f"{share.mean():.1f} ({share.min():.1f} to {share.max():.1f})"
            for share in (100 * found["score"], 100 * found["gap"])
        ]
        crossings = " ".join(f"{100 * share:.1f}" for share in found.get("crossing", ()))
        print(f"| {name} | {layout[0]} x {layout[1]} | {correction} | {' | '.join(parts)} | {crossings} |", flush=True)


if __name__ == "__main__":
    main()
