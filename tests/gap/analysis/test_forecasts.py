"""Which forecasts are given, and what is said of those that are not."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecasting import CURVES, REJECTED, Floats, earlier, header, row
from gap.analysis.forecasts import Forecasts, KnownCurve, forecast_curve
from gap.intervals.interval import Estimate, Statistic

LARGEST = 12_800_000
REFUSED = "2 fine-tuning seeds: an interval needs 3"


def forecasts(
    curve: Callable[[Floats], Floats],
    tokens: Sequence[float],
    *,
    half_width: float | None = 0.02,
    lowest: float = 0.0,
) -> Forecasts:
    """The forecasts of a curve without noise whose intervals are its values plus and minus `half_width`."""
    observed = curve(np.array([0.0, *tokens]) / LARGEST)

    def estimate(statistic: Statistic, _columns: Sequence[int], bounds: tuple[float, float]) -> Estimate:
        value = float(statistic(observed[None])[0])
        if half_width is None:
            return Estimate(value, refused=REFUSED)
        low, high = np.clip([value - half_width, value + half_width], *bounds)
        return Estimate(value, float(low), float(high))

    return forecast_curve(KnownCurve(estimate, observed, 0, range(1, len(observed)), tokens, lowest))


def doubling(count: int) -> list[float]:
    return [LARGEST / 2**halved for halved in reversed(range(count))]


def test_a_row_needs_a_backtest_of_its_reach_or_more() -> None:
    found = forecasts(CURVES["log-linear"], doubling(8))
    assert [point.multiple for point in found.given] == [2.0, 5.0, 10.0]
    assert [point.tokens for point in found.given] == [2 * LARGEST, 5 * LARGEST, 10 * LARGEST]
    reaches = [(test.made_at_tokens, test.tokens / test.made_at_tokens) for test in found.backtests]
    assert reaches == [(8e5, 2.0), (8e5, 8.0), (8e5, 16.0), (1.6e6, 2.0), (1.6e6, 8.0), (3.2e6, 2.0), (6.4e6, 2.0)]
    assert all(test.held for test in found.backtests)


def test_without_a_backtest_of_its_reach_a_row_is_not_given() -> None:
    found = forecasts(CURVES["log-linear"], doubling(7))
    assert [point.multiple for point in found.given] == [2.0, 5.0]
    (missing,) = found.withheld
    assert (missing.multiple, missing.tokens) == (10.0, 10 * LARGEST)
    assert missing.reason == "no budget lies 10 times above 4 others"
    found = forecasts(CURVES["log-linear"], doubling(4))
    assert [missing.reason[:20] for missing in found.withheld] == [
        f"no budget lies {times} time"[:20] for times in (2, 5, 10)
    ]
    assert (found.given, found.backtests) == ((), ())


def test_a_step_that_past_forecasts_did_not_foresee_leaves_no_row() -> None:
    found = forecasts(CURVES["two steps, both seen"], doubling(8), half_width=0.05)
    assert found.given == ()
    reasons = [missing.reason for missing in found.withheld]
    assert reasons[0] == "the same forecast made at 3.2e6 tokens missed"
    assert reasons[1] == "the same forecast made at 800e3 tokens missed"
    held = {test.tokens / test.made_at_tokens: test.held for test in found.backtests if test.made_at_tokens == 8e5}
    assert held == {2.0: True, 8.0: False, 16.0: False}


def test_a_longer_reach_is_not_given_where_a_shorter_one_missed() -> None:
    def bent(shares: Floats) -> Floats:
        """A straight line but for the budget at 1/8 of the largest: only the nearest forecast of it misses."""
        return CURVES["log-linear"](shares) - 0.1 * (np.round(shares, 3) == 0.125)

    found = forecasts(bent, doubling(8), half_width=0.08)
    assert found.withheld[0].reason == "the same forecast made at 800e3 tokens missed"
    assert found.withheld[-1].reason == "the forecast at 2x, which reaches less far, is not given either"
    assert found.given == ()


def test_without_an_interval_no_backtest_can_hold() -> None:
    found = forecasts(CURVES["log-linear"], doubling(8), half_width=None)
    assert found.given == ()
    assert {missing.reason for missing in found.withheld} >= {f"the same forecast has no interval ({REFUSED})"}
    assert all(test.held is None and test.refused == REFUSED for test in found.backtests)


def test_budgets_that_were_rounded_count_with_their_multiple() -> None:
    tokens = [round(budget * 0.997) if number == 4 else budget for number, budget in enumerate(doubling(6))]
    found = forecasts(CURVES["log-linear"], tokens)
    assert [test.made_at_tokens for test in found.backtests] == [tokens[3], tokens[4]]
    assert found.backtests[0].tokens == tokens[4]


def test_the_interval_of_a_backtest_stays_within_the_scores_that_are_possible() -> None:
    high = forecasts(lambda shares: 0.5 + 0.49 * (shares > 0), doubling(8), half_width=0.3)
    assert max(test.high or 0.0 for test in high.backtests) == 1.0
    low = forecasts(lambda shares: -0.5 + 0.1 * (shares > 0), doubling(8), half_width=0.7, lowest=-1.0)
    assert min(test.low or 0.0 for test in low.backtests) == pytest.approx(-1.0)


def test_three_budgets_have_no_forecast() -> None:
    found = forecasts(CURVES["log-linear"], doubling(3))
    assert found == Forecasts(refused="3 budgets above 0: a forecast needs 4")


def test_the_simulation_compares_an_earlier_module_and_what_was_rejected(tmp_path: Path) -> None:
    module = tmp_path / "before.py"
    module.write_text("def forecast(budgets, wanted, scores, scratch):\n    return scores[:, -1:]\n")
    options = argparse.Namespace(simulations=2, draws=100, budgets=5, pretraining_points=1.0)
    ways = {"before": earlier(str(module)), **REJECTED}
    names = header(ways).splitlines()[0].strip("| ").split(" | ")
    cells = dict(zip(names, row("sigmoid", (1, 3), ways, options).strip("| ").split(" | "), strict=True))
    assert (cells["world"], cells["seeds"]) == ("sigmoid", "1 x 3")
    assert cells["given"] in ("100 0 0", "50 0 0", "0 0 0")  # five doubling budgets have no reach beyond 2x
    widths = {name: cells[f"half-width: {name}"].split() for name in (*ways, "now")}
    assert len(set(widths["before"])) == 1  # the last score at any multiple
    assert float(widths["now"][2]) > float(widths["before"][2])
    assert cells["half-width: backtests"].startswith("2x ")
    with pytest.raises(SystemExit, match="it must be a forecast"):
        earlier(str(tmp_path / "none.py"))
    module.write_text("")
    with pytest.raises(SystemExit, match="no function forecast"):
        earlier(str(module))
