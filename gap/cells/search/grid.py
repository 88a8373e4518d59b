"""The grid of a search: its tries, and how far it goes on where the best of them is at an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

RATE_OF_WIDTH_256, RATE_STEP = 3e-4, 3.0  # the middle rate falls with the width; the grid is spaced by the step
MOST_EXTENSIONS = 10


@dataclass(frozen=True)
class Grid:
    """The tries of a search, and how far it goes on where the best of them is at an edge.

    Without learning rates the grid is not complete: `for_width` gives it those that follow the width.
    """

    learning_rates: tuple[float, ...] = (1e-4,)
    epochs: tuple[float, ...] = (3.0,)
    extensions: int = 0  # most rates below the lowest or above the highest, and most numbers of epochs above the most

    def __post_init__(self) -> None:
        if not self.epochs or min([*self.learning_rates, *self.epochs]) <= 0:
            raise ValueError(f"learning rates {self.learning_rates}, epochs {self.epochs}: one or more, above 0")
        if not 0 <= self.extensions <= MOST_EXTENSIONS:
            raise ValueError(f"{self.extensions} extensions of a grid: 0 to {MOST_EXTENSIONS} can be planned")

    @property
    def tries(self) -> list[tuple[float, float]]:
        return [(rate, epochs) for rate in self.learning_rates for epochs in self.epochs]

    @property
    def is_searched(self) -> bool:
        return len(self.tries) > 1

    def for_width(self, width: int) -> Grid:
        """The grid of a model of this hidden size: unchanged if its learning rates were given."""
        return self if self.learning_rates else replace(self, learning_rates=rates_of_width(width))

    def deciding(self) -> dict[str, Any]:
        """What a choice depends on."""
        further = {"extensions": self.extensions} if self.extensions and self.is_searched else {}
        return {"learning_rates": self.learning_rates, "epochs": self.epochs, **further}

    def beyond(self, tried: Sequence[tuple[float, float]], best: tuple[float, float]) -> tuple[float, float] | None:
        """The next (learning rate, epochs) if the best of those tried is at an edge and the bound is not reached.

        Rates come first: one step below the lowest or above the highest, with the best number of epochs; then more
        epochs with the best rate. Steps are those of the grid's last two values on that side. Fewer epochs than the
        fewest are not tried.
        """
        rate, epochs = best
        rates, lengths = sorted(self.learning_rates), sorted(self.epochs)
        if len(rates) > 1:
            known = {one for one, _ in tried}
            if rate == max(known) and sum(one > rates[-1] for one in known) < self.extensions:
                return _step(rate, rates[-1] / rates[-2]), epochs
            if rate == min(known) and sum(one < rates[0] for one in known) < self.extensions:
                return _step(rate, rates[0] / rates[1]), epochs
        if len(lengths) > 1:
            durations = {one for _, one in tried}
            if epochs == max(durations) and sum(one > lengths[-1] for one in durations) < self.extensions:
                return rate, _step(epochs, lengths[-1] / lengths[-2])
        return None

    def edges(self, tried: Sequence[tuple[float, float]], best: tuple[float, float]) -> list[str]:
        """The edges at which the best of those tried is, in words: the highest learning rate, for instance."""
        rate, epochs = best
        rates, durations = {one for one, _ in tried}, {one for _, one in tried}
        found = []
        if len(self.learning_rates) > 1 and rate == max(rates):
            found.append("highest learning rate")
        if len(self.learning_rates) > 1 and rate == min(rates):
            found.append("lowest learning rate")
        if len(self.epochs) > 1 and epochs == max(durations):
            found.append("largest number of epochs")
        return found

    def further(self, tried: Sequence[tuple[float, float]]) -> list[float]:
        """The epochs of all tries that may follow these at most, as `beyond` orders them."""
        rates, lengths = sorted(self.learning_rates), sorted(self.epochs)
        beyond = {one for one, _ in tried if not rates[0] <= one <= rates[-1]}
        longer = {one for _, one in tried if one > lengths[-1]}
        longest = max(longer, default=lengths[-1])
        more = [longest] * (self.extensions - len(beyond)) if len(rates) > 1 and not longer else []
        if len(lengths) > 1:
            for _ in range(self.extensions - len(longer)):
                longest = _step(longest, lengths[-1] / lengths[-2])
                more.append(longest)
        return more


def rates_of_width(width: int) -> tuple[float, ...]:
    """Three learning rates for a model of this hidden size; the middle one falls with 1/width."""
    middle = RATE_OF_WIDTH_256 * 256 / width
    return tuple(float(f"{rate:.2g}") for rate in (middle / RATE_STEP, middle, middle * RATE_STEP))


def _step(value: float, factor: float) -> float:
    """The value times the factor in three digits, or in full where these would be the value itself."""
    rounded = float(f"{value * factor:.3g}")
    return rounded if (rounded > value) == (factor > 1) and rounded != value else value * factor
