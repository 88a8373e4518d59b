"""How sure a model was: the part of an example's record that loss and calibration are computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import log_softmax

DIGITS = 6  # of what a record keeps


def certainty(logits: Sequence[float], gold: int) -> dict[str, float]:
    """The confidence (the probability of the likeliest class) and the log-probability of class `gold`.

    logits: one per class. Empty where they are not finite: such a model has no probabilities.
    """
    log_probabilities = log_softmax(logits)
    return finite(
        confidence=math.exp(log_probabilities.max()),
        gold_log_probability=float(log_probabilities[gold]),
    )


def finite(**figures: float | None) -> dict[str, float]:
    """The figures as a record keeps them, without those that are missing or not finite."""
    known = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
    rounded = {name: round(float(value), DIGITS) for name, value in known.items()}
    if "gold_log_probability" in rounded:  # in single precision a probability of 1 may come out as a little more
        rounded["gold_log_probability"] = min(0.0, rounded["gold_log_probability"])
    return rounded
