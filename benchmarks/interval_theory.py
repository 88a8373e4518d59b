"""How often 95 % intervals for the sum of a seeds' and an examples' variance cover, by numerical integration.

    python benchmarks/interval_theory.py

A mean is normal with variance rho (of seeds, estimated with few degrees of freedom) plus 1 - rho (of examples, known).
An interval is the mean plus or minus a critical value times the estimated standard error; the critical value depends
on r, the seeds' share of the estimated variance. For each rule: the lowest and the highest coverage over all rho.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t

from gap.intervals.bootstrap import POWER

Floats = NDArray[np.float64]
Rule = Callable[[Floats], Floats]  # r -> critical value
TRUE_SHARES = np.array([0.0, 0.02, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 1.0])
POINTS = 20_000


def relative_variances(degrees: float, points: int = POINTS) -> Floats:
    """Equally likely values of an estimated variance over the true one."""
    return np.asarray(chi2.ppf((np.arange(points) + 0.5) / points, degrees) / degrees)


def summed(degrees: float, confidence: float) -> Rule:
    """Student's t of the seeds plus a normal of the examples: gap/intervals/bootstrap.py above 95 % confidence."""
    upper = (1 + confidence) / 2
    inverse = 1 / relative_variances(degrees, 4000)
    grid = np.linspace(0.0, 1.0, 101)

    def critical(share: float) -> float:
        if share == 1.0:
            return float(t.ppf(upper, degrees))
        spread = np.sqrt(share * inverse + 1 - share)
        return float(brentq(lambda value: norm.cdf(value / spread).mean() - upper, 1.0, 1000.0))

    values = np.array([critical(share) for share in grid])
    return lambda shares: np.interp(shares, grid, values)


def students_t(degrees: float, confidence: float, power: float) -> Rule:
    """Student's t of the sum with degrees / r^power degrees of freedom; a power of 2 is Welch's.

    With POWER it is the interval of gap/intervals/bootstrap.py up to 95 % confidence.
    """
    return lambda shares: np.asarray(
        t.ppf((1 + confidence) / 2, np.minimum(degrees / np.maximum(shares, 1e-9) ** power, 1e9))
    )


def coverage(rule: Rule, degrees: float, true_share: float) -> float:
    """Share of the intervals that hold the true mean."""
    seeds = true_share * relative_variances(degrees)
    total = seeds + 1 - true_share
    return float((2 * norm.cdf(rule(seeds / total) * np.sqrt(total)) - 1).mean())


def extremes(rule: Rule, degrees: float) -> tuple[float, float]:
    """Lowest and highest coverage over all true shares."""
    found = [coverage(rule, degrees, float(share)) for share in TRUE_SHARES]
    return min(found), max(found)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    print(f"| confidence | degrees of freedom | t plus normal | t, degrees / r^{POWER} | degrees / r | degrees / r^2 |")
    print("|---|---|---|---|---|---|")
    for confidence, digits in ((0.9, 1), (0.95, 1), (0.99, 2), (0.9998, 3)):
        for degrees in (2, 4):
            powers = (POWER, 1, 2)
            rules = (summed(degrees, confidence), *(students_t(degrees, confidence, power) for power in powers))
            cells = [
                f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"
                for low, high in (extremes(rule, degrees) for rule in rules)
            ]
            print(f"| {100 * confidence:g} % | {degrees} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
