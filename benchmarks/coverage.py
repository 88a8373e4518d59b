"""How often the 95 % intervals cover the truth, and how long they are, by simulated experiments with known answers.

    python benchmarks/coverage.py --simulations 1000                       # every world and layout
    python benchmarks/coverage.py --simulations 1000 --only "unequal"      # worlds whose name holds this
    make coverage                                                          # what benchmarks/coverage.md shows

An example i of the test set is answered right by the checkpoint of budget b, pretraining seed p and fine-tuning seed f
with probability Phi(eta_b + pretraining_bp + finetuning_bpf + difficulty_i), all effects normal. So every expected
score, and with it the gap closed, the trend and the crossing, is known in closed form. Pretraining seeds move a score
by 1.5 points, fine-tuning seeds by 1.0, half of the pretraining variance is common to all budgets. In unequal worlds
every checkpoint's own spreads are drawn anew in each study. In failing worlds some runs of one budget stay at scratch.
A reference from outside the series is one pretraining run: its fine-tuning seeds are drawn, its pretraining seed is
not. Where tasks are averaged, a pretraining run moves them in part alike; their fine-tuning seeds and examples have
nothing in common. Where two runs are compared they share the examples.
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
from gap.measures.trend import doubling_slope

Floats = NDArray[np.float64]
LAYOUTS = ((1, 3), (1, 5), (1, 8), (3, 1), (5, 1), (3, 3), (3, 5), (5, 5))
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
    own_difficulty: float = 0.0  # the same, of what is difficult for one checkpoint alone, with all its seeds
    common_pretraining: float = 0.5  # share of the pretraining variance that all budgets of one run have in common
    crossed: bool = False  # fine-tuning seed f does the same to all pretraining runs
    outside: float | None = None  # score of a reference from outside the series; None: the largest budget
    unequal: float = 0.0  # spread of the logarithms of the checkpoints' own spreads
    failing: float = 0.0  # chance that a run of budget `failing_at` scores as scratch does
    failing_at: int = 4  # checkpoint, counted from scratch

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
        """log10 tokens at which the expected score has closed `level` of the gap; infinite beyond the budgets."""
        share = (level * (reference - scratch) + scratch - self.scratch) / (self.top - self.scratch)
        if share >= 1:
            return np.inf
        tokens = self.middle_tokens * (1 / share - 1) ** (-1 / 1.5)
        return float(np.log10(tokens)) if tokens <= self.budgets[-1] else np.inf


LATER = World(questions=20, difficulty=0.3, top=0.8, middle_tokens=2e6)  # a run that needs more and reaches less
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


@dataclass(frozen=True)
class Chances:
    """What decides the answers of a study: the level of every cell [C, P, F] and how hard its examples are."""

    world: World
    level: Floats
    hard: Floats  # [N], or [C, 1, 1, N] where some examples are hard for one checkpoint alone
    truth: Floats
    expected: Floats

    def answers(self, random: np.random.Generator, seeds: slice = slice(None)) -> NDArray[np.float32]:
        """Shares of right answers [C, P, F, N] of these fine-tuning seeds."""
        chance = norm.cdf(self.level[:, :, seeds, None] + self.hard)
        return (random.binomial(self.world.questions, chance) / self.world.questions).astype(np.float32)


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
    difficulty: np.random.Generator | None = None,
) -> Experiment:
    """One study: checkpoint 0 is scratch, the last one the reference.

    `effects` stand in for `run_effects`; `difficulty` draws the examples, which two runs then share.
    """
    chances = chances_of(world, num_pretraining, num_finetuning, random, effects, difficulty)
    return Experiment(chances.answers(random), chances.truth, chances.expected)


def chances_of(
    world: World,
    num_pretraining: int,
    num_finetuning: int,
    random: np.random.Generator,
    effects: Floats | None = None,
    difficulty: np.random.Generator | None = None,
) -> Chances:
    """The same study before its answers are drawn."""
    expected = world.scores
    checkpoints = len(expected)
    points, tuning = np.full(checkpoints, world.pretraining_points), np.full(checkpoints, world.finetuning_points)
    if world.unequal:  # the mean of the variances stays
        own = np.exp(world.unequal * random.standard_normal((2, checkpoints)) - world.unequal**2)
        points, tuning = points * own[0], tuning * own[1]
    if world.outside is not None:
        points[-1] = 0.0
    spread = np.sqrt(1 + world.difficulty**2 + world.own_difficulty**2)
    slope = norm.pdf(norm.ppf(expected)) / spread  # of the score over eta
    if effects is None:
        effects = run_effects(world, num_pretraining, random)
    pretraining = effects * (points / 100 / slope)[:, None]
    finetuning = random.standard_normal((checkpoints, 1 if world.crossed else num_pretraining, num_finetuning))
    finetuning = finetuning * (tuning / 100 / slope)[:, None, None]
    hard = world.difficulty * (difficulty or random).standard_normal(world.paragraphs)
    if world.own_difficulty:
        hard = hard + world.own_difficulty * random.standard_normal((checkpoints, 1, 1, world.paragraphs))
    variance_f = (tuning / 100 / slope) ** 2
    variance_p = (points / 100 / slope) ** 2
    eta = norm.ppf(expected) * np.sqrt(spread**2 + variance_f + variance_p)
    level = eta[:, None, None] + pretraining[:, :, None] + finetuning
    truth = expected
    if num_pretraining == 1:
        truth = norm.cdf((eta + pretraining[:, 0]) / np.sqrt(spread**2 + variance_f))
    if world.failing:
        failed = random.random(level[world.failing_at].shape) < world.failing
        level[world.failing_at] = np.where(failed, eta[0], level[world.failing_at])
        expected, truth = expected.copy(), truth.copy()
        for scores in (expected, truth):
            scores[world.failing_at] += world.failing * (world.scratch - scores[world.failing_at])
    return Chances(world, level, hard, truth, expected)


def draws_of(world: World, experiments: Sequence[Experiment], resampling: Resampling) -> Draws:
    """The resampled scores of one simulated study, or of several runs that were scored on the same examples."""
    grids, units, cells = [], [], 0
    for run, experiment in enumerate(experiments):
        checkpoints, rows, columns, _ = experiment.answers.shape
        for checkpoint in range(checkpoints):
            outside = world.outside is not None and checkpoint == checkpoints - 1
            own, tuned = (1, max(rows, columns)) if outside else (rows, columns)
            values = experiment.answers[checkpoint].reshape(-1, experiment.answers.shape[-1])[: own * tuned]
            places = tuple(range(cells, cells + own * tuned))
            grids.append(SeedGrid(tuple(range(own)), tuple(range(tuned)), places, run=run))
            units.append(values.reshape(own, tuned, -1))
            cells += own * tuned
    flat = np.concatenate([values.reshape(-1, values.shape[-1]) for values in units])
    return resample(
        grids,
        flat.mean(axis=1).astype(np.float64),
        lambda weights: (weights @ flat.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
        num_clusters=flat.shape[1],
        resampling=resampling,
        units=units,
    )


def closed(scores: Floats) -> Floats:
    """Gap closed [D, C - 1] by every checkpoint above scratch."""
    return gap_closed(scores[:, 1:], scores[:, 0], scores[:, -1])


def statistics(world: World) -> dict[str, list[Statistic]]:
    """What an interval is made of: `score` [C], `change` against scratch [C-1], `gap` [C-2] between scratch and
    reference, `crossing` [levels] in log10 tokens, `trend` [1] in score per doubling of the budget."""
    budgets, checkpoints = len(world.budgets), len(world.scores)

    def crossing(scores: Floats, level: float) -> Floats:
        return MonotoneCurve.fit(world.budgets, closed(scores)[:, :budgets]).crossing(level)

    return {
        "score": [lambda s, c=c: s[:, c] for c in range(checkpoints)],  # type: ignore[misc]
        "change": [lambda s, c=c: s[:, c] - s[:, 0] for c in range(1, checkpoints)],  # type: ignore[misc]
        "gap": [lambda s, c=c: closed(s)[:, c] for c in range(checkpoints - 2)],  # type: ignore[misc]
        "crossing": [lambda s, level=level: crossing(s, level) for level in LEVELS],  # type: ignore[misc]
        "trend": [lambda s: doubling_slope(world.budgets, s[:, 1 : budgets + 1])],
    }


def truths(world: World, experiment: Experiment, *, over_runs: bool = False) -> dict[str, Floats]:
    """What the interval of each of `statistics` should cover."""
    scores = experiment.expected if over_runs else experiment.truth
    found = {name: np.array([one(scores[None])[0] for one in listed]) for name, listed in statistics(world).items()}
    if scores is experiment.expected and not world.failing:  # otherwise the curve of this run, joined as the fit does
        found["crossing"] = np.array([world.true_crossing(level, scores[0], scores[-1]) for level in LEVELS])
    return found


@dataclass(frozen=True)
class Found:
    """Share of simulated studies whose interval covers the truth, and the intervals' mean half-length."""

    covered: Floats
    half: Floats

    @staticmethod
    def of(ends: Sequence[Floats], truth: Sequence[Floats]) -> Found:
        """From the ends [2, K] and the truth [K] of every simulation; infinite ends do not count for the length."""
        low, high = np.stack(ends, axis=1)
        inside = (low <= np.stack(truth)) & (np.stack(truth) <= high)
        with np.errstate(invalid="ignore"):
            half = (high - low) / 2
        return Found(inside.mean(axis=0), np.where(np.isfinite(half), half, np.nan).mean(axis=0))


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
) -> dict[str, Found]:
    """Coverage and length by statistic (see `statistics`).

    The simulations are numbered from `first`. `over_runs` judges a single pretraining run by the mean over all runs,
    which its interval does not claim to cover.
    """
    listed = statistics(world)
    ends: dict[str, list[Floats]] = {name: [] for name in listed}
    true: dict[str, list[Floats]] = {name: [] for name in listed}
    for number in range(first, first + simulations):
        experiment = simulate(world, *layout, np.random.default_rng([seed, *layout, number]))
        drawn = draws_of(world, [experiment], Resampling(draws=draws, seed=number, correction=correction))
        truth = truths(world, experiment, over_runs=over_runs)
        for name, ones in listed.items():
            ends[name].append(np.array([quantiles(statistic_draws(one, drawn), 0.95) for one in ones]).T)
            true[name].append(truth[name])
    return {name: Found.of(ends[name], true[name]) for name in listed}


def comparison_coverage(
    worlds: tuple[World, World], layout: tuple[int, int], *, simulations: int, draws: int = 2000, seed: int = 0
) -> dict[str, Found]:
    """The same for the differences of two runs' scores, checkpoint by checkpoint, on the same examples."""
    checkpoints = len(worlds[0].scores)
    ends, true = [], []
    for number in range(simulations):
        made = []
        for run, world in enumerate(worlds):
            # The same difficulty of the examples, which is drawn after the seeds: streams apart, but for that.
            random = np.random.default_rng([seed, *layout, number, run])
            made.append(simulate(world, *layout, random, difficulty=np.random.default_rng([seed, number])))
        drawn = draws_of(worlds[0], made, Resampling(draws=draws, seed=number))

        def change(scores: Floats, column: int) -> Floats:
            return scores[:, checkpoints + column] - scores[:, column]

        ones: list[Statistic] = [lambda s, c=c: change(s, c) for c in range(checkpoints)]  # type: ignore[misc]
        ends.append(np.array([quantiles(statistic_draws(one, drawn), 0.95) for one in ones]).T)
        true.append(made[1].truth - made[0].truth)
    return {"score": Found.of(ends, true)}


def mean_coverage(
    worlds: Sequence[World],
    layout: tuple[int, int],
    *,
    simulations: int,
    common: float = 0.5,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Found]:
    """The same for the mean score and the mean gap closed over tasks with equally many budgets.

    `common` is the share of the pretraining variance that all tasks have in common.
    """
    names = ("score", "gap")
    ends: dict[str, list[Floats]] = {name: [] for name in names}
    means: dict[str, list[Floats]] = {name: [] for name in names}
    for number in range(simulations):
        random = np.random.default_rng([seed, len(worlds), *layout, number])
        alike = run_effects(worlds[0], layout[0], random)
        effects = [np.sqrt(common) * alike + np.sqrt(1 - common) * run_effects(w, layout[0], random) for w in worlds]
        made = [simulate(w, *layout, random, own) for w, own in zip(worlds, effects, strict=True)]
        drawn = [
            draws_of(w, [one], Resampling(draws=draws, seed=number, example_stream=task))
            for task, (w, one) in enumerate(zip(worlds, made, strict=True))
        ]
        true = [truths(w, one) for w, one in zip(worlds, made, strict=True)]
        for name in names:
            ones = statistics(worlds[0])[name]
            ends[name].append(np.array([mean_interval([(one, own) for own in drawn], 0.95) for one in ones]).T)
            means[name].append(np.mean([one[name] for one in true], axis=0))
    return {name: Found.of(ends[name], means[name]) for name in names}


SMALL, LARGE = World(), World(questions=20, difficulty=0.3)
WORLDS = {
    "1,000 questions": SMALL,
    "10,000 questions": LARGE,
    "1,000, unequal spreads": replace(SMALL, unequal=0.4),
    "10,000, unequal spreads": replace(LARGE, unequal=0.4),
    "10,000, very unequal spreads": replace(LARGE, unequal=0.8),
    "10,000, seeds crossed": replace(LARGE, crossed=True),
    "1,000, outside reference": replace(SMALL, outside=OUTSIDE),
    "10,000, outside reference": replace(LARGE, outside=OUTSIDE),
    "10,000, outside reference, unequal spreads": replace(LARGE, outside=OUTSIDE, unequal=0.4),
    "1,000, reference in reach": replace(SMALL, outside=IN_REACH),
    "10,000, reference in reach": replace(LARGE, outside=IN_REACH),
    "10,000, 1 run in 10 fails": replace(LARGE, failing=0.1),
    "10,000, 1 run in 4 fails": replace(LARGE, failing=0.25),
}


def studies(
    simulations: int, draws: int, only: str, first: int = 0, layouts: Sequence[tuple[int, int]] = LAYOUTS
) -> Iterator[tuple[str, tuple[int, int], dict[str, Found]]]:
    """Name, layout and results of all simulated studies whose name holds `only`."""
    single = [
        (name, world, layout, "inflated", False)
        for name, world in WORLDS.items()
        for layout in layouts
        if not world.crossed or min(layout) > 1  # crossed or not is the same with one seed of a kind
    ]
    single += [("10,000, percentile bootstrap", LARGE, layout, "percentile", False) for layout in layouts]
    single += [("10,000, percentile bootstrap, over all runs", LARGE, (1, 3), "percentile", True)]
    size = {"simulations": simulations, "draws": draws}
    for name, world, layout, correction, over_runs in single:
        if only in name:
            found = coverage(world, layout, correction=correction, over_runs=over_runs, first=first, **size)
            yield name, layout, found
    for layout in layouts if only in "two runs compared" else ():
        yield "two runs compared", layout, comparison_coverage((LARGE, LATER), layout, **size)
    for layout in layouts if only in "two runs compared, unequal spreads" else ():
        pair = (replace(LARGE, unequal=0.4), replace(LATER, unequal=0.4))
        yield "two runs compared, unequal spreads", layout, comparison_coverage(pair, layout, **size)
    for common in COMMON_SHARES:
        name = f"mean of {len(TASKS)} tasks, {common:.0%} in common"
        for layout in layouts if only in name else ():
            yield name, layout, mean_coverage(TASKS, layout, common=common, **size)


def row(name: str, layout: tuple[int, int], found: dict[str, Found]) -> str:
    """One row of the page: coverage in percent (lowest to highest) and the mean half-length in points."""
    cells = []
    for quantity in ("score", "change", "gap", "trend"):
        own = found.get(quantity)
        if own is None:
            cells += [""]
        elif len(own.covered) == 1:
            cells += [f"{100 * own.covered[0]:.1f}"]
        else:
            shares = 100 * own.covered
            cells += [f"{shares.mean():.1f} ({shares.min():.1f} to {shares.max():.1f})"]
    crossings = " ".join(f"{100 * share:.1f}" for share in found["crossing"].covered) if "crossing" in found else ""
    halves = [f"{100 * found[one].half.mean():.2f}" if one in found else "" for one in ("score", "change")]
    return f"| {name} | {layout[0]} x {layout[1]} | {' | '.join([*cells, crossings, *halves])} |"


HEADER = (
    "| world | seeds | scores | change against scratch | gap closed | trend | "
    f"tokens to {', '.join(f'{level:.0%}' for level in LEVELS)} | half-length: score | change |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="", help="only studies whose name holds this")
    parser.add_argument("--first", type=int, default=0, help="number of the first simulation (of single tasks)")
    parser.add_argument(
        "--layouts", default="", help="such as 1x3,2x3: runs x fine-tuning seeds; none: the eight offered"
    )
    options = parser.parse_args()
    asked = [tuple(map(int, one.split("x"))) for one in options.layouts.split(",") if one]
    layouts = [(runs, seeds) for runs, seeds in asked] or LAYOUTS
    print(HEADER)
    print("|---" * 9 + "|", flush=True)
    for name, layout, found in studies(options.simulations, options.draws, options.only, options.first, layouts):
        print(row(name, layout, found), flush=True)


if __name__ == "__main__":
    main()
