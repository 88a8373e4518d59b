"""Do the intervals cover the truth as often as they say? Simulated studies with known answers.

The thousand simulations of every layout stand in benchmarks/coverage.md; the slow tests here repeat them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import interval_theory
from benchmarks.coverage import (
    IN_REACH,
    LARGE,
    LATER,
    LAYOUTS,
    LEVELS,
    OUTSIDE,
    TASKS,
    Found,
    World,
    comparison_coverage,
    coverage,
    draws_of,
    mean_coverage,
    simulate,
)
from gap.intervals.bootstrap import POWER, Resampling
from gap.intervals.variance import Floats

TINY = World(
    budgets=(2.5e5, 5e5, 1e6, 2e6, 4e6), paragraphs=60, questions=400, difficulty=0.1
)  # fast: nearly no example noise
QUANTITIES = ("score", "change", "gap", "trend", "crossing")


def test_corrected_intervals_cover_and_plain_percentile_intervals_do_not() -> None:
    corrected = coverage(TINY, (3, 3), simulations=150, draws=300)
    plain = coverage(TINY, (3, 3), simulations=150, draws=300, correction="percentile")
    for name in QUANTITIES:
        assert 0.91 <= corrected[name].covered.mean() <= 0.995, name
    assert plain["score"].covered.mean() < 0.91
    assert plain["score"].covered.mean() < corrected["score"].covered.mean() - 0.05


def test_one_pretraining_run_says_little_about_other_runs() -> None:
    """Why the interval of a single run is labelled: it covers this run's truth, not that of pretraining in general."""
    this_run = coverage(TINY, (1, 3), simulations=100, draws=300)
    all_runs = coverage(TINY, (1, 3), simulations=100, draws=300, correction="percentile", over_runs=True)
    assert this_run["score"].covered.mean() >= 0.91
    assert all_runs["score"].covered.mean() < 0.75


@pytest.mark.parametrize("layout", [(3, 3), (3, 1)])
def test_a_reference_from_outside_counts_with_its_finetuning_seeds(layout: tuple[int, int]) -> None:
    outside = coverage(replace(TINY, outside=0.8), layout, simulations=150, draws=300)
    for name in QUANTITIES:
        assert 0.91 <= outside[name].covered.mean() <= 0.985, name


def test_unequal_spreads_are_covered_and_lengthen_the_intervals_where_they_must() -> None:
    found = coverage(replace(TINY, unequal=0.8), (1, 3), simulations=150, draws=300)
    for name in QUANTITIES:
        assert 0.91 <= found[name].covered.mean() <= 0.985, name


def test_where_runs_fail_no_interval_of_three_seeds_covers_and_the_simulation_says_so() -> None:
    found = coverage(replace(TINY, failing=0.1, failing_at=3), (1, 3), simulations=100, draws=300)["score"].covered
    assert found[3] < 0.8
    assert np.delete(found, 3).mean() > 0.91


def test_the_mean_over_tasks_is_covered_too() -> None:
    tasks = (TINY, replace(TINY, scratch=0.5, top=0.8))
    for name, found in mean_coverage(tasks, (3, 3), simulations=150, draws=300).items():
        assert 0.91 <= found.covered.mean() <= 0.985, name


def test_differences_of_two_runs_are_covered() -> None:
    runs = (TINY, replace(TINY, top=0.75))
    for layout in ((1, 3), (3, 3)):
        found = comparison_coverage(runs, layout, simulations=100, draws=300)["score"]
        assert 0.91 <= found.covered.mean() <= 0.985, layout


def test_theory_bounds_the_reported_interval_and_not_welchs() -> None:
    """Normal seeds and examples: coverage is never below the nominal one, nor above 98 % for 95 % intervals."""
    low, high = interval_theory.extremes(interval_theory.summed(2, 0.95), 2)
    assert 0.9499 <= low <= high <= 0.98
    low, high = interval_theory.extremes(interval_theory.students_t(2, 0.95, power=2), 2)
    assert low < 0.925
    assert high < 0.951
    low, high = interval_theory.extremes(interval_theory.students_t(2, 0.95, power=POWER), 2)
    assert 0.945 <= low <= high <= 0.968


@pytest.mark.parametrize("degrees", [(2.0, 4.0), (2.0, 20.0), (4.0, 20.0)])
@pytest.mark.parametrize("examples", [0.0, 0.3])
def test_theory_bounds_runs_beside_a_single_run_and_not_welchs(degrees: tuple[float, float], examples: float) -> None:
    low, high = interval_theory.two_sources(interval_theory.fewer_degrees, degrees, examples)
    assert 0.945 <= low <= high <= 0.97
    if degrees == (2.0, 20.0) and not examples:
        assert interval_theory.two_sources(interval_theory.welch, degrees, examples)[0] < 0.93


def test_the_interval_of_a_gap_closed_has_the_fewer_degrees_of_runs_and_reference() -> None:
    """Three runs and an outside reference of three seeds, without examples: what `Draws.seed_sources` keeps apart."""
    world = replace(TINY, outside=0.8, paragraphs=30, questions=5)
    drawn = draws_of(world, [simulate(world, 3, 3, np.random.default_rng(0))], Resampling(draws=2000))
    weights = np.zeros(len(world.scores))
    weights[[0, 3]] = -1.0, 1.0
    ((_, degrees),) = drawn.seed_sources(weights)
    assert degrees == 2.0
    weights[-1] = 0.5
    (_, of_runs), (spread, of_reference) = drawn.seed_sources(weights)
    assert of_runs == 2.0
    assert of_reference > 2.0  # the other checkpoints help to know its spread
    assert spread == pytest.approx(0.25 * drawn.finetuning[:, -1].var())
    assert drawn.seed_degrees(weights)[0] == pytest.approx(sum(variance for variance, _ in drawn.seed_sources(weights)))


def as_stated(shares: Floats, simulations: int) -> bool:
    """Whether each share of so many simulations could be that of an interval that covers 93.5 to 97.5 %.

    One in a thousand that do falls outside: with 300 simulations, below 89 or above 100 %.
    """
    low, high = binom.ppf(0.001, simulations, 0.935), binom.ppf(0.999, simulations, 0.975)
    return bool((shares * simulations >= low).all() and (shares * simulations <= high).all())


def test_a_share_is_judged_by_itself_and_by_how_often_it_was_looked() -> None:
    assert as_stated(np.array([0.93, 0.98, 0.95]), 1000)
    assert not as_stated(np.array([0.95, 0.95, 0.88]), 1000)  # their mean would pass
    assert not as_stated(np.array([0.95, 0.995]), 1000)
    assert as_stated(np.array([0.89, 1.0]), 100)


def true_crossings(world: World) -> Floats:
    """log10 tokens [levels] at which the expected curve reaches each level."""
    return np.array([world.true_crossing(level, world.scores[0], world.scores[-1]) for level in LEVELS])


def test_the_worlds_have_crossings_between_the_budgets_and_beyond_them() -> None:
    largest = np.log10(LARGE.budgets[-1])
    assert (true_crossings(LARGE) < largest).all()
    assert (true_crossings(replace(LARGE, outside=IN_REACH)) < largest).all()
    half, ninety, ninety_five, ninety_nine = true_crossings(replace(LARGE, outside=OUTSIDE))
    assert half < ninety < largest
    assert ninety_five == ninety_nine == np.inf  # not by any budget: an interval that says so is right


WORLDS = (LARGE, replace(LARGE, unequal=0.4), replace(LARGE, outside=OUTSIDE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "world"),
    [
        # One world for each layout in the slow suite, the other two in `make test-long`.
        pytest.param(layout, world, marks=[] if (row + column) % len(WORLDS) == 0 else pytest.mark.long)
        for row, layout in enumerate(LAYOUTS)
        for column, world in enumerate(WORLDS)
    ],
)
def test_many_simulations_cover_every_quantity_as_stated(layout: tuple[int, int], world: World) -> None:
    simulations = 200
    found = coverage(world, layout, simulations=simulations, draws=1000)
    reached = np.isfinite(true_crossings(world))
    # What no budget reaches has an interval that is open above, which cannot cover too much.
    crossing = found["crossing"].covered
    assert (crossing[~reached] >= binom.ppf(0.001, simulations, 0.935) / simulations).all()
    for name in QUANTITIES:
        shares = crossing[reached] if name == "crossing" else found[name].covered
        assert as_stated(shares, simulations), (name, shares)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1, 3), (3, 1), (3, 3), (5, 5)])
def test_many_simulations_of_two_runs_and_of_the_mean_over_tasks_cover_as_stated(layout: tuple[int, int]) -> None:
    found = [comparison_coverage((LARGE, LATER), layout, simulations=150, draws=1000)]
    found.append(mean_coverage(TASKS, layout, simulations=100, draws=1000))
    for own, simulations in zip(found, (150, 100), strict=True):
        for name, one in own.items():
            assert as_stated(one.covered, simulations), (name, one.covered)


def test_the_length_of_intervals_without_an_end_does_not_count() -> None:
    ends = [np.array([[0.1, 0.0], [0.3, np.inf]]), np.array([[0.1, 0.0], [0.5, np.inf]])]
    found = Found.of(ends, [np.array([0.2, 1.0]), np.array([0.6, 1.0])])
    assert found.covered.tolist() == [0.5, 1.0]
    assert found.half[0] == pytest.approx(0.15)
    assert np.isnan(found.half[1])
