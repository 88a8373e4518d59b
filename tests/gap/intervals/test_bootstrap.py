"""The draws: Student's t for seeds, pairing by seed and by example, nothing counted twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.interval import estimate
from gap.intervals.variance import SeedGrid

RANDOM = np.random.default_rng(0)


def grids(checkpoints: int, rows: int, columns: int) -> list[SeedGrid]:
    size = rows * columns
    return [
        SeedGrid(tuple(range(rows)), tuple(range(columns)), tuple(range(number * size, (number + 1) * size)))
        for number in range(checkpoints)
    ]


def seed_draws(scores: np.ndarray, *, draws: int = 40_000, correction: str = "inflated") -> Draws:
    """Draws of scores [C, P, F] with the examples held fixed."""
    return resample(
        grids(*scores.shape),
        scores.reshape(-1),
        None,
        num_clusters=0,
        resampling=Resampling(draws=draws, correction=correction),
    )


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (1, 5), (3, 1), (5, 1)])
def test_without_examples_the_interval_of_a_difference_is_students_t(rows: int, columns: int) -> None:
    scores = 0.5 + 0.02 * RANDOM.standard_normal((2, rows, columns))
    found = estimate(lambda one: one[:, 1] - one[:, 0], seed_draws(scores))
    differences = (scores[1] - scores[0]).reshape(-1)
    low, high = t.interval(
        0.95, len(differences) - 1, differences.mean(), differences.std(ddof=1) / len(differences) ** 0.5
    )
    assert found.value == pytest.approx(differences.mean())
    assert (found.low, found.high) == (pytest.approx(low, rel=0.06, abs=2e-3), pytest.approx(high, rel=0.06, abs=2e-3))


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (5, 3), (3, 5)])
def test_a_reference_of_one_run_gets_the_interval_of_welchs_test(rows: int, columns: int) -> None:
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
    welch = ttest_ind(reference, runs, equal_var=False).confidence_interval(0.95)
    assert found.low == pytest.approx(welch.low, rel=0.02, abs=3e-3)
    assert found.high == pytest.approx(welch.high, rel=0.02, abs=3e-3)
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
    assert draws.shares(np.array([1.0])).examples < 0.4


def test_the_same_seed_gives_the_same_draws_and_another_stream_other_seeds_only() -> None:
    scores = 0.5 + 0.02 * RANDOM.standard_normal((2, 3, 3))
    first, second = seed_draws(scores, draws=200), seed_draws(scores, draws=200)
    np.testing.assert_array_equal(first.pretraining, second.pretraining)
    answers = (RANDOM.random((3, 50)) < 0.5).astype(np.float32)

    def of_stream(stream: int) -> Draws:
        return resample(
            grids(1, 1, 3),
            answers.mean(axis=1).astype(np.float64),
            lambda weights: (weights @ answers.T / weights.sum(axis=1, keepdims=True)).astype(np.float64),
            num_clusters=50,
            resampling=Resampling(draws=200, stream=stream),
        )

    np.testing.assert_array_equal(of_stream(0).examples, of_stream(1).examples)
    assert not np.array_equal(of_stream(0).finetuning, of_stream(1).finetuning)


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws is 10"):
        Resampling(draws=10)
