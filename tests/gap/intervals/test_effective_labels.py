"""Effective labels read off scratch's curve over labels."""

from __future__ import annotations

import numpy as np
import pytest

from gap.intervals.effective_labels import effective_labels


def test_a_score_on_scratchs_curve_is_worth_the_labels_there() -> None:
    labels = [100, 200, 400, 800]
    scratch = np.array([[0.2, 0.3, 0.4, 0.5]] * 3)  # a tenth per doubling
    found = 10 ** effective_labels(labels, scratch, np.array([0.3, 0.35, 0.45]))
    np.testing.assert_allclose(found, [200, 200 * 2**0.5, 400 * 2**0.5], rtol=0.02)


def test_scores_off_the_curve_are_censored() -> None:
    found = effective_labels([100, 200], np.array([[0.2, 0.3]] * 2), np.array([0.9, 0.1]))
    assert found.tolist() == [np.inf, -np.inf]
    assert pytest.approx(10 ** effective_labels([100, 200], np.array([[0.2, 0.3]]), np.array([0.3]))[0]) == 200
