"""The cells of two runs on one task, resampled together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gap.analysis.tables.task_table import TaskTable
from gap.intervals.bootstrap import Draws, Evaluate, Resampling, Weights, resample
from gap.intervals.variance import Floats


@dataclass(frozen=True)
class JointDraws:
    """Draws of all checkpoints of two tables, and the columns of each table's checkpoints in them."""

    draws: Draws
    first: list[int]
    second: list[int]


def join(first: TaskTable, second: TaskTable, resampling: Resampling) -> JointDraws:
    """Resample two tables that were scored on the same examples; a checkpoint whose cells both have is drawn once."""
    offset = len(first.cells)
    own = {tuple(cell.fingerprint for cell in first.cells_of(column)): column for column in range(len(first.grids))}
    grids, columns = list(first.grids), []
    for column, grid in enumerate(second.grids):
        shared = own.get(tuple(cell.fingerprint for cell in second.cells_of(column)))
        if shared is not None and _scores(first, shared) == _scores(second, column):
            columns.append(shared)
        else:
            columns.append(len(grids))
            grids.append(replace(grid, cells=tuple(cell + offset for cell in grid.cells), run=1))
    units = None
    if first.units is not None and second.units is not None:
        others = [values for values, place in zip(second.units, columns, strict=True) if place >= len(first.grids)]
        units = [*first.units, *others]
    draws = resample(
        grids,
        np.concatenate([first.cell_scores, second.cell_scores]),
        _evaluate(first, second),
        num_clusters=0 if first.examples is None else first.examples.num_clusters,
        resampling=resampling,
        units=units,
    )
    return JointDraws(draws, list(range(len(first.grids))), columns)


def _scores(table: TaskTable, column: int) -> list[float]:
    return [cell.score for cell in table.cells_of(column)]


def _evaluate(first: TaskTable, second: TaskTable) -> Evaluate | None:
    if first.examples is None or second.examples is None:
        return None
    evaluators = (first.examples.evaluate, second.examples.evaluate)

    def evaluate(weights: Weights) -> Floats:
        return np.concatenate([own(weights) for own in evaluators], axis=1)

    return evaluate
