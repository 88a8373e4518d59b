"""Comparison of several runs: differences with their intervals, all against the first run.

The cells of two runs are resampled together: examples in common have the same weights in every draw, so that
difficulty for both cancels; cells that both runs share (an outside reference that was scored once) are one; pretraining
seeds of two runs have nothing in common, so their variances share Welch's degrees of freedom. What is called resolved
is so after Holm's correction over all differences of the comparison. A share of the gap is a common goal for two runs
only if both gaps have the same ends: without one outside reference each run has its own 100 %, however bad its largest
budget is, and a run that continues a checkpoint has another 0 % than one from random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gap.analysis.analysis import read_studies
from gap.analysis.tables.costs import converter, find_cost
from gap.analysis.tables.joint import JointDraws, join
from gap.analysis.tables.run_folder import RunSource
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import START, describe
from gap.analysis.task_analysis import LEVELS, kept_score
from gap.analysis.wording import tokens_text
from gap.intervals.bootstrap import Resampling
from gap.intervals.holm import holm, p_value
from gap.intervals.interval import Estimate, Statistic, quantiles, statistic_draws
from gap.intervals.variance import Floats
from gap.measures.curve import MonotoneCurve

Convert = Callable[[Floats], Floats]
SCHEMA_VERSION = 1
MOST_UNREACHED = 0.01  # share of draws without a crossing beyond which a ratio of tokens is not given


@dataclass(frozen=True)
class Difference:
    """One quantity of two runs. `change` is other minus baseline, in score or gap closed, or a ratio of tokens."""

    task: str
    quantity: str
    unit: str  # points, ratio
    baseline: str
    other: str
    baseline_value: float | None
    other_value: float | None
    change: Estimate
    same_goal: bool = True  # False: tokens to a share of gaps with other ends, which do not rank the runs
    p_value: float | None = None  # of equality, for this row alone; None without an interval
    adjusted_p_value: float | None = None  # by Holm, over all rows of the comparison
    resolved: bool = False  # whether the runs differ, by the adjusted p-value


@dataclass(frozen=True)
class Comparison:
    """All differences, and what could not be compared."""

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    confidence: float = 0.95
    schema_version: int = SCHEMA_VERSION


def compare_runs(
    runs: Sequence[RunSource],
    *,
    draws: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Compare every run with the first, on the tasks and budgets they share."""
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run: a comparison needs two or more; name the runs' output folders")
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"runs {[run.name for run in runs]} share a name: name each run once")
    resampling = Resampling(draws=draws, seed=seed)
    studies = []
    for run in runs:
        own, _ = read_studies(
            run.scores,
            series=run.series,
            prices=run.prices,
            resampling=resampling,
            confidence=confidence,
            planned=run.planned,
        )
        studies.append({study.table.task: study for study in own})
    differences: list[Difference] = []
    notes: list[str] = []
    for run, tasks in zip(runs[1:], studies[1:], strict=True):
        for task, first in studies[0].items():
            if task not in tasks:
                notes.append(f"{run.name} has no cells of {task}.")
                continue
            reason = _not_comparable(first, tasks[task])
            if reason:
                notes.append(f"{task}: {run.name} and {runs[0].name} {reason}; not compared.")
            else:
                differences += _task_differences(first, tasks[task], runs[0].name, run.name, resampling)
                if _other_tokenizers(first, tasks[task]):
                    notes.append(_tokenizer_note(task, runs[0].name, run.name, first, tasks[task]))
                if reason := _other_beginning(first, tasks[task]):
                    notes.append(_beginning_note(task, runs[0].name, run.name, first, tasks[task], reason))
                if not _same_reference(first, tasks[task]):
                    notes.append(
                        f"{task}: {run.name} and {runs[0].name} have no outside reference in common, so 100 % of "
                        "the gap is a different score in each: tokens to a share of it do not say which run is better. "
                        "Compare their scores, and their tokens to the same score."
                    )
    tested = [one.p_value for one in differences if one.p_value is not None]
    adjusted = iter(holm(tested))
    rows = []
    for one in differences:
        corrected = None if one.p_value is None else next(adjusted)
        is_resolved = corrected is not None and corrected <= 1 - confidence
        rows.append(replace(one, adjusted_p_value=corrected, resolved=is_resolved))
    if len(tested) > 1:
        notes.append(
            f"{len(tested)} differences are tested: a row is called resolved where its p-value, after Holm's "
            f"correction for that number, is at most {1 - confidence:.2g}. The intervals are of each row alone."
        )
    needed = 2 * len(tested) / (1 - confidence)
    if draws < needed:
        notes.append(f"{draws:,} draws are too few to resolve any of them: give --draws {10 * needed:.0f} or more.")
    return Comparison(tuple(run.name for run in runs), tuple(rows), tuple(notes), confidence)


def _not_comparable(first: TaskStudy, second: TaskStudy) -> str | None:
    first_table, second_table = first.table, second.table
    if first_table.metric != second_table.metric:
        return f"were scored by {second_table.metric} and {first_table.metric}"
    if (first_table.examples is None) != (second_table.examples is None):
        return "do not both have per-example predictions"
    if (
        first_table.examples is not None
        and second_table.examples is not None
        and first_table.examples.ids != second_table.examples.ids
    ):
        return "were scored on different examples"
    if (
        first_table.examples is not None
        and second_table.examples is not None
        and first_table.examples.num_clusters != second_table.examples.num_clusters
    ):
        return "group their examples differently"
    return None


def _tokenizer_note(task: str, baseline: str, other: str, first: TaskStudy, second: TaskStudy) -> str:
    begin = f"{task}: {other} and {baseline} have different tokenizers, so equal tokens are not equal text"
    if any(_amount(first, second, kind) for kind in ("annealed", "raw")):
        return f"{begin}; what it takes to the same score is compared in bytes of text."
    return (
        f"{begin}, and their series, of an earlier version, do not say how many bytes of text a budget is: what it "
        "takes to the same score is not compared."
    )


def _same_reference(first: TaskStudy, second: TaskStudy) -> bool:
    """Whether one and the same outside checkpoint ends both gaps: the same weights, or the very same cells."""
    first_rates, second_rates = (
        {str(cell.details.get("model", cell.fingerprint)) for cell in study.table.cells_of(study.reference)}
        for study in (first, second)
    )
    return not first.in_series and not second.in_series and first_rates == second_rates


def _other_beginning(first: TaskStudy, second: TaskStudy) -> str | None:
    """Why two gaps do not begin at the same end, as what the second and the first do; None if they do."""
    if first.floor != second.floor:
        return f"begin their gaps at {second.floor} and {first.floor}"
    if first.is_continued and not _same_start(first, second):
        return "continue two checkpoints"
    if first.table.checkpoints[first.scratch].is_floor:
        floors = [{round(cell.score, 12) for cell in study.table.cells_of(study.scratch)} for study in (first, second)]
        if _other_tokenizers(first, second) or floors[0] != floors[1]:
            return "have the unigram floors of two corpora or tokenizers"
    return None


def _same_start(first: TaskStudy, second: TaskStudy) -> bool:
    """Whether two series continue the same weights; a head that was drawn for each run is none of them."""
    costs = [find_cost(study.costs, START.kind, START.budget_tokens) for study in (first, second)]
    digests = [None if cost is None else cost.started_digest for cost in costs]
    if None not in digests:
        return digests[0] == digests[1]
    models = [
        {str(cell.details.get("model", cell.fingerprint)) for cell in study.table.cells_of(study.scratch)}
        for study in (first, second)
    ]
    return models[0] == models[1]


def _beginning_note(task: str, baseline: str, other: str, first: TaskStudy, second: TaskStudy, reason: str) -> str:
    note = (
        f"{task}: {other} and {baseline} {reason}, so 0 % of the gap is a different score in each: tokens to a share "
        "of it do not say which run is better."
    )
    if first.is_continued or second.is_continued:
        note += " The tokens of a run that continues a checkpoint do not hold those that the checkpoint took."
    return note


def _task_differences(
    first: TaskStudy, second: TaskStudy, baseline: str, other: str, resampling: Resampling
) -> list[Difference]:
    differences = []
    joint = join(first.table, second.table, resampling)
    names = (first.table.task, baseline, other)
    shared = [checkpoint for checkpoint in first.table.checkpoints if second.table.find(checkpoint) is not None]
    for checkpoint in shared:
        if checkpoint.is_floor:
            continue  # counted in a corpus: nothing that a run has learnt
        columns = first.table.checkpoints.index(checkpoint), second.table.checkpoints.index(checkpoint)
        if joint.first[columns[0]] == joint.second[columns[1]]:
            continue  # one and the same cells: nothing to compare
        pair = _Pair(first, second, joint, [columns[0]], [columns[1]])
        title = f"score, {describe(checkpoint)}"
        differences.append(pair.difference(names, title, *(_column(column) for column in columns)))
    ends = [first.resolved, second.resolved]
    for kind in ("annealed", "raw"):
        budgets = [study.budgets(kind) for study in (first, second)]
        if not all(ends) or min(map(len, budgets)) < 2:
            continue
        involved = [
            [*columns, study.scratch, study.reference] for columns, study in zip(budgets, (first, second), strict=True)
        ]
        amount = _amount(first, second, kind)
        if amount is None:
            continue
        unit, *converters = amount
        pair = _Pair(first, second, joint, involved[0], involved[1])
        same = _same_reference(first, second) and _other_beginning(first, second) is None
        whose = "the gap" if same else "each run's own gap"
        kept = [kept_score(study, columns) for study, columns in zip((first, second), budgets, strict=True)]
        for level in LEVELS[:3]:
            title = f"{unit} to {100 * level:g} % of {whose}, {kind}"
            crossings = [_share_crossing(study, kind, level) for study in (first, second)]
            wanted = [_score_at(study, level) for study in (first, second)]
            lost = any(score > low for score, low in zip(wanted, kept, strict=True))
            row = pair.ratio(names, title, *map(_converted, crossings, converters), lost=lost)
            differences.append(replace(row, same_goal=same))
        for score in _common_scores(first, second, kind):
            title = f"{unit} to a score of {100 * score:.1f} %, {kind}"
            crossings = [_score_crossing(study, kind, score) for study in (first, second)]
            lost = score > min(kept)
            differences.append(pair.ratio(names, title, *map(_converted, crossings, converters), lost=lost))
    return differences


def _score_at(study: TaskStudy, level: float) -> float:
    """The score that closes this share of a run's gap."""
    scratch, reference = (float(study.draws.observed[column]) for column in (study.scratch, study.reference))
    return scratch + level * (reference - scratch)


def _tokenizer(study: TaskStudy) -> str | None:
    """The fingerprint of the tokenizer that the series' budgets are counted in; None: unknown."""
    return next((cost.tokenizer for cost in study.costs if cost.tokenizer is not None), None)


def _other_tokenizers(first: TaskStudy, second: TaskStudy) -> bool:
    """Whether a token of one run is known to be another amount of text than one of the other."""
    names = [_tokenizer(study) for study in (first, second)]
    return None not in names and names[0] != names[1]


def _amount(first: TaskStudy, second: TaskStudy, kind: str) -> tuple[str, Convert, Convert] | None:
    """The unit that the budgets of both runs are compared in, and what makes it of tokens; None if there is none.

    Tokens of two tokenizers have no common axis: bytes of text are one.
    """
    if not _other_tokenizers(first, second):
        return "tokens", _same, _same
    converters = [converter(study.costs, kind, "text_bytes") for study in (first, second)]
    if converters[0] is None or converters[1] is None:
        return None
    return "bytes of text", converters[0], converters[1]


def _same(tokens: Floats) -> Floats:
    return tokens


def _converted(crossing: Statistic, convert: Convert) -> Statistic:
    """A crossing in log10 tokens as one in the log10 of another unit."""

    def statistic(scores: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.log10(convert(10.0 ** crossing(scores)))

    return crossing if convert is _same else statistic


@dataclass(frozen=True)
class _Pair:
    """Two studies, their joint draws, and the columns that a quantity takes from each."""

    first: TaskStudy
    second: TaskStudy
    joint: JointDraws
    first_columns: Sequence[int]
    second_columns: Sequence[int]

    def difference(self, names: tuple[str, str, str], title: str, first: Statistic, second: Statistic) -> Difference:
        values = self._values(first, second)
        return self._row(names, title, "points", values, values[1] - values[0], first, second)

    def ratio(
        self, names: tuple[str, str, str], title: str, first: Statistic, second: Statistic, *, lost: bool
    ) -> Difference:
        """Tokens (or bytes) of the second over the first's, from their log10; none for a score that is `lost`."""
        logs = self._values(first, second)
        values = [float(10**log) if np.isfinite(log) else None for log in logs]
        if None in values or lost:
            why = "the score falls again" if lost else "not between the smallest and largest budget in both runs"
            change = Estimate(float("nan"), refused=why)
            return Difference(names[0], title, "ratio", names[1], names[2], values[0], values[1], change)
        row = self._row(names, title, "ratio", values, logs[1] - logs[0], first, second)
        low, high = (None if end is None else float(10**end) for end in (row.change.low, row.change.high))
        return replace(row, change=Estimate(float(10**row.change.value), low, high, row.change.refused))

    def _values(self, first: Statistic, second: Statistic) -> list[float]:
        pairs = ((first, self.first), (second, self.second))
        return [float(statistic(study.draws.observed[None])[0]) for statistic, study in pairs]

    def _row(
        self,
        names: tuple[str, str, str],
        title: str,
        unit: str,
        values: Sequence[float | None],
        value: float,
        first: Statistic,
        second: Statistic,
    ) -> Difference:
        change, tested = self._estimate(value, first, second)
        return Difference(names[0], title, unit, names[1], names[2], values[0], values[1], change, p_value=tested)

    def _estimate(self, value: float, first: Statistic, second: Statistic) -> tuple[Estimate, float | None]:
        """The second minus the first, and its p-value."""
        refused = self.first.table.refusal(self.first_columns) or self.second.table.refusal(self.second_columns)
        if refused:
            return Estimate(value, refused=refused), None

        def change(scores: Floats) -> Floats:
            with np.errstate(invalid="ignore"):
                return second(scores[:, self.joint.second]) - first(scores[:, self.joint.first])

        draws = statistic_draws(change, self.joint.draws, self.first.confidence)
        finite = np.isfinite(draws)
        if (~finite).mean() > MOST_UNREACHED:
            return Estimate(value, refused="the crossing lies outside the budgets in too many draws"), None
        return Estimate(value, *quantiles(draws[finite], self.first.confidence)), p_value(change, self.joint.draws)


def _column(column: int) -> Statistic:
    return lambda scores: scores[:, column]


def _share_crossing(study: TaskStudy, kind: str, level: float) -> Statistic:
    columns = study.budgets(kind)
    share = study.closed(columns)
    return lambda scores: MonotoneCurve.fit(_tokens(study, columns), share(scores)).crossing(level)


def _score_crossing(study: TaskStudy, kind: str, score: float) -> Statistic:
    columns = study.budgets(kind)
    return lambda scores: MonotoneCurve.fit(_tokens(study, columns), scores[:, columns]).crossing(score)


def _tokens(study: TaskStudy, columns: Sequence[int]) -> list[float]:
    return [float(study.table.checkpoints[column].budget_tokens or 0) for column in columns]


def _common_scores(first: TaskStudy, second: TaskStudy, kind: str) -> list[float]:
    """Scores that both runs have reached: 50, 90 and 95 % of the way from the better scratch to the worse best budget.

    They are fixed numbers, the same in every draw: the question is how many tokens each run needs to get there.
    """
    floor = max(float(study.draws.observed[study.scratch]) for study in (first, second))
    top = min(float(study.draws.observed[study.budgets(kind)].max()) for study in (first, second))
    return [floor + level * (top - floor) for level in LEVELS[:3]] if top > floor else []


def difference_text(difference: Difference) -> str:
    """The change with its interval: points, or how many times as many tokens."""
    if difference.unit == "ratio":
        value = "" if not np.isfinite(difference.change.value) else f"{difference.change.value:.2f}x"
        ends = "" if difference.change.low is None else f" [{difference.change.low:.2f}, {difference.change.high:.2f}]"
    else:
        value = f"{100 * difference.change.value:+.1f}"
        ends = (
            ""
            if difference.change.low is None or difference.change.high is None
            else f" [{100 * difference.change.low:+.1f}, {100 * difference.change.high:+.1f}]"
        )
    return f"{value}{ends}{f' ({difference.change.refused})' if difference.change.refused else ''}".strip()


def value_text(value: float | None, unit: str) -> str:
    """A run's own value: percent or tokens."""
    if value is None:
        return "outside the budgets"
    return tokens_text(value) if unit == "ratio" else f"{100 * value:.1f} %"
