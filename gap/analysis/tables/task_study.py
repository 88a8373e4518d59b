"""One task's table and draws, with its scratch and its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gap.analysis.tables.costs import CheckpointCost, find_cost
from gap.analysis.tables.task_table import FLOOR, SCRATCH, START, CheckpointKey, TaskTable, describe
from gap.intervals.bootstrap import Draws, Resampling
from gap.intervals.holm import p_value
from gap.intervals.interval import Estimate, Statistic, estimate
from gap.intervals.variance import Floats
from gap.measures.curve import gap_closed
from gap.measures.weighted_metrics import SIGNED_METRICS


@dataclass(frozen=True)
class TaskStudy:
    """A task's table with its draws, and which columns are scratch and reference.

    The checkpoint that a series continues, else the unigram floor of a zero-shot task, takes the place of scratch, as
    the lower end of the gap.
    """

    table: TaskTable
    draws: Draws
    costs: Sequence[CheckpointCost]
    confidence: float
    scratch: int
    reference: int

    @property
    def floor(self) -> str:
        """What the gap begins at, in words."""
        if self.table.checkpoints[self.scratch].is_floor:
            return f"the {describe(FLOOR)}"
        return describe(START) if self.is_continued else "scratch"

    @property
    def is_continued(self) -> bool:
        """Whether the gap begins at the checkpoint that the series continues."""
        return self.table.checkpoints[self.scratch] == START

    @property
    def beginning(self) -> int:
        """The column of what was pretrained: the checkpoint that is continued, or random weights."""
        known = [column for column in map(self.table.find, (START, SCRATCH)) if column is not None]
        return known[0] if known else self.scratch

    @property
    def in_series(self) -> bool:
        return self.table.checkpoints[self.reference].kind != "reference"

    def estimate(
        self, statistic: Statistic, columns: Sequence[int], bounds: tuple[float, float] = (-np.inf, np.inf)
    ) -> Estimate:
        """The statistic with its interval, which is refused if one of its checkpoints has too few seeds."""
        refused = self.table.refusal(columns)
        if refused:
            return Estimate(float(statistic(self.draws.observed[None])[0]), refused=refused)
        return estimate(statistic, self.draws, confidence=self.confidence, bounds=bounds)

    def score(self, column: int) -> Estimate:
        """A checkpoint's mean score. Where every answer of every run is wrong, or right, examples do not vary.

        The end of the interval is then the rate at which so many independent examples, or clusters of them, would be
        alike with a chance of half of what the interval leaves out (Clopper and Pearson; "the rule of three").
        """
        found = self.estimate(lambda scores: scores[:, column], [column], (self.lowest, 1.0))
        cells, examples = self.table.cell_scores[list(self.table.grids[column].cells)], self.table.examples
        if found.refused or examples is None or self.lowest < 0 or not (np.all(cells == 0) or np.all(cells == 1)):
            return found
        widest = 1 - ((1 - self.confidence) / 2) ** (1 / examples.num_clusters)
        return Estimate(0.0, 0.0, widest) if cells[0] == 0 else Estimate(1.0, 1 - widest, 1.0)

    @property
    def lowest(self) -> float:
        """The lowest possible score of the metric."""
        return -1.0 if self.table.metric in SIGNED_METRICS else 0.0

    def difference(self, column: int, other: int) -> Estimate:
        widest = 1.0 - self.lowest
        return self.estimate(lambda scores: scores[:, column] - scores[:, other], [column, other], (-widest, widest))

    def p_value(self, column: int, other: int) -> float:
        """Of no difference between two checkpoints."""
        return p_value(lambda scores: scores[:, column] - scores[:, other], self.draws)

    @property
    def resolved(self) -> bool:
        """Whether there is a gap to close: the interval of reference minus scratch lies above 0."""
        gap = self.difference(self.reference, self.scratch)
        return not gap.includes_zero and gap.value > 0

    def closed(self, columns: Sequence[int]) -> Callable[[Floats], Floats]:
        """Scores [D, C] -> gap closed [D, columns]."""

        def share(scores: Floats) -> Floats:
            return gap_closed(scores[:, list(columns)], scores[:, self.scratch], scores[:, self.reference])

        return share

    def budgets(self, kind: str) -> list[int]:
        """Columns of a kind's checkpoints on the curve, by budget, without scratch."""
        return [
            column
            for column, checkpoint in enumerate(self.table.checkpoints)
            if checkpoint.kind == kind and checkpoint.on_the_curve
        ]


def _has_fresh_head(costs: Sequence[CheckpointCost]) -> bool:
    """Whether the checkpoint that the series continues came without a masked-language head."""
    start = find_cost(costs, START.kind, START.budget_tokens)
    return start is not None and start.fresh_head


def study_task(
    table: TaskTable, costs: Sequence[CheckpointCost], resampling: Resampling, confidence: float
) -> TaskStudy:
    """Find scratch and the reference (from outside, else the largest budget, annealed if available) and resample.

    In place of scratch, the checkpoint that a series continues is found, or the unigram floor of a zero-shot task.
    Raises ValueError without scratch or without a checkpoint to compare it with.
    """
    lower = [START, FLOOR if table.zero_shot else SCRATCH]
    if table.zero_shot and _has_fresh_head(costs):
        lower = [FLOOR]  # the checkpoint's own score is that of a random head
    scratch = next((column for column in map(table.find, lower) if column is not None), None)
    if scratch is None:
        end = "no unigram floor; it" if table.zero_shot else "no cells at budget 0; scratch"
        raise ValueError(f"task {table.task}: {end} is one end of the gap, run it")
    inside = [
        checkpoint
        for checkpoint in table.checkpoints
        if checkpoint.on_the_curve and checkpoint.kind in ("raw", "annealed")
    ]
    reference = table.find(CheckpointKey("reference", None))
    if reference is None:
        if not inside:
            raise ValueError(f"task {table.task}: neither a budget above 0 nor a reference; run one of them")
        annealed = [checkpoint for checkpoint in inside if checkpoint.kind == "annealed"] or inside
        reference = table.find(max(annealed, key=lambda checkpoint: checkpoint.budget_tokens or 0))
    assert reference is not None
    return TaskStudy(table, table.draws(resampling), costs, confidence, scratch, reference)
