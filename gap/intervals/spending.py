"""Error spending: repeated looks at a growing series at a fixed total error."""

from __future__ import annotations

from scipy.stats import norm


def spent_error(information: float, *, error: float = 0.05) -> float:
    """Error that may be spent when this share of the looks (0 to 1) is done.

    The O'Brien-Fleming-like spending function of Lan and DeMets (1983): almost nothing early, all of it at the end.
    """
    if not 0.0 < information <= 1.0:
        raise ValueError(f"information is {information}: it is the share of planned looks done, above 0 and at most 1")
    return float(2 - 2 * norm.cdf(norm.ppf(1 - error / 2) / information**0.5))


def look_confidence(look: int, num_looks: int, *, error: float = 0.05) -> float:
    """Confidence of the interval at look 1..num_looks, so that all looks together err with at most `error`.

    Each look gets what the spending function adds. The errors of the looks are added up (the union bound), which
    needs no knowledge of how the estimates of a growing series are correlated.
    """
    if not 1 <= look <= num_looks:
        raise ValueError(f"look {look} of {num_looks}: looks are counted from 1; plan one look per budget")
    before = spent_error((look - 1) / num_looks, error=error) if look > 1 else 0.0
    return 1.0 - (spent_error(look / num_looks, error=error) - before)
