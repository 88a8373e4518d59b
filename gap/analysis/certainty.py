"""Loss and calibration of a task's checkpoints, with the intervals that the score has.

A measure takes the score's place in the task's table; draws and statistics are then the same functions on the same
random streams, so seeds and examples are resampled together with those of the score.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from gap.analysis.results import Measured, TaskResult
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import TaskTable
from gap.intervals.bootstrap import Resampling
from gap.intervals.interval import Estimate
from gap.intervals.variance import Floats
from gap.measures.certainty import MEASURES


@dataclass(frozen=True)
class MeasuredTable(TaskTable):
    """A task's table with another value for each of its M cells."""

    values: Floats = field(default_factory=lambda: np.zeros(0))  # [M]

    @property
    def cell_scores(self) -> Floats:
        """The values [M]."""
        return self.values


def with_certainty(result: TaskResult, study: TaskStudy, resampling: Resampling) -> TaskResult:
    """The result of a task with loss and calibration in each of its checkpoints; unchanged if the records lack them."""
    measured = measure_checkpoints(study, resampling)
    checkpoints = tuple(
        replace(checkpoint, measures=own) for checkpoint, own in zip(result.checkpoints, measured, strict=True)
    )
    return replace(result, checkpoints=checkpoints)


def measure_checkpoints(study: TaskStudy, resampling: Resampling) -> list[dict[str, Measured]]:
    """For each column of the table the measures by name; `resampling` is the one that made the study's draws."""
    measured: list[dict[str, Measured]] = [{} for _ in study.table.checkpoints]
    for name in () if study.table.examples is None else study.table.examples.certainty:
        view = measured_study(study, name, resampling)
        for column, own in enumerate(measured):
            own[name] = _measured(view, column, name)
    return measured


def measured_study(study: TaskStudy, name: str, resampling: Resampling) -> TaskStudy:
    """The study with a measure of `MEASURES` in place of the score; KeyError if the records lack it."""
    table = study.table
    assert table.examples is not None
    measure = table.examples.certainty[name]
    examples = replace(table.examples, evaluate=measure.evaluate, units=measure.units)
    own = {item.name: getattr(table, item.name) for item in fields(TaskTable)}
    view = MeasuredTable(**{**own, "metric": name, "examples": examples}, values=measure.values)
    return replace(study, table=view, draws=view.draws(resampling))


def _measured(view: TaskStudy, column: int, name: str) -> Measured:
    low, high = MEASURES[name].bounds
    difference: Estimate | None = None
    if column != view.scratch:
        difference = view.estimate(
            lambda scores: scores[:, column] - scores[:, view.scratch], [column, view.scratch], (low - high, high - low)
        )
    value = view.estimate(lambda scores: scores[:, column], [column], (low, high))
    assert view.table.examples is not None
    return Measured(value, difference, view.table.examples.certainty[name].num_examples)
