"""The slope over the last doublings, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest

from gap.intervals.interval import Estimate
from gap.measures.trend import doubling_slope, plateau_verdict


def test_the_slope_is_the_gain_a_doubling_over_the_last_points() -> None:
    scores = np.array([[0.5, 0.1, 0.12, 0.14], [0.0, 0.2, 0.2, 0.2]])
    assert doubling_slope([1, 2, 4, 8], scores, last=3).tolist() == pytest.approx([0.02, 0.0])
    line = np.array([[0.1, 0.13, 0.16, 0.22]])
    assert doubling_slope([1, 2, 4, 16], line).tolist() == pytest.approx([0.03])


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (Estimate(0.02, 0.01, 0.03), "rising"),
        (Estimate(0.001, -0.002, 0.004), "flat"),
        (Estimate(0.001, 0.0005, 0.004), "flat"),
        (Estimate(-0.02, -0.03, -0.01), "falling"),
        (Estimate(0.02, -0.01, 0.05), "not resolved"),
        (Estimate(0.02, refused="1 fine-tuning seed"), "not resolved"),
    ],
)
def test_the_verdict_needs_the_interval(slope: Estimate, verdict: str) -> None:
    assert plateau_verdict(slope) == verdict


def test_one_epoch_count_has_no_slope() -> None:
    with pytest.raises(ValueError, match="needs two"):
        doubling_slope([1], np.zeros((1, 1)))
