"""The segments of a run: a trunk at the full rate, and a short branch per budget that decays the rate to zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.plurals import amount_text

COST_LIMIT = 1.3


@dataclass(frozen=True)
class Segment:
    """A stretch of updates from `start` to the first update at or past `end`, both in the budget's unit.

    A branch starts from the trunk's state at `start`, takes the rate to zero and leaves the trunk as it was. What is
    exported at its end is `kind` ("raw", "annealed") at `budget`, or nothing.
    """

    start: float
    end: float
    is_branch: bool
    kind: str | None = None
    budget: float | None = None
    head_only: bool = False  # only the parameters that the starting checkpoint lacks are trained

    @property
    def label(self) -> str:
        if self.head_only:
            return "head"
        return "trunk" if self.budget is None or not self.is_branch else f"branch to {amount_text(self.budget)}"


def series_budgets(largest: float, count: int, ratio: float) -> tuple[float, ...]:
    """`count` log-spaced budgets, the largest last; 0, random weights, belongs to every series and is not listed."""
    assert count > 0
    assert 1 < ratio < math.inf
    try:
        return tuple(largest / ratio ** (count - 1 - index) for index in range(count))
    except OverflowError as error:
        raise ValueError(
            f"--series of {count} budgets with --series_ratio {ratio} goes below the smallest number: lower one of them"
        ) from error


def parse_series(text: str, largest: float, ratio: float) -> tuple[float, ...]:
    """`6` -> six log-spaced budgets up to `largest`; `1e5,4e5` -> those; `0` -> the largest alone, without raw."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(
            f"--series {text!r} is neither a number nor a list of numbers: use 6, or 1e5,2e5,4e5"
        ) from error
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"--series {text}: budgets are numbers of at least 0, such as 1e5,2e5,4e5")
    if len(numbers) == 1 and numbers[0] < 1000 and numbers[0] == int(numbers[0]):
        return series_budgets(largest, max(1, int(numbers[0])), ratio)
    budgets = tuple(sorted(set(numbers) - {0.0}))
    if not budgets or budgets[-1] > largest:
        raise ValueError(
            f"--series {text} goes beyond the budget of {amount_text(largest)}: raise the budget or shorten the list"
        )
    return budgets


def plan_segments(
    budgets: Sequence[float], *, decay_fraction: float, raw: bool, head_warmup: float = 0.0
) -> tuple[Segment, ...]:
    """The segments in the order in which they are run; the first `head_warmup` of the trunk trains a fresh head alone.

    With decay share d each branch to b forks at (1 - d) b, so with ratio r the whole costs 1 + d r / (r - 1) times the
    largest budget. Without `raw` the last decay is the run's own end and nothing is trained twice.
    """
    assert 0 < decay_fraction < 1
    events = [((1 - decay_fraction) * budget, "annealed", budget) for budget in budgets]
    events += [(budget, "raw", budget) for budget in budgets] if raw else []
    position = head_warmup
    segments = [Segment(0.0, head_warmup, False, head_only=True)] if head_warmup else []
    for where, kind, budget in sorted(events):
        if kind == "raw":
            segments.append(Segment(position, where, False, "raw", budget))
        elif where > position:
            segments.append(Segment(position, where, False))
        position = where
        if kind == "annealed":
            segments.append(Segment(where, budget, True, "annealed", budget))
    return tuple(segments)


def relative_cost(segments: Sequence[Segment]) -> float:
    """The cost of all segments together, in multiples of the largest budget."""
    return sum(segment.end - segment.start for segment in segments) / max(segment.end for segment in segments)


def check_cost(segments: Sequence[Segment], *, decay_fraction: float) -> None:
    """ValueError when the series costs more than 1.3 times its largest budget."""
    cost = relative_cost(segments)
    if cost > COST_LIMIT + 1e-9:
        largest_share = (COST_LIMIT - 1) * decay_fraction / (cost - 1)
        raise ValueError(
            f"the series costs {cost:.2f} times its largest budget, more than {COST_LIMIT}: space the budgets further "
            f"apart or lower --decay_fraction to {math.floor(largest_share * 1000) / 1000}"
        )
