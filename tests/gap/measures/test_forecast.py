"""Forecasts of curves whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from gap.measures.forecast import Backtest, forecast

BUDGETS = np.geomspace(1e5, 6.4e6, 7)


def sigmoid(tokens: np.ndarray) -> np.ndarray:
    share = (tokens / 7e5) ** 1.3
    return 0.2 + 0.7 * share / (1 + share)


def power(tokens: np.ndarray) -> np.ndarray:
    return 0.1 + 0.6 * (1 - (1 + tokens / 5e5) ** -0.8)


@pytest.mark.parametrize("truth", [sigmoid, power])
def test_a_noiseless_curve_of_either_family_is_continued(truth) -> None:  # type: ignore[no-untyped-def]
    wanted = BUDGETS[-1] * np.array([2.0, 10.0])
    scratch = truth(np.array([0.0]))
    found = forecast(BUDGETS.tolist(), wanted.tolist(), truth(BUDGETS)[None], scratch)
    np.testing.assert_allclose(found[0], truth(wanted), atol=0.015)


def test_a_forecast_never_exceeds_a_perfect_score_nor_falls_below_scratch() -> None:
    rising = np.linspace(0.1, 0.99, 7)[None]
    assert forecast(BUDGETS.tolist(), [1e9], rising, np.array([0.1]))[0, 0] <= 1.0
    assert forecast(BUDGETS.tolist(), [1e9], rising[:, ::-1] * 0, np.array([0.1]))[0, 0] == pytest.approx(0.1)


def test_three_budgets_are_too_few() -> None:
    with pytest.raises(ValueError, match="needs 4"):
        forecast([1e5, 2e5, 4e5], [1e6], np.array([[0.1, 0.2, 0.3]]), np.array([0.0]))


def test_a_backtest_says_whether_it_held() -> None:
    assert Backtest(1e6, 2e6, 0.5, 0.4, 0.6, 0.55).held is True
    assert Backtest(1e6, 2e6, 0.5, 0.4, 0.6, 0.65).held is False
    assert Backtest(1e6, 2e6, 0.5, None, None, 0.65).held is None
