"""The draws: Student's t for seeds, pairing by seed and by example, nothing counted twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_ind
from simulated_scores import grids, seed_draws

from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.interval import estimate
from gap.intervals.variance import SeedGrid

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("rows", [3, 5])
def test_without_examples_the_interval_of_paired_runs_is_students_t(rows: int) -> None:
    scores = 0.5 + 0.02 * RANDOM.standard_normal((2, rows, 1))
    found = estimate(lambda one: one[:, 1] - one[:, 0], seed_draws(scores))
    differences = (scores[1] - scores[0]).reshape(-1)
    low, high = t.interval(0.95, rows - 1, differences.mean(), differences.std(ddof=1) / rows**0.5)
    assert found.value == pytest.approx(differences.mean())
    assert (found.low, found.high) == (pytest.approx(low, rel=0.06, abs=2e-3), pytest.approx(high, rel=0.06, abs=2e-3))


def test_finetuning_seeds_of_two_checkpoints_have_nothing_in_common() -> None:
    """Scores that go up and down together by chance: paired, their difference would have no spread at all."""
    runs = 0.02 * np.array([-1.0, 0.0, 1.0])
    scores = np.stack([0.3 + runs, 0.6 + runs])[:, None, :]
    found = estimate(lambda one: one[:, 1] - one[:, 0], seed_draws(scores))
    assert found.low is not None
    assert 0.3 - found.low > 0.02 * (2 / 3) ** 0.5 * 2  # beyond two standard errors


def test_a_checkpoints_neighbours_shorten_its_interval_as_far_as_they_are_alike() -> None:
    one = np.array([-1.0, 0.0, 1.0])
    alone = t.ppf(0.975, 2) * 0.02 / 3**0.5

    def half(deviations: list[float]) -> float:
        scores = 0.5 + np.array(deviations)[:, None, None] * one
        found = estimate(lambda draws: draws[:, 0], seed_draws(scores))
        assert found.high is not None
        return found.high - 0.5

    assert half([0.02]) == pytest.approx(alone, rel=0.03)
    alike = half([0.02, 0.018, 0.022, 0.02, 0.019, 0.021, 0.02, 0.02])
    assert alike < 0.67 * alone
    assert alike < half([0.02, 0.001, 0.3, 0.1, 0.004, 0.5, 0.05, 0.002])


def test_a_checkpoint_that_scores_the_same_with_every_seed_neither_varies_nor_helps() -> None:
    scores = 0.5 + np.array([0.0, 0.02, 0.02])[:, None, None] * np.array([-1.0, 0.0, 1.0])
    drawn = seed_draws(scores)
    assert np.ptp(drawn.scores(np.array([1.0, 0.0, 0.0]))[:, 0]) == 0.0
    first, second = (estimate(lambda one, c=c: one[:, c], seed_draws(scores[c:])) for c in (0, 1))  # type: ignore[misc]
    assert (first.low, first.high) == (0.5, 0.5)
    assert second.high is not None


def test_two_runs_keep_the_sum_of_the_two_distributions() -> None:
    """One t for both would cover as little as 91 %."""
    answers = (RANDOM.random((6, 400)) < 0.5).astype(np.float32)

    def half(rows: int) -> float:
        cells = answers[:rows]
        drawn = resample(
            grids(1, rows, 1),
            cells.mean(axis=1).astype(np.float64) + 0.05 * np.arange(rows) / rows,
            lambda weights: (weights @ cells.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
            num_clusters=400,
            resampling=Resampling(draws=4000),
        )
        usual, sure = (float(np.quantile(drawn.scores(np.array([1.0]), c)[:, 0], 0.975)) for c in (0.95, 0.96))
        return usual - sure

    assert half(2) == 0.0
    assert half(3) < 0.0


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (5, 3), (3, 5)])
def test_a_reference_of_one_run_gets_the_fewer_degrees_of_both_sides(rows: int, columns: int) -> None:
    """Pretraining seeds on one side and fine-tuning seeds on the other: unequal variances, unequal numbers."""
    runs, reference = 0.5 + 0.02 * RANDOM.standard_normal(rows), 0.8 + 0.01 * RANDOM.standard_normal(columns)
    own = SeedGrid(tuple(range(rows)), (0,), tuple(range(rows)))
    outside = SeedGrid((0,), tuple(range(columns)), tuple(range(rows, rows + columns)))
    draws = resample(
        [own, outside],
        np.concatenate([runs, reference]),
        None,
        num_clusters=0,
        resampling=Resampling(draws=40_000),
    )
    found = estimate(lambda one: one[:, 1] - one[:, 0], draws)
    variances = runs.var(ddof=1) / rows, reference.var(ddof=1) / columns
    shares = np.array(variances) / sum(variances)
    wide = t.ppf(0.975, (np.array([rows - 1, columns - 1]) / shares**0.85).min()) * sum(variances) ** 0.5
    welch = ttest_ind(reference, runs, equal_var=False).confidence_interval(0.95)
    assert wide > (welch.high - welch.low) / 2  # which covers less than it says
    middle = reference.mean() - runs.mean()
    assert (found.low, found.high) == pytest.approx((middle - wide, middle + wide), rel=0.02, abs=4e-3)
    alone = estimate(lambda one: one[:, 1], draws)  # Student's t of its own seeds, whatever stands beside it
    half = t.ppf(0.975, columns - 1) * reference.std(ddof=1) / columns**0.5
    assert alone.high == pytest.approx(reference.mean() + half, rel=0.02, abs=3e-3)


def test_the_percentile_bootstrap_of_three_seeds_is_far_shorter() -> None:
    scores = 0.5 + 0.02 * RANDOM.standard_normal((1, 1, 3))
    corrected = estimate(lambda one: one[:, 0], seed_draws(scores))
    plain = estimate(lambda one: one[:, 0], seed_draws(scores, correction="percentile"))
    assert None not in (corrected.low, corrected.high, plain.low, plain.high)
    assert (corrected.high - corrected.low) > 2.4 * (plain.high - plain.low)  # type: ignore[operator]


def test_a_seed_moves_all_budgets_together() -> None:
    runs = 0.05 * RANDOM.standard_normal((1, 5, 1))
    scores = np.concatenate([0.3 + runs, 0.6 + runs])
    difference = estimate(lambda one: one[:, 1] - one[:, 0], seed_draws(scores))
    alone = estimate(lambda one: one[:, 1], seed_draws(scores))
    assert (difference.low, difference.high) == (pytest.approx(0.3), pytest.approx(0.3))
    assert alone.high is not None
    assert alone.high > 0.62


def test_equal_scores_of_unequal_answers_are_no_certainty() -> None:
    """Three seeds with the same score by chance; the neighbours' seeds differ by two points."""
    answers = (RANDOM.random((9, 400)) < 0.5).astype(np.float32)
    for row, right in zip(answers, [200, 200, 200, 192, 200, 208, 190, 200, 206], strict=True):
        row[:] = 0
        row[RANDOM.permutation(400)[:right]] = 1

    def drawn(cells: np.ndarray) -> Draws:
        return resample(
            grids(3, 1, 3),
            cells.mean(axis=1).astype(np.float64),
            None,
            num_clusters=0,
            resampling=Resampling(draws=4000),
            units=list(cells.reshape(3, 1, 3, -1)),
        )

    def half(cells: np.ndarray) -> float:
        return float(np.quantile(drawn(cells).scores(np.array([1.0, 0.0, 0.0]))[:, 0] - 0.5, 0.975))

    assert 0.001 < half(answers) < t.ppf(0.975, 2) * 0.02 / 3**0.5
    answers[:3] = answers[0]
    assert half(answers) == 0.0


def test_examples_alone_give_the_binomial_interval() -> None:
    answers = (RANDOM.random((1, 2000)) < 0.7).astype(np.float32)
    draws = resample(
        grids(1, 1, 1),
        answers.mean(axis=1).astype(np.float64),
        lambda weights: (weights @ answers.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
        num_clusters=2000,
        resampling=Resampling(draws=20_000),
        units=[answers.reshape(1, 1, -1)],
    )
    found = estimate(lambda one: one[:, 0], draws)
    share = float(answers.mean())
    half = 1.96 * (share * (1 - share) / 2000) ** 0.5
    assert found.low == pytest.approx(share - half, abs=1e-3)
    assert found.high == pytest.approx(share + half, abs=1e-3)


def test_noise_of_single_answers_is_not_counted_twice() -> None:
    """When answers are coin flips, seeds differ by that noise only; the examples must not add it a second time."""
    answers = (RANDOM.random((9, 4000)) < 0.5).astype(np.float32)
    draws = resample(
        grids(1, 9, 1),
        answers.mean(axis=1).astype(np.float64),
        lambda weights: (weights @ answers.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
        num_clusters=4000,
        resampling=Resampling(draws=2000),
        units=[answers.reshape(9, 1, -1)],
    )
    assert draws.example_share(np.array([1.0])) < 0.4


def test_the_same_seed_gives_the_same_draws_and_another_task_shares_those_of_its_runs_only() -> None:
    scores = 0.5 + 0.02 * RANDOM.standard_normal((2, 3, 3))
    first, second = seed_draws(scores, draws=200), seed_draws(scores, draws=200)
    np.testing.assert_array_equal(first.pretraining, second.pretraining)
    answers = (RANDOM.random((9, 50)) < 0.5).astype(np.float32)

    def of_task(example_stream: int, rows: int) -> Draws:
        return resample(
            grids(1, rows, 9 // rows),
            answers.mean(axis=1).astype(np.float64),
            lambda weights: (weights @ answers.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
            num_clusters=50,
            resampling=Resampling(draws=200, example_stream=example_stream),
        )

    np.testing.assert_array_equal(of_task(0, 3).pretraining, of_task(1, 3).pretraining)
    assert not np.array_equal(of_task(0, 3).examples, of_task(1, 3).examples)
    assert not np.array_equal(of_task(0, 1).finetuning, of_task(1, 1).finetuning)


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws is 10"):
        Resampling(draws=10)
