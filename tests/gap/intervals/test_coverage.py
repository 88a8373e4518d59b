"""Do the intervals cover the truth as often as they say? Simulated studies with known answers.

The thousand simulations of every layout stand in benchmarks/coverage.md; the slow tests here repeat them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import interval_theory
from benchmarks.coverage import IN_REACH, LAYOUTS, LEVELS, OUTSIDE, TASKS, World, coverage, mean_coverage
from gap.intervals.variance import Floats

LARGE = World(questions=20, difficulty=0.3)  # 10,000 questions: seeds, not examples, decide the interval
TINY = World(
    budgets=(2.5e5, 5e5, 1e6, 2e6, 4e6), paragraphs=60, questions=400, difficulty=0.1
)  # fast: nearly no example noise


def test_corrected_intervals_cover_and_plain_percentile_intervals_do_not() -> None:
    corrected = coverage(TINY, (3, 3), simulations=150, draws=300)
    plain = coverage(TINY, (3, 3), simulations=150, draws=300, correction="percentile")
    for name in ("score", "gap", "crossing"):
        assert 0.91 <= corrected[name].mean() <= 0.995, name
    assert plain["score"].mean() < 0.91
    assert plain["score"].mean() < corrected["score"].mean() - 0.05


def test_one_pretraining_run_says_little_about_other_runs() -> None:
    """Why the interval of a single run is labelled: it covers this run's truth, not that of pretraining in general."""
    this_run = coverage(TINY, (1, 3), simulations=100, draws=300)
    all_runs = coverage(TINY, (1, 3), simulations=100, draws=300, correction="percentile", over_runs=True)
    assert this_run["score"].mean() >= 0.91
    assert all_runs["score"].mean() < 0.75


def test_a_reference_from_outside_counts_with_its_finetuning_seeds() -> None:
    outside = coverage(replace(TINY, outside=0.8), (3, 3), simulations=150, draws=300)
    for name in ("score", "gap", "crossing"):
        assert 0.91 <= outside[name].mean() <= 0.985, name


def test_the_mean_over_tasks_is_covered_too() -> None:
    tasks = (TINY, replace(TINY, scratch=0.5, top=0.8))
    found = mean_coverage(tasks, (3, 3), simulations=150, draws=300)
    for name, shares in found.items():
        assert 0.91 <= shares.mean() <= 0.985, name


def test_theory_bounds_the_reported_interval_and_not_welchs() -> None:
    """Normal seeds and examples: coverage is never below the nominal one, nor above 98 % for 95 % intervals."""
    low, high = interval_theory.extremes(interval_theory.reported(2, 0.95), 2)
    assert 0.9499 <= low <= high <= 0.98
    low, high = interval_theory.extremes(interval_theory.students_t(2, 0.95, power=2), 2)
    assert low < 0.925
    assert high < 0.951


def as_stated(shares: Floats, simulations: int) -> bool:
    """Whether each share of so many simulations could be that of an interval that covers 92 to 98 %.

    One in a thousand that do falls outside: with 1,000 simulations, below 89.2 or above 99.3 %.
    """
    low, high = binom.ppf(0.001, simulations, 0.92), binom.ppf(0.999, simulations, 0.98)
    return bool((shares * simulations >= low).all() and (shares * simulations <= high).all())


def test_a_share_is_judged_by_itself_and_by_how_often_it_was_looked() -> None:
    assert as_stated(np.array([0.92, 0.98, 0.91]), 1000)
    assert not as_stated(np.array([0.95, 0.95, 0.88]), 1000)  # their mean would pass
    assert not as_stated(np.array([0.95, 0.995]), 1000)
    assert as_stated(np.array([0.88, 1.0]), 100)


def true_crossings(world: World) -> Floats:
    """log10 tokens [levels] at which the expected curve reaches each level."""
    return np.array([world.true_crossing(level, world.scores[0], world.scores[-1]) for level in LEVELS])


def test_the_worlds_have_crossings_between_the_budgets_and_beyond_them() -> None:
    largest = np.log10(LARGE.budgets[-1])
    assert (true_crossings(LARGE) < largest).all()
    assert (true_crossings(replace(LARGE, outside=IN_REACH)) < largest).all()
    half, ninety, ninety_five, ninety_nine = true_crossings(replace(LARGE, outside=OUTSIDE))
    assert half < ninety < largest < ninety_five < ninety_nine
    assert ninety_nine == np.inf  # more than any budget gives


@pytest.mark.slow
@pytest.mark.parametrize(("outside", "simulations"), [(None, 1000), (OUTSIDE, 1000), (IN_REACH, 300)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_simulations_cover_every_score_gap_and_crossing_as_stated(
    layout: tuple[int, int], outside: float | None, simulations: int
) -> None:
    world = replace(LARGE, outside=outside)
    found = coverage(world, layout, simulations=simulations, draws=1000)
    reached = np.isfinite(true_crossings(world))
    # What no budget reaches has an interval that is open above, which cannot cover too much.
    assert (found["crossing"][~reached] >= binom.ppf(0.001, simulations, 0.92) / simulations).all()
    found["crossing"] = found["crossing"][reached]
    for name, shares in found.items():
        assert as_stated(shares, simulations), (name, shares)
        assert 0.92 <= np.mean(shares) <= (0.98 if simulations >= 1000 else 0.985), (name, shares)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_hundred_simulations_of_the_mean_over_tasks_cover_as_stated(layout: tuple[int, int]) -> None:
    for name, shares in mean_coverage(TASKS, layout, simulations=300, draws=1000).items():
        assert as_stated(shares, 300), (name, shares)
        assert 0.92 <= np.mean(shares) <= 0.985, (name, shares)
