"""Forecast of the score at more tokens: saturating curves fitted to the scores, extrapolated, and their backtest.

Two families rise from the scratch score, one a sigmoid in log-tokens, one a power law towards its ceiling; every draw
takes the member that fits it best, so that the interval includes the uncertainty about the shape as well. A forecast is
not a measurement: it is reported separately, next to how the same forecast without the last budgets turned out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gap.intervals.variance import Floats

MULTIPLES = (2.0, 5.0, 10.0)
FEWEST_BUDGETS = 4  # each family has three free parameters


MIDDLES, EXPONENTS = 16, 8  # of the coarse grid, both on log scales
ROUNDS = 3  # refinements of the grid around each draw's best member, by 3 each


def forecast(budget_tokens: Sequence[float], wanted_tokens: Sequence[float], scores: Floats, scratch: Floats) -> Floats:
    """Scores [D, X] expected at wanted_tokens [X] from scores [D, B] at the budgets and scratch [D].

    Middle and exponent come from a grid that is refined around the best member; for each member the best ceiling is
    known in closed form, and held between scratch and a perfect score.
    """
    if len(budget_tokens) < FEWEST_BUDGETS:
        raise ValueError(f"{len(budget_tokens)} budgets above 0: a forecast needs {FEWEST_BUDGETS}; add budgets")
    budgets = np.log(np.asarray(budget_tokens, dtype=np.float64))
    wanted = np.log(np.asarray(wanted_tokens, dtype=np.float64))
    risen, room = scores - scratch[:, None], np.maximum(1.0 - scratch, 0.0)[:, None]
    middles = np.linspace(budgets[0] - 1.2, budgets[-1] + 2.5, MIDDLES)
    exponents = np.linspace(np.log(0.35), np.log(4.0), EXPONENTS)
    members = np.array(
        [(family, middle, exponent) for family in (0.0, 1.0) for middle in middles for exponent in exponents]
    )
    rows = np.arange(len(scores))
    best = members[_errors(risen, room, _shape(members, budgets))[0].argmin(axis=1)]  # [D, 3]
    step = np.array([0.0, middles[1] - middles[0], exponents[1] - exponents[0]])
    offsets = np.array([(0, first, second) for first in range(-2, 3) for second in range(-2, 3)])
    for _ in range(ROUNDS):
        step = step / 3
        around = best[:, None] + offsets * step  # [D, 25, 3]
        best = around[rows, _errors(risen, room, _shape(around, budgets))[0].argmin(axis=1)]
    height = _errors(risen, room, _shape(best[:, None], budgets))[1]  # [D, 1]
    return scratch[:, None] + height * _shape(best, wanted)


def _shape(members: Floats, log_tokens: Floats) -> Floats:
    """Curves between 0 (scratch) and 1 (ceiling) at log_tokens [T]; members [..., 3] are (family, middle, exponent)."""
    family, middle, exponent = (members[..., number, None] for number in range(3))
    distance, power = log_tokens - middle, np.exp(exponent)
    return np.where(family == 0.0, expit(power * distance), -np.expm1(-power * np.logaddexp(0.0, distance)))


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
    """A forecast made without the last budgets, and the measured score of one of those."""

    made_at_tokens: float
    tokens: float
    forecast: float
    low: float | None
    high: float | None
    measured: float

    @property
    def held(self) -> bool | None:
        """Whether the measured score lies inside the forecast's interval."""
        return None if self.low is None or self.high is None else self.low <= self.measured <= self.high
