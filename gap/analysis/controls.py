"""The controls' results as sentences: whether they support the curve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gap.analysis.task_study import TaskStudy
from gap.analysis.task_table import describe
from gap.analysis.wording import points_text


def control_notes(study: TaskStudy) -> Iterator[str]:
    """Notes on those controls that were run: independent runs, shuffled labels, the same arguments for all."""
    yield from _independent_runs(study)
    yield from _shuffled_labels(study)
    yield from _same_arguments(study)


def _independent_runs(study: TaskStudy) -> Iterator[str]:
    """Compare an annealed branch with a run made for that budget alone: the branch is valid if both score the same."""
    for column, checkpoint in enumerate(study.table.checkpoints):
        branch = study.table.find(replace(checkpoint, control=None))
        if checkpoint.control == "independent_run" and branch is not None:
            change = study.difference(column, branch)
            verdict = "" if change.low is None else ", not resolved" if change.includes_zero else ", which is resolved"
            name = describe(study.table.checkpoints[branch])
            yield (
                f"A run trained for its budget alone scores {points_text(change)} points against the series' {name}"
                f"{verdict}: this is how well the branch replaces it (their pretraining seeds differ as well)."
            )


def _shuffled_labels(study: TaskStudy) -> Iterator[str]:
    """Compare on shuffled labels: the pretrained checkpoint must not beat scratch there."""
    shuffled = [
        column for column, checkpoint in enumerate(study.table.checkpoints) if checkpoint.control == "shuffled_labels"
    ]
    scratch = [column for column in shuffled if study.table.checkpoints[column].kind == "scratch"]
    for column in shuffled:
        if column in scratch:
            continue
        change = study.difference(column, scratch[0] if scratch else study.scratch)
        name = describe(study.table.checkpoints[column])
        if change.low is None:
            verdict = f"no verdict, since there is no interval ({change.refused})"
        elif change.low > 0:
            verdict = "more than scratch: something leaks into the scores"
        else:
            verdict = "no more than scratch, as it should be"
        yield f"Control, {name}: {points_text(change)} points against scratch; {verdict}."


def _same_arguments(study: TaskStudy) -> Iterator[str]:
    """The gap without a search for each checkpoint, as it is often reported."""
    ends = [
        study.table.find(replace(study.table.checkpoints[column], control="same_arguments"))
        for column in (study.reference, study.scratch)
    ]
    if ends[0] is not None and ends[1] is not None:
        change = study.difference(ends[0], ends[1])
        yield (
            "With the same arguments for scratch and reference, instead of a search for each, the gap is "
            f"{points_text(change)} points."
        )
