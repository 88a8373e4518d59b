"""The forecasts of a curve, each allowed by backtests of the same reach, or the reason why it is withheld."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gap.analysis.results import ForecastPoint, WithheldForecast
from gap.analysis.wording import tokens_text
from gap.intervals.interval import Estimate, Statistic
from gap.intervals.variance import Floats
from gap.measures.forecast import FEWEST_BUDGETS, MULTIPLES, Backtest, fit, fitting_families
from runtime.plurals import counted

Estimator = Callable[[Statistic, Sequence[int], tuple[float, float]], Estimate]  # as TaskStudy.estimate
ROUNDED = 0.99  # a budget is 10 times another one from 9.9 times on: budgets are whole numbers of tokens


@dataclass(frozen=True)
class KnownCurve:
    """A curve as measured: its columns among the C checkpoints, and how a statistic of their scores is estimated."""

    estimate: Estimator
    observed: Floats  # [C]
    scratch: int
    columns: Sequence[int]  # of the budgets, in rising order
    budgets: Sequence[float]  # tokens
    lowest: float = 0.0  # score that is possible

    def expected(self, known: int, tokens: float, against: int | None = None) -> Estimate:
        """The score at `tokens`, seen from the first `known` budgets; with `against`, minus that column's score.

        The value is that of the family that fits best, the interval spans those of all families that fit.
        """
        budgets, columns = self.budgets[:known], self.columns[:known]
        involved = [*columns, self.scratch, *([] if against is None else [against])]
        widest = 1.0 - self.lowest
        bounds = (self.lowest, 1.0) if against is None else (-widest, widest)

        def statistic(family: str) -> Statistic:
            def score(scores: Floats) -> Floats:
                found = fit(family, budgets, scores[:, list(columns)], scores[:, self.scratch]).at([tokens])[:, 0]
                return found if against is None else found - scores[:, against]

            return score

        families = fitting_families(budgets, self.observed[list(columns)], float(self.observed[self.scratch]))
        found = [self.estimate(statistic(family), involved, bounds) for family in families]
        value, refused = found[0].value, next((one.refused for one in found if one.refused), None)
        ends = [value, *(end for one in found for end in (one.low, one.high) if end is not None)]
        return Estimate(value, refused=refused) if refused else Estimate(value, min(ends), max(ends))

    def backtest(self, known: int, target: int) -> Backtest:
        """The forecast of budget number `target` from the first `known` ones, beside its measured score."""
        column, tokens = self.columns[target], self.budgets[target]
        miss = self.expected(known, tokens, against=column)
        measured = float(self.observed[column])
        low = None if miss.low is None else max(self.lowest, measured + miss.low)
        high = None if miss.high is None else min(1.0, measured + miss.high)
        return Backtest(self.budgets[known - 1], tokens, measured + miss.value, low, high, measured, miss.refused)

    def same_reach(self, multiple: float) -> list[tuple[int, int]]:
        """(known, target) of the backtests that allow a forecast at `multiple` times the largest budget.

        From every four or more budgets: the nearest one that lies at least `multiple` times above them.
        """
        pairs = []
        for known in range(FEWEST_BUDGETS, len(self.budgets)):
            enough = ROUNDED * multiple * self.budgets[known - 1]
            target = next((number for number, tokens in enumerate(self.budgets) if tokens >= enough), None)
            pairs += [] if target is None else [(known, target)]
        return pairs


@dataclass(frozen=True)
class Forecasts:
    """The forecasts that are given, those that are not, and the backtests that decided it; or why there are none."""

    given: tuple[ForecastPoint, ...] = ()
    withheld: tuple[WithheldForecast, ...] = ()
    backtests: tuple[Backtest, ...] = ()
    refused: str | None = None


def forecast_curve(curve: KnownCurve) -> Forecasts:
    """Scores at MULTIPLES of the largest budget, each given only if every backtest of its reach, and of less, held.

    A backtest holds if the measured score lies inside the forecast's interval, widened by its own uncertainty. From
    few budgets that interval is wide at a long reach, so holding there means little where a shorter one missed.
    """
    if len(curve.budgets) < FEWEST_BUDGETS:
        return Forecasts(refused=f"{counted(len(curve.budgets), 'budget')} above 0: a forecast needs {FEWEST_BUDGETS}")
    pairs = {multiple: curve.same_reach(multiple) for multiple in MULTIPLES}
    tests = {pair: curve.backtest(*pair) for pair in sorted({pair for own in pairs.values() for pair in own})}
    given: list[ForecastPoint] = []
    withheld: list[WithheldForecast] = []
    shorter: str | None = None
    for multiple in MULTIPLES:
        tokens = multiple * curve.budgets[-1]
        reason = _reason(multiple, [tests[pair] for pair in pairs[multiple]]) or shorter
        if reason is None:
            given.append(ForecastPoint(multiple, tokens, curve.expected(len(curve.budgets), tokens)))
        else:
            withheld.append(WithheldForecast(multiple, tokens, reason))
            shorter = shorter or f"the forecast at {multiple:g}x, which reaches less far, is not given either"
    return Forecasts(tuple(given), tuple(withheld), tuple(tests.values()))


def _reason(multiple: float, tests: Sequence[Backtest]) -> str | None:
    """Why these backtests do not allow a forecast at this multiple; None if they do."""
    if not tests:
        return f"no budget lies {multiple:g} times above {FEWEST_BUDGETS} others"
    missed = [tokens_text(test.made_at_tokens) for test in tests if test.held is False]
    if missed:
        return f"the same forecast made at {' and at '.join(missed)} tokens missed"
    return next((f"the same forecast has no interval ({test.refused})" for test in tests if test.held is None), None)
