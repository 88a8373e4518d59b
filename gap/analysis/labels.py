"""The value of pretraining in labelled examples, from the cells with fewer labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gap.analysis.results import LabelWorth
from gap.analysis.tables.task_table import START, TaskTable, describe
from gap.intervals.bootstrap import Draws
from gap.intervals.interval import quantiles, statistic_draws
from gap.intervals.variance import Floats
from gap.measures.effective_labels import effective_labels


def label_worths(table: TaskTable, draws: Draws, confidence: float) -> Iterator[LabelWorth]:
    """For every pretrained checkpoint and share of the labels: how many labels scratch needs to do as well.

    Where a series continues a checkpoint, that is asked of the checkpoint in place of scratch.
    Labels are counts if the cells record `training_examples` (of all labels), else shares of all labels.
    """
    lower = "start" if table.find(START) is not None else "scratch"
    scratch = _by_fraction(table, lower, 0)
    if len(scratch) < 2:
        return
    known = [cell.details.get("training_examples") for cell in table.cells if cell.label_fraction == 1.0]
    total = float(next((count for count in known if isinstance(count, (int, float))), 1.0))
    fractions = sorted(scratch)
    columns = [scratch[fraction] for fraction in fractions]
    counts = [fraction * total for fraction in fractions]
    pretrained = {(place.kind, place.budget_tokens) for place in table.checkpoints if place.budget_tokens != 0}
    for kind, budget in sorted(pretrained, key=lambda place: (place[0], place[1] or 0)):
        for fraction, column in sorted(_by_fraction(table, kind, budget).items()):

            def statistic(scores: Floats, column: int = column) -> Floats:
                return effective_labels(counts, scores[:, columns], scores[:, column])

            value = float(statistic(draws.observed[None])[0])
            refused = table.refusal([*columns, column])
            low, high = (
                (np.nan, np.nan) if refused else quantiles(statistic_draws(statistic, draws, confidence), confidence)
            )
            ends = [float(10**end) if np.isfinite(end) else None for end in (value, low, high)]
            yield LabelWorth(
                checkpoint=describe(table.checkpoints[column]),
                budget_tokens=budget,
                label_fraction=fraction,
                labels=fraction * total,
                worth=ends[0],
                low=ends[1],
                high=ends[2],
                state="measured" if np.isfinite(value) else ("more_than_all" if value > 0 else "fewer_than_fewest"),
                low_open=bool(low == -np.inf),
                high_open=bool(high == np.inf),
                refused=refused,
            )


def _by_fraction(table: TaskTable, kind: str, budget: int | None) -> dict[float, int]:
    """Share of the labels -> column, of one checkpoint fine-tuned with fewer and with all labels."""
    return {
        checkpoint.label_fraction: column
        for column, checkpoint in enumerate(table.checkpoints)
        if (checkpoint.kind, checkpoint.budget_tokens, checkpoint.epochs_factor) == (kind, budget, 1.0)
        and checkpoint.control in (None, "fewer_labels")
    }
