"""The error spent over the looks adds up, and little of it early."""

from __future__ import annotations

import numpy as np
import pytest

from gap.intervals.spending import look_confidence, spent_error


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
