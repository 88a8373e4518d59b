"""Comparison of several runs: paired differences with their intervals, all against the first run.

Runs scored on the same examples share the examples' weights in every draw, so that difficulty for both cancels; their
seeds are drawn independently. A share of the gap is a common goal for two runs only if one outside reference ends both
gaps; without it each run has its own 100 %, however bad its largest budget is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gap.analysis.analysis import read_studies
from gap.analysis.run_folder import RunSource
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import describe
from gap.analysis.task_analysis import LEVELS
from gap.analysis.wording import tokens_text
from gap.intervals.bootstrap import Resampling
from gap.intervals.interval import Estimate, Statistic, quantiles, statistic_draws
from gap.intervals.variance import Floats
from gap.measures.curve import MonotoneCurve

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
    same_goal: bool = True  # False: tokens to a share of two different gaps, which do not rank the runs

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes equality of the two runs."""
        none = 1.0 if self.unit == "ratio" else 0.0
        low, high = self.change.low, self.change.high
        return low is not None and high is not None and not low <= none <= high


@dataclass(frozen=True)
class Comparison:
    """All differences, and what could not be compared."""

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
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
    studies = []
    for stream, run in enumerate(runs):
        resampling = Resampling(draws=draws, seed=seed, stream=stream)
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
                differences += _task_differences(first, tasks[task], runs[0].name, run.name, confidence)
                if not _same_reference(first, tasks[task]):
                    notes.append(
                        f"{task}: {run.name} and {runs[0].name} have no outside reference in common, so 100 % of "
                        "the gap is a different score in each: tokens to a share of it do not say which run is better. "
                        "Compare their scores, and their tokens to the same score."
                    )
    return Comparison(tuple(run.name for run in runs), tuple(differences), tuple(notes))


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
    return None


def _same_reference(first: TaskStudy, second: TaskStudy) -> bool:
    """Whether one and the same outside checkpoint ends both gaps: the same weights, or the very same cells."""
    first_rates, second_rates = (
        {str(cell.details.get("model", cell.fingerprint)) for cell in study.table.cells_of(study.reference)}
        for study in (first, second)
    )
    return not first.in_series and not second.in_series and first_rates == second_rates


def _task_differences(
    first: TaskStudy, second: TaskStudy, baseline: str, other: str, confidence: float
) -> list[Difference]:
    differences = []
    names = (first.table.task, baseline, other)
    shared = [checkpoint for checkpoint in first.table.checkpoints if second.table.find(checkpoint) is not None]
    for checkpoint in shared:
        columns = first.table.checkpoints.index(checkpoint), second.table.checkpoints.index(checkpoint)
        pair = _Pair(first, second, [columns[0]], [columns[1]], confidence)
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
        pair = _Pair(first, second, involved[0], involved[1], confidence)
        same = _same_reference(first, second)
        whose = "the gap" if same else "each run's own gap"
        for level in LEVELS[:3]:
            title = f"tokens to {100 * level:g} % of {whose}, {kind}"
            crossings = [_share_crossing(study, kind, level) for study in (first, second)]
            differences.append(replace(pair.ratio(names, title, *crossings), same_goal=same))
        for score in _common_scores(first, second, kind):
            title = f"tokens to a score of {100 * score:.1f} %, {kind}"
            crossings = [_score_crossing(study, kind, score) for study in (first, second)]
            differences.append(pair.ratio(names, title, *crossings))
    return differences


@dataclass(frozen=True)
class _Pair:
    """Two studies and the columns that a quantity takes from each."""

    first: TaskStudy
    second: TaskStudy
    first_columns: Sequence[int]
    second_columns: Sequence[int]
    confidence: float

    def refusal(self) -> str | None:
        return self.first.table.refusal(self.first_columns) or self.second.table.refusal(self.second_columns)

    def difference(self, names: tuple[str, str, str], title: str, first: Statistic, second: Statistic) -> Difference:
        values = [float(statistic(study.draws.observed[None])[0]) for statistic, study in self._both(first, second)]
        change = self._estimate(values[1] - values[0], lambda before, after: after - before, first, second)
        return Difference(names[0], title, "points", names[1], names[2], values[0], values[1], change)

    def ratio(self, names: tuple[str, str, str], title: str, first: Statistic, second: Statistic) -> Difference:
        """Tokens of the second over tokens of the first, from log10 tokens."""
        logs = [float(statistic(study.draws.observed[None])[0]) for statistic, study in self._both(first, second)]
        values = [float(10**log) if np.isfinite(log) else None for log in logs]
        if None in values:
            change = Estimate(float("nan"), refused="not between the smallest and largest budget in both runs")
        else:
            change = self._estimate(logs[1] - logs[0], lambda before, after: after - before, first, second)
            low, high = (None if end is None else float(10**end) for end in (change.low, change.high))
            change = Estimate(float(10**change.value), low, high, change.refused)
        return Difference(names[0], title, "ratio", names[1], names[2], values[0], values[1], change)

    def _both(self, first: Statistic, second: Statistic) -> tuple[tuple[Statistic, TaskStudy], ...]:
        return (first, self.first), (second, self.second)

    def _estimate(
        self, value: float, combine: Callable[[Floats, Floats], Floats], first: Statistic, second: Statistic
    ) -> Estimate:
        refused = self.refusal()
        if refused:
            return Estimate(value, refused=refused)
        with np.errstate(invalid="ignore"):
            draws = combine(
                *(statistic_draws(statistic, study.draws) for statistic, study in self._both(first, second))
            )
        finite = np.isfinite(draws)
        if (~finite).mean() > MOST_UNREACHED:
            return Estimate(value, refused="the crossing lies outside the budgets in too many draws")
        return Estimate(value, *quantiles(draws[finite], self.confidence))


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
