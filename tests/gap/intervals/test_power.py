"""Seeds needed, checked against simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.interval import estimate
from gap.intervals.power import PilotVariance, plan_seeds, power_of
from gap.intervals.variance import SeedGrid


def test_power_is_what_simulated_experiments_find() -> None:
    pilot = PilotVariance(pretraining=0.0, finetuning=0.01**2, examples=0.0)
    promised = power_of(pilot, 0.01, 1, 8)  # a spread estimated from 8 seeds alone
    random = np.random.default_rng(0)
    seen = ttest_1samp(0.01 + 0.01 * random.standard_normal((4000, 8)), 0.0, axis=1).pvalue < 0.05
    assert promised == pytest.approx(seen.mean(), abs=0.03)


def test_the_plan_is_the_smallest_design_with_the_power() -> None:
    pilot = PilotVariance(pretraining=0.0, finetuning=0.012**2, examples=0.002**2)
    plan = plan_seeds(pilot, 0.01)
    assert plan.finetuning_seeds is not None
    assert power_of(pilot, 0.01, 1, plan.finetuning_seeds) >= 0.8
    assert plan.finetuning_seeds == 3 or power_of(pilot, 0.01, 1, plan.finetuning_seeds - 1) < 0.8


def test_seeds_cannot_make_up_for_a_small_test_set() -> None:
    plan = plan_seeds(PilotVariance(0.0, 0.01**2, 0.02**2), 0.01)
    assert plan.finetuning_seeds is None
    assert "test examples" in str(plan.reason)
    # Where the fine-tuning seeds alone are too far apart, neither runs nor examples are the remedy.
    plan = plan_seeds(PilotVariance(0.0, 0.06**2, 0.001**2), 0.01)
    assert plan.finetuning_seeds is None
    assert "steadier recipe" in str(plan.reason)
    assert "test examples" not in str(plan.reason)


def test_variances_are_recovered_from_many_pilot_cells() -> None:
    random = np.random.default_rng(1)
    cells = 0.02 * random.standard_normal((2, 400, 1)) + 0.01 * random.standard_normal((2, 400, 5))
    pilot = PilotVariance.of(cells[0], cells[1])
    assert pilot.pretraining**0.5 == pytest.approx(0.02 * 2**0.5, rel=0.1)
    assert pilot.finetuning**0.5 == pytest.approx(0.01 * 2**0.5, rel=0.1)


def test_a_pilot_of_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        PilotVariance.of(np.zeros((1, 1)), np.zeros((1, 1)))


class World:
    """Two checkpoints answer N examples of varied difficulty with F seeds; the second is better by `gap` on average."""

    def __init__(self, examples: int, seed_sd: float, gap: float, *, runs: int = 1, run_sd: float = 0.0) -> None:
        self.examples, self.seed_sd, self.gap, self.runs, self.run_sd = examples, seed_sd, gap, runs, run_sd

    def answers(self, random: np.random.Generator, seeds: int) -> np.ndarray:
        """Right or wrong, [2, P, F, N]."""
        chance = 0.5 + random.uniform(-0.35, 0.35, self.examples)
        shift = random.normal(0, self.seed_sd, (2, self.runs, seeds, 1))
        shift = shift + random.normal(0, self.run_sd, (2, self.runs, 1, 1))
        levels = np.array([-self.gap / 2, self.gap / 2])[:, None, None, None]
        return (random.random((2, self.runs, seeds, self.examples)) < chance + shift + levels).astype(np.float32)

    def draws(self, answers: np.ndarray) -> Draws:
        _, runs, seeds, examples = answers.shape
        cells = answers.reshape(-1, examples)
        size = runs * seeds
        grids = [
            SeedGrid(tuple(range(runs)), tuple(range(seeds)), tuple(range(number * size, (number + 1) * size)))
            for number in range(2)
        ]
        return resample(
            grids,
            cells.mean(axis=1).astype(float),
            lambda weights: (weights @ cells.T / examples).astype(float),
            num_clusters=examples,
            resampling=Resampling(draws=1000, seed=int(answers.sum())),  # not the same draws in every study
            units=list(answers),
        )

    def pilot(self, random: np.random.Generator) -> PilotVariance:
        """As `_plan` takes it from cells, averaged over many pilots: the variances themselves."""
        pilots, degrees, seeds = [], [], 8
        for _ in range(300):
            answers = self.answers(random, seeds)
            draws, weights = self.draws(answers), np.array([-1.0, 1.0])
            examples = float((draws.example_share(weights) * (draws.examples @ weights)).var())
            means = answers.mean(axis=-1, dtype=float)
            pilots.append(PilotVariance.of(*means, examples=examples))
            degrees.append(draws.seed_degrees(weights)[1] / (seeds - 1))
        finetuning, examples = (float(np.mean([getattr(each, name) for each in pilots])) for name in SOURCES)
        # A pilot's own variance of the runs is never below 0, so too large.
        return PilotVariance(2 * self.run_sd**2, finetuning, examples, max(1.0, float(np.median(degrees))))

    def power(self, random: np.random.Generator, seeds: int, studies: int) -> float:
        """How often the tool's interval of the difference lies above 0."""
        found = [
            estimate(lambda scores: scores[:, 1] - scores[:, 0], self.draws(self.answers(random, seeds)))
            for _ in range(studies)
        ]
        return float(np.mean([each.low is not None and each.low > 0 for each in found]))


SOURCES = ("finetuning", "examples")


def planned_and_seen(world: World, studies: int, power: float = 0.8) -> tuple[float, float, int]:
    random = np.random.default_rng(7)
    plan = plan_seeds(world.pilot(random), world.gap, pretraining_seeds=world.runs, power=power)
    assert plan.finetuning_seeds is not None, plan.reason
    assert plan.power is not None
    return plan.power, world.power(random, plan.finetuning_seeds, studies), plan.finetuning_seeds


def test_a_plan_keeps_its_word() -> None:
    promised, seen, seeds = planned_and_seen(World(400, 0.005, 0.05), 300)
    assert seeds <= 8  # the variance of the examples, counted twice, made it 17
    assert seen == pytest.approx(promised, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        World(400, 0.005, 0.05),
        World(200, 0.02, 0.08),
        World(400, 0.01, 0.08, runs=3, run_sd=0.015),
        *(
            pytest.param(world, marks=pytest.mark.long)
            for world in (
                World(1000, 0.003, 0.03),
                World(2000, 0.01, 0.02),
                World(400, 0.03, 0.06),
                World(1000, 0.015, 0.03),
                World(1000, 0.01, 0.05, runs=5, run_sd=0.02),
            )
        ),
    ],
)
def test_plans_keep_their_word_in_other_worlds(world: World) -> None:
    promised, seen, _ = planned_and_seen(world, 1500)
    assert seen == pytest.approx(promised, abs=0.05)
