"""How often 95 % intervals for the sum of a seeds' and an examples' variance cover, by numerical integration.

    python benchmarks/interval_theory.py

A mean is normal with variance rho (of seeds, estimated with few degrees of freedom) plus 1 - rho (of examples, known).
An interval is the mean plus or minus a critical value times the estimated standard error; the critical value depends
on r, the seeds' share of the estimated variance. For each rule: the lowest and the highest coverage over all rho. Then
the same for runs and the fine-tuning seeds of a single run beside them, both of estimated variance, and examples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t

from gap.intervals.bootstrap import POWER, shared_degrees

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


def fewer_degrees(first: Floats, second: Floats, degrees: tuple[float, float]) -> Floats:
    """Degrees of freedom of gap/intervals/bootstrap.py from both sources' shares of the estimated variance."""
    sources = zip((first, second), degrees, strict=True)
    return np.minimum(*(shared_degrees(free, np.maximum(share, 1e-9)) for share, free in sources))


def welch(first: Floats, second: Floats, degrees: tuple[float, float]) -> Floats:
    """Welch's degrees of freedom of both, then shared with the examples."""
    seeds = first + second
    return shared_degrees(1.0, seeds) * seeds**2 / (first**2 / degrees[0] + second**2 / degrees[1])


def two_sources(rule: Callable[..., Floats], degrees: tuple[float, float], examples: float) -> tuple[float, float]:
    """Lowest and highest coverage of 95 % intervals over all ways that both share what examples leave."""
    found = []
    for share in np.arange(0.05, 1.0, 0.1) * (1 - examples):
        first = share * relative_variances(degrees[0], 100)[:, None]
        second = (1 - examples - share) * relative_variances(degrees[1], 100)
        total = first + second + examples
        critical = t.ppf(0.975, rule(first / total, second / total, degrees))
        found.append(float((2 * norm.cdf(critical * np.sqrt(total)) - 1).mean()))
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
    print("\n| degrees of the runs | of the single run | examples' share | the fewer degrees | Welch |")
    print("|---|---|---|---|---|")
    for both in ((2.0, 4.0), (2.0, 8.0), (2.0, 20.0), (4.0, 20.0)):
        for examples in (0.0, 0.3):
            ends = [two_sources(rule, both, examples) for rule in (fewer_degrees, welch)]
            shown = " | ".join(f"{100 * low:.1f} to {100 * high:.1f}" for low, high in ends)
            print(f"| {both[0]:g} | {both[1]:g} | {examples:.0%} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
