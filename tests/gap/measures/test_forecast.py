"""Forecasts of curves whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.forecasting import Floats, simulate_forecasts, step
from gap.measures.forecast import PARAMETERS, Backtest, fit, fitting_families

BUDGETS = np.geomspace(1e5, 6.4e6, 7)
MANY = np.array([0.0, *BUDGETS])


def sigmoid(tokens: np.ndarray) -> np.ndarray:
    share = (tokens / 7e5) ** 1.3
    return 0.2 + 0.7 * share / (1 + share)


def power(tokens: np.ndarray) -> np.ndarray:
    return 0.1 + 0.6 * (1 - (1 + tokens / 5e5) ** -0.8)


def line(tokens: np.ndarray) -> np.ndarray:
    return np.minimum(0.25 + 0.08 * np.log2(np.maximum(tokens, 1e5) / 1e5), 1.0)


TRUTHS = {"sigmoid": sigmoid, "power law": power, "straight line": line}


@pytest.mark.parametrize("family", PARAMETERS)
def test_a_noiseless_curve_of_any_family_is_recognised_and_continued(family: str) -> None:
    truth, scratch = TRUTHS[family], TRUTHS[family](np.array([0.0])) - (0.05 if family == "straight line" else 0.0)
    wanted = BUDGETS[-1] * np.array([2.0, 5.0, 10.0])
    assert fitting_families(BUDGETS.tolist(), truth(BUDGETS), scratch[0])[0] == family
    found = fit(family, BUDGETS.tolist(), truth(BUDGETS)[None], scratch).at(wanted.tolist())
    np.testing.assert_allclose(found[0], truth(wanted), atol=0.015)


def test_a_straight_line_rises_past_what_the_saturating_families_reach() -> None:
    found = {
        family: fit(family, BUDGETS.tolist(), line(BUDGETS)[None], np.array([0.2])).at([10 * BUDGETS[-1]])[0, 0]
        for family in PARAMETERS
    }
    assert found["straight line"] == pytest.approx(0.996, abs=1e-3)
    assert max(found["sigmoid"], found["power law"]) < 0.95


@pytest.mark.parametrize("family", PARAMETERS)
def test_a_forecast_never_exceeds_a_perfect_score_nor_falls_below_scratch(family: str) -> None:
    rising = np.linspace(0.1, 0.99, 7)[None]
    for scores in (rising, rising[:, ::-1], 0 * rising):
        found = fit(family, BUDGETS.tolist(), scores, np.array([0.1])).at([1e4, 1e9])
        assert ((found >= 0.1) & (found <= 1.0)).all()
    assert fit(family, BUDGETS.tolist(), 0 * rising, np.array([0.1])).at([1e9])[0, 0] == pytest.approx(0.1)


def test_draws_are_fitted_alike_alone_and_together() -> None:
    scores = 0.2 + np.random.default_rng(0).random((1201, 7)) / 2
    scratch = np.full(1201, 0.2)
    for family in PARAMETERS:
        together = fit(family, BUDGETS.tolist(), scores, scratch).at([1e8])
        for row in (0, 700, 1200):
            alone = fit(family, BUDGETS.tolist(), scores[row : row + 1], scratch[:1]).at([1e8])
            assert alone[0, 0] == pytest.approx(together[row, 0], abs=1e-6)


def test_a_family_that_fits_far_worse_is_ruled_out_and_one_that_fits_nearly_as_well_is_not() -> None:
    noise = 0.003 * np.array([1, -1, 1, 1, -1, -1, 1])
    saturated = 0.2 + 0.6 * step(BUDGETS, 4e5, 3.0) + noise
    assert "straight line" not in fitting_families(BUDGETS.tolist(), saturated, 0.2)
    assert set(fitting_families(BUDGETS.tolist(), line(BUDGETS) + 5 * noise, 0.2)) == set(PARAMETERS)


def best_saturating(budgets: list[float], wanted: list[float], scores: Floats, scratch: Floats) -> Floats:
    """Each draw takes the better of the two saturating families: all that there was before the straight line."""
    sigmoids, powers = (fit(family, budgets, scores, scratch) for family in ("sigmoid", "power law"))
    better = (sigmoids.squared_error < powers.squared_error)[:, None]
    return np.where(better, sigmoids.at(wanted), powers.at(wanted))


def test_a_log_linear_truth_is_covered_and_was_not_by_families_that_saturate() -> None:
    """benchmarks/forecasting.md has many more simulations."""
    ways = {"before": best_saturating}
    found, _ = simulate_forecasts("log-linear", (1, 3), simulations=24, draws=200, ways=ways)
    before, now = (np.mean(found[way][-1].covered) for way in ("before", "all"))  # at 10 times the largest budget
    assert now >= 0.85
    assert before <= 0.75
    assert now >= before + 0.15


def test_three_budgets_are_too_few() -> None:
    for family in PARAMETERS:
        with pytest.raises(ValueError, match="needs 4"):
            fit(family, [1e5, 2e5, 4e5], np.array([[0.1, 0.2, 0.3]]), np.array([0.0]))


def test_a_backtest_says_whether_it_held() -> None:
    assert Backtest(1e6, 2e6, 0.5, 0.4, 0.6, 0.55).held is True
    assert Backtest(1e6, 2e6, 0.5, 0.4, 0.6, 0.65).held is False
    assert Backtest(1e6, 2e6, 0.5, None, None, 0.65).held is None
