"""How often runs fail, with an interval, and which checkpoints have runs that differ too much for an interval of means.

With a failure chance of one in ten and three seeds, an interval around the mean covers the truth about half of the
time: no interval from a few seeds repairs that, so a report says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import beta

WIDEST_RANGE = 0.15  # of scores within one checkpoint


@dataclass(frozen=True)
class FailureRate:
    """Failed runs of all, with the exact interval of Clopper and Pearson (1934)."""

    failed: int
    runs: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.failed / self.runs:.0%} [{self.low:.0%}, {self.high:.0%}]"


def failure_rate(failed: int, runs: int, *, confidence: float = 0.95) -> FailureRate:
    """The rate of failures and its interval; ValueError for counts that cannot be."""
    if not 0 <= failed <= runs or runs < 1:
        raise ValueError(f"{failed} failed runs of {runs}: at least one run is needed, and no more than all can fail")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, failed, runs - failed + 1)) if failed else 0.0
    high = float(beta.ppf(1 - tail, failed + 1, runs - failed)) if failed < runs else 1.0
    return FailureRate(failed, runs, low, high)


def unsteady(checkpoints: Iterable[tuple[str, Sequence[float], int]]) -> list[str]:
    """For each checkpoint (name, scores 0..1, failed runs) that needs a warning, why."""
    found = []
    for name, scores, failed in checkpoints:
        reasons = [f"{failed} of {len(scores)} runs failed"] if failed else []
        width = max(scores) - min(scores)
        if width > WIDEST_RANGE:
            reasons.append(f"its runs are {100 * width:.0f} points apart")
        if reasons:
            found.append(f"{name}: {' and '.join(reasons)}")
    return found
