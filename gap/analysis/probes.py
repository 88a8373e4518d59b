"""The linear probe beside fine-tuning: differences, rank agreement and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gap.analysis.results import ProbeComparison, ProbedCheckpoint
from gap.analysis.tables.task_study import TaskStudy
from gap.cells.store import LINEAR_PROBE, Cell
from gap.intervals.interval import Estimate, quantiles
from gap.intervals.variance import Floats

FEWEST_RANKED = 3
DIGITS = 12  # of a difference of scores: what is left beyond them is rounding, and a tie


def compare_probes(study: TaskStudy) -> ProbeComparison | None:
    """Every checkpoint that has both, and the agreement over those of the series; None without probes."""
    table = study.table
    pairs = []
    for probe, checkpoint in enumerate(table.checkpoints):
        tuned = table.find(replace(checkpoint, control=None))
        if checkpoint.control == LINEAR_PROBE and tuned is not None:
            pairs.append((tuned, probe))
    if not pairs:
        return None
    inside = [pair for pair in pairs if not table.checkpoints[pair[0]].kind.startswith("reference")]
    checkpoints = tuple(
        ProbedCheckpoint(
            tuned,
            probe,
            study.difference(probe, tuned),
            _seconds(table.cells_of(tuned)),
            _seconds(table.cells_of(probe)),
        )
        for tuned, probe in pairs
    )
    return ProbeComparison(checkpoints, rank_agreement(study, inside), len(inside))


def _seconds(cells: Sequence[Cell]) -> float:
    """Mean seconds of a cell, its share of the search included (cells of earlier versions do not know it)."""
    return float(np.mean([cell.seconds + float(cell.details.get("search_seconds") or 0.0) for cell in cells]))


def rank_agreement(study: TaskStudy, pairs: Sequence[tuple[int, int]]) -> Estimate:
    """Kendall's tau-b of the mean scores in these pairs of columns, on the draws of seeds and examples of all.

    The interval is about the true order of these checkpoints, not about others. A rank statistic has no slope, so that
    the draws are those that spread at least as far as they must (`Draws.scores` without weights).
    """
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    observed = study.draws.observed[None]
    value = float(kendall(observed[:, first], observed[:, second])[0])
    if len(pairs) < FEWEST_RANKED:
        return Estimate(value, refused=f"{len(pairs)} checkpoints of the series: an order needs {FEWEST_RANKED}")
    if np.isnan(value):
        return Estimate(value, refused="all checkpoints have the same score, which has no order")
    if refused := study.table.refusal([*first, *second]):
        return Estimate(value, refused=refused)
    scores = study.draws.scores(None)
    drawn = kendall(scores[:, first], scores[:, second])
    return Estimate(value, *quantiles(np.nan_to_num(drawn), study.confidence))


def kendall(first: Floats, second: Floats) -> Floats:
    """Kendall's tau-b of each row of two arrays [D, C] -> [D]; NaN where all values of a row are equal.

    Pairs in the same order minus pairs in opposite order, over the geometric mean of the pairs that are not tied in
    either (Kendall 1945): of few points, with ties, it keeps the range from -1 to 1.
    """
    one, other = np.triu_indices(first.shape[1], k=1)
    left, right = (np.sign((scores[:, one] - scores[:, other]).round(DIGITS)) for scores in (first, second))
    untied = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (left * right).sum(axis=1) / untied
