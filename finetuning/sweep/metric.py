"""The metric that sorts a sweep's table: its name, checked before and after the first cell, and its direction."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from finetuning.run.option_checks import score_names

LOWER_IS_BETTER = ("loss", "error")
REMEDY = "correct `metric`, or leave it out: the default is the recipe's own"


def lower_is_better(metric: str) -> bool:
    """True for losses and errors, calibration errors included."""
    return metric.endswith(LOWER_IS_BETTER)


def known_metrics(recipe: str) -> list[str]:
    """Names of the scores that a recipe can give, from its scoring functions; the data decide which it gives."""
    return sorted({"loss", *score_names(recipe)})


def require_known_metric(metric: object, recipe: str, source: str) -> str | None:
    """The sweep's `metric`; ValueError with the nearest name if it is not a validation score of the recipe."""
    if metric is None:
        return None
    known = [f"eval_{name}" for name in known_metrics(recipe)]
    plain = str(metric).replace("eval_mismatched_", "eval_", 1).removesuffix("_unseen")
    if plain not in known:
        raise ValueError(
            f"{source}: metric is {metric!r}, not a validation score of {recipe}{_nearest(metric, known)}; {REMEDY}"
        )
    return str(metric)


def require_given_metric(metric: str | None, results: Collection[str], where: object) -> None:
    """ValueError if the results of a finished cell (names of all_results.json) lack this score."""
    scores = [name for name in results if name.startswith("eval_")]
    if metric is not None and metric not in scores:
        raise ValueError(f"{where}: a finished cell has no {metric}{_nearest(metric, scores)}; {REMEDY}")


def _nearest(metric: object, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(str(metric), list(known), n=1, cutoff=0.5)
    return f": did you mean {nearest[0]}?" if nearest else f": it has {', '.join(known)}"
