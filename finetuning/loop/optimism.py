"""Selection optimism: how much too high the best of several validation scores is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetuning.examples.recipe import EvaluationSet, Recipe

SMALLEST_HALF = 10  # examples; a metric of fewer is meaningless

HalfScores = Sequence[float]  # of both halves of a set


def split_in_halves(evaluation_set: EvaluationSet) -> tuple[list[str], list[str]]:
    """Example ids in two parts, by a hash of what they share (a paragraph) or of the id itself."""
    parts: tuple[list[str], list[str]] = ([], [])
    for name in evaluation_set.examples:
        group = evaluation_set.groups.get(name, name)
        parts[hashlib.sha256(f"half\0{group}".encode()).digest()[0] % 2].append(name)
    return parts


def half_scores(recipe: Recipe, evaluation_set: EvaluationSet, predictions: Mapping[str, Any]) -> list[float] | None:
    """The recipe's metric of each half; None when a half is too small to have one."""
    parts = split_in_halves(evaluation_set)
    if min(map(len, parts)) < SMALLEST_HALF:
        return None
    scores = []
    for names in parts:
        examples = {name: evaluation_set.examples[name] for name in names}
        scores.append(recipe.score({name: predictions[name] for name in names}, examples)[recipe.metric])
    return scores


def selection_optimism(best: float, scores: Sequence[HalfScores | None], sizes: tuple[int, int]) -> float | None:
    """`best` minus the cross-fitted score: each half is scored at the validation that the other half picks.

    A pick on one half is independent of the other, so where the validations differ by chance alone the mean of this
    is the true optimism; where they do differ, half the examples pick worse than all and it is a little too large.
    Never negative for a metric that is a mean over examples. None without two validations, or with a score missing.
    """
    if len(scores) < 2 or any(pair is None or not all(map(math.isfinite, pair)) for pair in scores):
        return None
    first, second = np.array([pair for pair in scores if pair is not None]).T
    crossed = (sizes[0] * first[second.argmax()] + sizes[1] * second[first.argmax()]) / sum(sizes)
    return 0.0 if math.isclose(best, crossed) else float(best - crossed)  # the two sums are rounded separately
