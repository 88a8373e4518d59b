"""The error spent over the looks adds up, and little of it early."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_scores import seed_draws

from gap.intervals.interval import estimate
from gap.intervals.spending import (
    ERROR,
    SeedLook,
    history_note,
    look_confidence,
    seed_look_error,
    seeds_to_look_at,
    spent_error,
    with_look,
)


@pytest.mark.parametrize("num_looks", [1, 3, 8])
def test_all_looks_together_spend_the_whole_error(num_looks: int) -> None:
    spent = [1 - look_confidence(look, num_looks) for look in range(1, num_looks + 1)]
    assert sum(spent) == pytest.approx(0.05)
    assert spent == sorted(spent)


def test_looking_at_noise_again_and_again_errs_no_more_than_promised() -> None:
    """Growing means of pure noise: the plain 95 % interval errs far more often, the spent one does not."""
    random = np.random.default_rng(0)
    looks = 8
    means = random.standard_normal((4000, looks)).cumsum(axis=1) / np.sqrt(np.arange(1, looks + 1))
    from scipy.stats import norm

    limits = [norm.ppf(1 - (1 - look_confidence(look, looks)) / 2) for look in range(1, looks + 1)]
    assert (np.abs(means) > limits).any(axis=1).mean() <= 0.05
    assert (np.abs(means) > 1.96).any(axis=1).mean() > 0.15


def test_impossible_looks_are_refused() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        look_confidence(0, 3)
    with pytest.raises(ValueError, match="information"):
        spent_error(0.0)


def false_alarms(most: int, studies: int, *, spent: bool) -> float:
    """Share of studies without a gap that call one resolved at some number of seeds from 3 to `most`."""
    random, found = np.random.default_rng(0), 0
    for _ in range(studies):
        scores = 0.5 + 0.02 * random.standard_normal((2, 1, most))
        looks: list[SeedLook] = []
        for seeds in seeds_to_look_at(3, most) if spent else range(3, most + 1):
            error = seed_look_error(looks, seeds, most) if spent else ERROR
            draws = seed_draws(scores[:, :, :seeds], draws=2000)
            gap = estimate(lambda one: one[:, 1] - one[:, 0], draws, confidence=1 - error)
            looks.append(SeedLook(seeds, error, {"qa": not gap.includes_zero}))
            if not gap.includes_zero:
                found += 1
                break
    return found / studies


@pytest.mark.slow
def test_adding_seeds_until_something_is_resolved_errs_no_more_than_promised() -> None:
    assert false_alarms(10, 150, spent=False) > 0.09
    assert false_alarms(10, 150, spent=True) <= 0.095  # 5 % or less; of 150, more than 14 in 1 % of such tests


def errors_of(seeds: list[int], most: int) -> list[float]:
    looks: list[SeedLook] = []
    for number in seeds:
        looks = with_look(looks, SeedLook(number, seed_look_error(looks, number, most), {}))
    return [look.error for look in looks]


@pytest.mark.parametrize("most", [3, 4, 5, 6, 8, 10, 12, 16, 20, 40])
def test_looks_at_more_seeds_spend_the_error_once_and_never_less_than_the_look_before(most: int) -> None:
    """What one look resolves, the next ones must resolve too: its cells stay, and its p-value with them."""
    seeds = seeds_to_look_at(3, most)
    errors = errors_of(seeds, most)
    assert seeds[-1] == most
    assert sum(errors) == pytest.approx(ERROR)
    assert errors == sorted(errors)


def test_looks_are_few_and_the_first_ones_may_stop() -> None:
    assert seeds_to_look_at(3, 10) == [3, 5, 7, 10]
    assert errors_of([3, 5, 7, 10], 10) == pytest.approx([0.0045, 0.008, 0.012, 0.0255])


def test_a_look_at_the_same_cells_is_the_same_look_and_nothing_is_left_after_the_last() -> None:
    looks = [SeedLook(3, 0.018, {}), SeedLook(5, 0.032, {})]
    assert seed_look_error(looks, 3, 5) == 0.018
    assert seed_look_error(looks, 7, 20) == 0.0
    assert seed_look_error(looks, 5, 5, runs=3) == 0.0  # more pretraining runs are another look
    assert [look.finetuning_seeds for look in with_look(looks, SeedLook(3, 0.018, {}))] == [5, 3]  # the last one


def test_a_pilot_leaves_error_for_the_study_and_is_part_of_one_of_as_many_seeds() -> None:
    pilot = SeedLook(3, seed_look_error([], 3, 6, pilot=True), {"qa": False}, pilot=True)
    assert pilot.error == pytest.approx(0.0125)
    assert seed_look_error([pilot], 3, 3) == pytest.approx(ERROR)  # its cells are the study's own ends
    assert seed_look_error([pilot], 8, 8) == pytest.approx(ERROR - pilot.error)
    assert seed_look_error([pilot], 3, 6, pilot=True) == pilot.error


def test_the_history_of_looks_is_told() -> None:
    first = SeedLook(3, ERROR, {"qa": False})
    assert history_note([first]) is None
    free = history_note([first, SeedLook(5, 0.0, {"qa": True})])
    assert free is not None
    assert "3 seeds: nothing resolved (5 of the 5 %); 5 seeds: qa resolved (none of the 5 % was left)" in free
    assert "more often than 1 time in 20" in free
    looks = [SeedLook(3, 0.01, {"qa": False}, pilot=True), SeedLook(5, 0.04, {"qa": True}, runs=3)]
    spent = history_note(looks)
    assert spent is not None
    assert "pilot, 3 seeds" in spent
    assert "3 runs x 5 seeds" in spent
    assert "96.00% confidence" in spent
    assert "confidence" not in str(history_note(looks, 0.99))  # the intervals beside it are of another
