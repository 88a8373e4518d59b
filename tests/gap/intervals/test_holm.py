"""Holm's correction, and p-values that agree with the intervals."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_scores import seed_draws

from gap.intervals.holm import holm, p_value
from gap.intervals.interval import estimate


def test_holm_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_the_family_of_true_hypotheses_errs_as_often_as_one_may() -> None:
    random = np.random.default_rng(0)
    worst = [min(holm(random.random(8).tolist())) <= 0.05 for _ in range(4000)]
    assert np.mean(worst) == pytest.approx(0.05, abs=0.012)
    alone = [random.random(8).min() <= 0.05 for _ in range(4000)]
    assert np.mean(alone) > 0.3


def test_a_p_value_is_below_five_percent_where_the_interval_excludes_zero() -> None:
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        scores = 0.5 + 0.02 * random.standard_normal((2, 3, 2)) + np.array([0.0, 0.05])[:, None, None]
        drawn = seed_draws(scores, draws=2000)
        found = estimate(lambda one: one[:, 1] - one[:, 0], drawn)
        value = p_value(lambda one: one[:, 1] - one[:, 0], drawn)
        if abs(value - 0.05) > 0.005:  # not a matter of single draws
            seen.add(value <= 0.05)
            assert (value <= 0.05) is not found.includes_zero
    assert seen == {True, False}
