"""All tasks together: the mean gap closed and the mean score over tasks.

The intervals come from the tasks' joint draws: seeds with the same number move all tasks together (a lucky
pretraining run is lucky on every task), examples are drawn for each task separately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gap.analysis.results import CheckpointResult, MacroAverage
from gap.analysis.tables.costs import find_cost
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import CheckpointKey, describe
from gap.intervals.bootstrap import Draws
from gap.intervals.interval import Estimate, Statistic, quantiles, statistic_draws

KINDS = ("annealed", "raw")


def macro_average(studies: Sequence[TaskStudy]) -> MacroAverage | None:
    """The average over the tasks that have a curve (over all, if fewer than two have one), at their common budgets.

    They are of one kind: scores without fine-tuning, or of gaps that begin elsewhere, say something else. None below
    two such tasks, and if there is neither a common metric nor two resolved gaps to average.
    """
    curves = [study for study in studies if any(len(study.budgets(kind)) > 1 for kind in KINDS)]
    members = _largest_group(curves)
    candidates = curves if len(members) > 1 else studies
    members = _largest_group(candidates)
    if len(members) < 2:
        return None
    metrics = {study.table.metric for study in members}
    resolved = [study for study in members if study.resolved]
    shared = [
        checkpoint
        for checkpoint in members[0].table.checkpoints
        if checkpoint.on_the_curve and all(study.table.find(checkpoint) is not None for study in members)
    ]
    points = [_point(checkpoint, members if len(metrics) == 1 else [], resolved, members) for checkpoint in shared]
    shown = [
        point
        for point in points
        if np.isfinite(point.score.value) or (point.gap_closed and not point.gap_closed.refused)
    ]
    if not shown:
        return None
    others = [study for study in members if study not in resolved]
    harmed = [study.table.task for study in others if study.difference(study.reference, study.scratch).is_below_zero]
    unresolved = [study.table.task for study in others if study.table.task not in harmed]
    notes = []
    if apart := [study for study in candidates if study not in members]:
        how = "without fine-tuning " if members[0].table.zero_shot else "with fine-tuning "
        notes.append(
            f"The average is over tasks that are scored {how}and whose gap begins at {members[0].floor}: without "
            f"{', '.join(study.table.task for study in apart)}."
        )
    for without, why in ((unresolved, "no gap is resolved there"), (harmed, "pretraining lowers the score there")):
        if without:
            notes.append(f"The gap closed is averaged without {', '.join(without)}: {why}.")
    if len(metrics) > 1:
        notes.append(f"The tasks are scored by {', '.join(sorted(metrics))}: only the gap closed is averaged.")
    names = tuple(study.table.task for study in members)
    return MacroAverage(names, metrics.pop() if len(metrics) == 1 else None, tuple(points), tuple(notes))


def _largest_group(studies: Sequence[TaskStudy]) -> list[TaskStudy]:
    """The most tasks that are scored in one way and whose gaps begin at one end; of equally many the fine-tuned."""
    groups: dict[tuple[bool, str], list[TaskStudy]] = {}
    for study in studies:
        groups.setdefault((study.table.zero_shot, study.floor), []).append(study)
    return max(groups.values(), key=lambda own: (len(own), not own[0].table.zero_shot), default=[])


def _point(
    checkpoint: CheckpointKey, scored: Sequence[TaskStudy], resolved: Sequence[TaskStudy], members: Sequence[TaskStudy]
) -> CheckpointResult:
    """One checkpoint's averages; the score is NaN if the tasks differ in metric."""
    score, closed = Estimate(float("nan"), refused="the tasks differ in metric"), None
    if scored:
        score = _mean(scored, checkpoint, lambda study, column: lambda scores: scores[:, column])
    if len(resolved) > 1:
        ends = [study.table.find(checkpoint) for study in resolved]
        if all(end in (study.scratch, study.reference) for end, study in zip(ends, resolved, strict=True)):
            closed = Estimate(float(ends[0] == resolved[0].reference), refused="by definition")
        else:
            closed = _mean(
                resolved, checkpoint, lambda study, column: lambda scores: study.closed([column])(scores)[:, 0]
            )
    cells = [cell for study in members for cell in study.table.cells_of(_column(study, checkpoint))]
    grids = [study.table.grids[_column(study, checkpoint)] for study in members]
    layouts = {" x ".join(str(len(seeds)) for seeds in grid.seeds) for grid in grids}
    return CheckpointResult(
        name=describe(checkpoint),
        kind=checkpoint.kind,
        budget_tokens=checkpoint.budget_tokens,
        control=None,
        label_fraction=1.0,
        epochs_factor=1.0,
        layout=" or ".join(sorted(layouts)),
        score=score,
        median=float("nan"),
        failed_runs=sum(cell.failed for cell in cells),
        runs=len(cells),
        gap_closed=closed,
        metrics={},
        cost=find_cost(members[0].costs, checkpoint.kind, checkpoint.budget_tokens),
        score_without_contaminated=None,
        dots=(),
    )


def _mean(
    studies: Sequence[TaskStudy], checkpoint: CheckpointKey, statistic_of: Callable[[TaskStudy, int], Statistic]
) -> Estimate:
    """The mean over tasks of one statistic per task."""
    statistics = [statistic_of(study, _column(study, checkpoint)) for study in studies]
    pairs = list(zip(statistics, studies, strict=True))
    value = float(np.mean([statistic(study.draws.observed[None])[0] for statistic, study in pairs]))
    refused = [study.table.refusal([_column(study, checkpoint), study.scratch, study.reference]) for study in studies]
    if any(refused):
        return Estimate(value, refused=next(reason for reason in refused if reason))
    low, high = mean_interval([(statistic, study.draws) for statistic, study in pairs], studies[0].confidence)
    if not np.isfinite(low) or not np.isfinite(high):
        return Estimate(value, refused="the interval is unbounded at this size: add seeds")
    return Estimate(value, low, high)


def mean_interval(statistics: Sequence[tuple[Statistic, Draws]], confidence: float) -> tuple[float, float]:
    """Ends of the interval of the mean of one statistic per task, whose draws belong together.

    A draw that is infinite both ways counts as outside at either end.
    """
    with np.errstate(invalid="ignore"):
        draws = np.mean([statistic_draws(statistic, own, confidence) for statistic, own in statistics], axis=0)
    low = quantiles(np.where(np.isnan(draws), -np.inf, draws), confidence)[0]
    return low, quantiles(np.where(np.isnan(draws), np.inf, draws), confidence)[1]


def _column(study: TaskStudy, checkpoint: CheckpointKey) -> int:
    column = study.table.find(checkpoint)
    assert column is not None
    return column
