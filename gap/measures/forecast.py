"""Forecast of the score at more tokens: three families of curves, which of them fit, and the outcome of a backtest.

Two families rise from the scratch score and saturate: a sigmoid in log-tokens, and a power law towards its ceiling. The
third, a straight line in log-tokens, does not: it rises until it meets a perfect score. Which of them continues a curve
is often not to be seen from a few budgets, so a forecast spans every family that an F test does not rule out. That
covered more often than the member that fits each draw best, and than members weighted by their fit
(benchmarks/forecasting.md). A forecast is not a measurement: it is reported separately, and only where a forecast of
the same reach, made without the last budgets, turned out right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import f as f_distribution

from gap.intervals.variance import Floats

MULTIPLES = (2.0, 5.0, 10.0)
FEWEST_BUDGETS = 4  # the families have up to three free parameters
PARAMETERS = {"sigmoid": 3, "power law": 3, "straight line": 2}
RULED_OUT = 0.95  # confidence of the F test that rules a family out

MIDDLES, EXPONENTS = 16, 8  # of the coarse grid, both on log scales
ROUNDS = 3  # refinements of the grid around each draw's best member, by 3 each
CHUNK = 500  # draws fitted at once: what they need stays in the processor's cache


@dataclass(frozen=True)
class Fit:
    """The members of one family that fit D curves best.

    A saturating member is (middle, exponent, height above scratch); a straight line (middle of the budgets, slope,
    score there). All scores are fractions of 1, tokens are on a natural log scale.
    """

    family: str
    squared_error: Floats  # [D], summed over the budgets
    scratch: Floats  # [D]
    members: Floats  # [D, 3]

    def at(self, tokens: Sequence[float]) -> Floats:
        """Scores [D, X] at tokens [X], between scratch and a perfect score."""
        wanted, (middle, slope, height) = np.log(np.asarray(tokens, dtype=np.float64)), self.members.T[..., None]
        if self.family == "straight line":
            return np.clip(height + slope * (wanted - middle), self.scratch[:, None], 1.0)
        return self.scratch[:, None] + height * _shape(self.family, self.members[:, :2], wanted)


def fit(family: str, budget_tokens: Sequence[float], scores: Floats, scratch: Floats) -> Fit:
    """Fit one of `PARAMETERS`' families to scores [D, B] at the budgets [B], with scratch [D], by least squares.

    Raises ValueError for fewer than FEWEST_BUDGETS budgets.
    """
    if len(budget_tokens) < FEWEST_BUDGETS:
        raise ValueError(f"{len(budget_tokens)} budgets above 0: a forecast needs {FEWEST_BUDGETS}; add budgets")
    budgets = np.log(np.asarray(budget_tokens, dtype=np.float64))
    if family == "straight line":
        members = _line(budgets, scores)
    else:
        parts = (slice(first, first + CHUNK) for first in range(0, len(scores), CHUNK))
        members = np.concatenate([_saturating(family, budgets, scores[part], scratch[part]) for part in parts])
    found = Fit(family, np.zeros(len(scores)), scratch, members)
    return Fit(family, ((found.at(budget_tokens) - scores) ** 2).sum(axis=1), scratch, members)


def fitting_families(budget_tokens: Sequence[float], scores: Floats, scratch: float) -> tuple[str, ...]:
    """The families that can continue the curve with scores [B] at the budgets [B], the best one first.

    One is left out if the variance of its residuals is greater than the best one's beyond what an F test allows.
    """
    fits = [fit(family, budget_tokens, scores[None], np.array([scratch])) for family in PARAMETERS]
    free = {family: len(budget_tokens) - parameters for family, parameters in PARAMETERS.items()}
    variance = {one.family: float(one.squared_error[0]) / free[one.family] for one in fits}
    best, *others = sorted(variance, key=lambda family: variance[family])
    most = {family: float(f_distribution.ppf(RULED_OUT, free[family], free[best])) for family in others}
    return (best, *(family for family in others if variance[family] <= most[family] * variance[best]))


def _line(budgets: Floats, scores: Floats) -> Floats:
    """The straight line through each of the curves; more tokens never lower it."""
    middle = budgets.mean()
    slope = np.maximum(scores @ (budgets - middle) / ((budgets - middle) ** 2).sum(), 0.0)
    return np.stack([np.full(len(scores), middle), slope, scores.mean(axis=1)], axis=1)


def _saturating(family: str, budgets: Floats, scores: Floats, scratch: Floats) -> Floats:
    """The best member for each of the curves.

    Middle and exponent come from a grid that is refined around the best member; for each member the best height is
    known in closed form, and held between scratch and a perfect score.
    """
    risen, room = scores - scratch[:, None], np.maximum(1.0 - scratch, 0.0)[:, None]
    middles = np.linspace(budgets[0] - 1.2, budgets[-1] + 2.5, MIDDLES)
    exponents = np.linspace(np.log(0.35), np.log(4.0), EXPONENTS)
    grid = np.array([(middle, exponent) for middle in middles for exponent in exponents])
    rows = np.arange(len(scores))
    best = grid[_errors(risen, room, _shape(family, grid, budgets))[0].argmin(axis=1)]  # [D, 2]
    step = np.array([middles[1] - middles[0], exponents[1] - exponents[0]])
    offsets = np.array([(first, second) for first in range(-2, 3) for second in range(-2, 3)])
    for _ in range(ROUNDS):
        step = step / 3
        around = best[:, None] + offsets * step  # [D, 25, 2]
        best = around[rows, _errors(risen, room, _shape(family, around, budgets))[0].argmin(axis=1)]
    height = _errors(risen, room, _shape(family, best[:, None], budgets))[1]  # [D, 1]
    return np.concatenate([best, height], axis=1)


def _shape(family: str, members: Floats, log_tokens: Floats) -> Floats:
    """Curves between 0 (scratch) and 1 (ceiling) at log_tokens [T]; members [..., 2] are (middle, log exponent)."""
    distance, power = log_tokens - members[..., 0, None], np.exp(members[..., 1, None])
    return expit(power * distance) if family == "sigmoid" else -np.expm1(-power * np.logaddexp(0.0, distance))


def _errors(risen: Floats, room: Floats, shapes: Floats) -> tuple[Floats, Floats]:
    """Squared error of each shape under its best height, up to a constant of the draw, and that height: both [D, H].

    risen [D, B], room [D, 1]; shapes [H, B] for all draws or [D, H, B] for each.
    """
    power = (shapes**2).sum(axis=-1)
    product = risen @ shapes.T if shapes.ndim == 2 else np.einsum("db,dhb->dh", risen, shapes)
    height = np.clip(product / power, 0.0, room)
    return height**2 * power - 2 * height * product, height


@dataclass(frozen=True)
class Backtest:
    """A forecast made without the last budgets, and the measured score of one of those.

    `low` and `high` (None: no interval) are where the measured score was to be expected: the forecast's own interval,
    widened by the uncertainty of the measured score.
    """

    made_at_tokens: float
    tokens: float
    forecast: float
    low: float | None
    high: float | None
    measured: float
    refused: str | None = None  # why there is no interval

    @property
    def held(self) -> bool | None:
        """Whether the measured score lies inside the forecast's interval."""
        return None if self.low is None or self.high is None else self.low <= self.measured <= self.high
