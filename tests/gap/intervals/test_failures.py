"""The failure rate of runs, and the warning where the mean of a few runs says little."""

import numpy as np
import pytest
from scipy.stats import binom

from gap.intervals.failures import failure_rate, unsteady
from gap.intervals.interval import Estimate


@pytest.mark.parametrize(("failed", "runs"), [(0, 3), (1, 3), (3, 3), (2, 24), (0, 36)])
def test_the_interval_is_clopper_and_pearsons(failed, runs):
    """Its ends are the rates at which so many failures, or more, or fewer, have a chance of 2.5 %."""
    found = failure_rate(failed, runs)
    if failed:
        assert binom.sf(failed - 1, runs, found.low) == pytest.approx(0.025)
    else:
        assert found.low == 0
    if failed < runs:
        assert binom.cdf(failed, runs, found.high) == pytest.approx(0.025)
    else:
        assert found.high == 1
    assert str(failure_rate(1, 3)) == "33% [1%, 91%]"


@pytest.mark.parametrize(("failed", "runs"), [(-1, 3), (4, 3), (0, 0)])
def test_counts_that_cannot_be_are_refused(failed, runs):
    with pytest.raises(ValueError, match="at least one run is needed"):
        failure_rate(failed, runs)


def test_what_is_warned_of():
    made = [
        ("steady", [0.5, 0.6, 0.64], 0),
        ("torn", [0.86, 0.54, 0.79], 0),
        ("failing", [0.2, 0.2], 1),
        ("one", [0.3], 0),
    ]
    assert unsteady(made) == ["torn: its runs are 32 points apart", "failing: 1 of 2 runs failed"]


def test_an_interval_of_three_seeds_does_not_cover_where_one_run_in_ten_fails():
    """The reason for the warning: half of the intervals, not 95 %, whatever the statistics."""
    random = np.random.default_rng(0)
    truth, covered = 0.9 * 0.8 + 0.1 * 0.2, 0
    for _ in range(400):
        scores = np.where(random.random(3) < 0.1, 0.2, 0.8) + random.normal(0, 0.01, 3)
        half = 4.303 * scores.std(ddof=1) / np.sqrt(3)
        covered += Estimate(0.0, scores.mean() - half - truth, scores.mean() + half - truth).includes_zero
    assert covered / 400 < 0.6
