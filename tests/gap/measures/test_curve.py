"""Gap closed, the monotone fit and its crossings; effective labels read off scratch's curve over labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from gap.measures.curve import MonotoneCurve, gap_closed, isotonic
from gap.measures.effective_labels import effective_labels

BUDGETS = [1e5, 2e5, 4e5, 8e5, 1.6e6]
VALUES = st.lists(st.floats(-1, 2), min_size=2, max_size=9)


@given(VALUES)
def test_the_vectorised_isotonic_fit_is_scipys(values: list[float]) -> None:
    np.testing.assert_allclose(isotonic(np.array([values]))[0], isotonic_regression(values).x, atol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.floats(0.05, 0.95))
def test_the_curve_stands_at_the_level_where_it_crosses(values: list[float], level: float) -> None:
    curve = MonotoneCurve.fit(BUDGETS, np.array([values]))
    crossing = float(curve.crossing(level)[0])
    if np.isfinite(crossing):
        assert np.log10(BUDGETS[0]) <= crossing <= np.log10(BUDGETS[-1])
        assert curve.at([10**crossing])[0, 0] == pytest.approx(level, abs=1e-6)
    elif crossing > 0:
        assert curve.values[0, -1] < level
    else:
        assert curve.values[0, 0] >= level


def test_a_straight_line_in_log_tokens_is_crossed_where_it_should_be() -> None:
    curve = MonotoneCurve.fit([1e4, 1e5, 1e6, 1e7], np.array([[0.0, 1 / 3, 2 / 3, 1.0]]))
    assert curve.crossing(0.5)[0] == pytest.approx(5.5, abs=1e-6)


def test_crossings_are_censored_on_both_sides_never_extrapolated() -> None:
    curve = MonotoneCurve.fit(BUDGETS, np.array([[0.6, 0.7, 0.7, 0.8, 0.85], [0.1, 0.2, 0.3, 0.3, 0.4]]))
    assert curve.crossing(0.5).tolist() == [-np.inf, np.inf]


def test_gap_closed_is_a_ratio_of_means_and_infinite_without_a_gap() -> None:
    scores = np.array([[0.3, 0.5], [0.3, 0.1]])
    closed = gap_closed(scores, np.array([0.1, 0.2]), np.array([0.6, 0.2]))
    assert closed[0].tolist() == pytest.approx([0.4, 0.8])
    assert closed[1].tolist() == [np.inf, -np.inf]


def test_a_curve_needs_budgets_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        MonotoneCurve.fit([0.0, 1e5], np.array([[0.0, 1.0]]))


def test_a_score_on_scratchs_curve_is_worth_the_labels_there() -> None:
    labels = [100, 200, 400, 800]
    scratch = np.array([[0.2, 0.3, 0.4, 0.5]] * 3)  # a tenth per doubling
    found = 10 ** effective_labels(labels, scratch, np.array([0.3, 0.35, 0.45]))
    np.testing.assert_allclose(found, [200, 200 * 2**0.5, 400 * 2**0.5], rtol=0.02)


def test_scores_off_the_curve_are_censored() -> None:
    found = effective_labels([100, 200], np.array([[0.2, 0.3]] * 2), np.array([0.9, 0.1]))
    assert found.tolist() == [np.inf, -np.inf]
    assert pytest.approx(10 ** effective_labels([100, 200], np.array([[0.2, 0.3]]), np.array([0.3]))[0]) == 200
