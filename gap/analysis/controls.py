"""The controls' results: sentences on whether they support the curve, and the linear probe beside fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import norm, t

from gap.analysis.results import ProbeComparison, ProbedCheckpoint
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import describe
from gap.analysis.wording import percent_text, points_text
from gap.cells.plan import SELF_PRETRAINED
from gap.cells.store import LINEAR_PROBE, Cell
from gap.intervals.interval import Estimate, quantiles
from gap.intervals.variance import Floats

FEWEST_RANKED = 3
ONE_RUN = "with one pretraining run the spread of its seeds is unknown"
DIGITS = 12  # of a difference of scores: what is left beyond them is rounding, and a tie


def control_notes(study: TaskStudy) -> Iterator[str]:
    """Notes on those controls that were run: own texts, independent runs, shuffled labels, the same arguments."""
    yield from _self_pretrained(study)
    yield from _independent_runs(study)
    yield from _shuffled_labels(study)
    yield from _same_arguments(study)


def _self_pretrained(study: TaskStudy) -> Iterator[str]:
    """Compare pretraining on the task's own training texts with the series at the nearest budget.

    Krishna et al. 2023 (arXiv:2209.14389) find that it rivals pretraining on other text: then the gain comes from the
    objective more than from the corpus.
    """
    budgets = study.budgets("annealed")
    for column, checkpoint in enumerate(study.table.checkpoints):
        if checkpoint.control != SELF_PRETRAINED or not budgets:
            continue
        tokens = math.log(checkpoint.budget_tokens or 1)
        near = min(budgets, key=lambda one: abs(math.log(study.table.checkpoints[one].budget_tokens or 1) - tokens))
        share = ""
        if study.resolved:
            share = f"closes {percent_text(_closed(study, column), digits=0)} of the gap and "
        change = _between_runs(study, column, near)
        if change.refused:
            verdict = f"no verdict: {change.refused}"
        elif change.includes_zero:
            verdict = "not resolved: the corpus is not shown to bring more than the objective on the task's own texts"
        elif change.is_below_zero:
            verdict = "which is resolved: the corpus brings what the task's own texts do not"
        else:
            verdict = "which is resolved: the task's own texts bring more than the corpus at this budget"
        yield (
            f"Pretraining on the task's own training texts alone ({checkpoint.budget_tokens:,} tokens) {share}scores "
            f"{points_text(change)} points against the series' {describe(study.table.checkpoints[near])}, {verdict}."
        )


def _closed(study: TaskStudy, column: int) -> Estimate:
    """The share of the gap that a control closes; no interval for one run, whose seeds vary by an unknown amount."""
    share, columns = study.closed([column]), [column, study.scratch, study.reference]
    found = study.estimate(lambda scores: share(scores)[:, 0], columns)
    return found if study.table.grids[column].has_runs else Estimate(found.value, refused=ONE_RUN)


def _between_runs(study: TaskStudy, column: int, other: int) -> Estimate:
    """The difference of two columns of other pretraining runs: one run alone varies as the runs beside it do."""
    grids = study.table.grids
    if grids[column].has_runs and grids[other].has_runs:
        return study.difference(column, other)
    if grids[column].has_runs:
        turned = _against_branch(study, other, column)
        low, high = (None if end is None else -end for end in (turned.high, turned.low))
        return Estimate(-turned.value, low, high, turned.refused)
    return _against_branch(study, column, other)


def _independent_runs(study: TaskStudy) -> Iterator[str]:
    """Compare an annealed branch with a run made for that budget alone: the branch is valid if both score the same."""
    for column, checkpoint in enumerate(study.table.checkpoints):
        branch = study.table.find(replace(checkpoint, control=None))
        if checkpoint.control == "independent_run" and branch is not None:
            change = _against_branch(study, column, branch)
            name = describe(study.table.checkpoints[branch])
            verdict = "not resolved" if change.includes_zero else "which is resolved"
            if change.refused:
                verdict = f"no verdict: {change.refused}"
            yield (
                f"A run trained for its budget alone scores {points_text(change)} points against the series' {name}, "
                f"{verdict}: this is how well the branch replaces it (their pretraining seeds differ as well)."
            )


def _against_branch(study: TaskStudy, column: int, branch: int) -> Estimate:
    """A run with a new pretraining seed minus the branch, where the new seed varies as the branch's own seeds do.

    Its P runs' means have the variance s^2, one more run and their mean differ by s^2 (1 + 1/P), by Student's t with
    P - 1 degrees of freedom; the examples, which both share, are added.
    """
    table, observed = study.table, study.draws.observed
    value = float(observed[column] - observed[branch])
    means = table.grids[branch].scores(table.cell_scores).mean(axis=1)
    runs = len(means)
    if runs < 2:
        return Estimate(value, refused=ONE_RUN)
    tail = (1 + study.confidence) / 2
    examples = float((study.draws.examples[:, column] - study.draws.examples[:, branch]).std())
    seeds = float(means.std(ddof=1)) * math.sqrt(1 + 1 / runs)
    half = math.hypot(float(t.ppf(tail, runs - 1)) * seeds, float(norm.ppf(tail)) * examples)
    return Estimate(value, value - half, value + half)


def _shuffled_labels(study: TaskStudy) -> Iterator[str]:
    """Compare on shuffled labels: the pretrained checkpoint must not beat scratch there."""
    shuffled = [
        column for column, checkpoint in enumerate(study.table.checkpoints) if checkpoint.control == "shuffled_labels"
    ]
    scratch = [column for column in shuffled if study.table.checkpoints[column].budget_tokens == 0]
    for column in shuffled:
        if column in scratch:
            continue
        change = study.difference(column, scratch[0] if scratch else study.scratch)
        name = describe(study.table.checkpoints[column])
        if change.low is None or change.high is None:
            verdict = f"no verdict, since there is no interval ({change.refused})"
        elif change.low > 0:
            verdict = f"more than {study.floor}: something leaks into the scores"
        else:
            most = f"{100 * max(change.high, 0.0):.1f}"
            verdict = (
                f"not resolved from {study.floor}, as it should be (a leak of up to {most} points would not be seen)"
            )
        yield f"Control, {name}: {points_text(change)} points against {study.floor}; {verdict}."


def _same_arguments(study: TaskStudy) -> Iterator[str]:
    """The gap without a search for each checkpoint, as it is often reported: scratch with the reference's choice."""
    scratch = study.table.find(replace(study.table.checkpoints[study.scratch], control="same_arguments"))
    if scratch is not None:
        yield (
            f"With the same arguments for {study.floor} and reference (the reference's choice), instead of a search "
            f"for each, the gap is {points_text(study.difference(study.reference, scratch))} points."
        )


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
