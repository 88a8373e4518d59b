"""The curve over tokens: gap closed, its monotone fit in log-tokens and the tokens at which it crosses a level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

Floats = NDArray[np.float64]
BISECTIONS = 40


def gap_closed(scores: Floats, scratch: Floats, reference: Floats) -> Floats:
    """(S(b) - S(0)) / (S(reference) - S(0)), a ratio of means: scores [..., C], scratch and reference [...].

    If a draw's gap is not positive the ratio is meaningless; its limit, plus or minus infinity, keeps the order that
    quantiles need.
    """
    risen, gap = scores - scratch[..., None], (reference - scratch)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap > 0, risen / gap, np.where(risen > 0, np.inf, -np.inf))


def isotonic(values: Floats) -> Floats:
    """Least-squares non-decreasing fit along the last axis, [..., C]: every row at once, by the min-max formula.

    fit_i = max over j <= i of min over k >= i of mean(values[j..k]) (Robertson, Wright, Dykstra 1988, theorem 1.4.4).
    """
    size = values.shape[-1]
    values = np.clip(values, -1e9, 1e9)  # a ratio of draws may be infinite; sums of infinities are undefined
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fit = np.full(values.shape, -np.inf)
    for start in range(size):
        lowest = np.full(values.shape[:-1], np.inf)
        for stop in range(size - 1, start - 1, -1):
            lowest = np.minimum(lowest, (sums[..., stop + 1] - sums[..., start]) / (stop + 1 - start))
            fit[..., stop] = np.maximum(fit[..., stop], lowest)
    return fit


@dataclass(frozen=True)
class MonotoneCurve:
    """Isotonic values joined by monotone cubic pieces (PCHIP) over log10 tokens; one curve per row of `values`."""

    log_tokens: Floats  # [C], increasing
    values: Floats  # [draws, C], non-decreasing

    @staticmethod
    def fit(budget_tokens: ArrayLike, values: Floats) -> MonotoneCurve:
        """budget_tokens [C] > 0 and increasing; values [draws, C]. Budget 0 is the floor, not a point."""
        tokens = np.asarray(budget_tokens, dtype=np.float64)
        if len(tokens) < 2 or (tokens <= 0).any() or (np.diff(tokens) <= 0).any():
            raise ValueError(f"budgets {tokens.tolist()}: two or more, all above 0 and increasing, make a curve")
        return MonotoneCurve(np.log10(tokens), isotonic(np.atleast_2d(values)))

    def at(self, tokens: ArrayLike) -> Floats:
        """Values [draws, X] at tokens [X] inside the budgets."""
        return self._cubics(self.values)(np.log10(np.asarray(tokens, dtype=np.float64)))

    def crossing(self, level: float | Floats) -> Floats:
        """log10 tokens [draws] at which each curve first reaches the level; -inf: at or before the first budget;
        +inf: not by the last."""
        levels = np.broadcast_to(np.asarray(level, dtype=np.float64), self.values.shape[:1])
        reached = self.values >= levels[:, None]
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(self.log_tokens))
        result = np.where(first == 0, -np.inf, np.inf)
        inside = np.flatnonzero((first > 0) & (first < len(self.log_tokens)))
        if len(inside):
            result[inside] = self._bisect(inside, first[inside] - 1, levels[inside])
        return result

    def _cubics(self, values: Floats) -> PchipInterpolator:
        with np.errstate(over="ignore"):  # next to a slope of almost zero the harmonic mean is zero
            return PchipInterpolator(self.log_tokens, values, axis=1)

    def _bisect(self, rows: NDArray[np.int64], pieces: NDArray[np.int64], levels: Floats) -> Floats:
        """Where the cubic piece of each row reaches its level."""
        coefficients = self._cubics(self.values[rows]).c  # [4, C-1, rows]
        cubic = coefficients[:, pieces, np.arange(len(rows))]  # [4, rows]
        low, high = np.zeros(len(rows)), np.diff(self.log_tokens)[pieces]
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            above = ((cubic[0] * middle + cubic[1]) * middle + cubic[2]) * middle + cubic[3] >= levels
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return self.log_tokens[pieces] + high
