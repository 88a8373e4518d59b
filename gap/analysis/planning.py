"""How many seeds resolve what: for a finished study, and for a study of which only a pilot has run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import describe
from gap.analysis.wording import points_text
from gap.cells.plan import FEWEST_SEEDS
from gap.intervals.interval import Estimate, estimate
from gap.intervals.power import MOST_SEEDS, PilotVariance, SeedPlan, fewest, plan_seeds, power_of, smallest_difference
from gap.intervals.variance import Floats
from runtime.plurals import counted, plural

PLANNED_DIFFERENCE = 0.01
POWER = 0.8
PLAUSIBLE = (
    0.8  # confidence of the pilot's interval whose lower end is planned for: below 0 in 9 of 10 pilots of no gap
)
MOST_EXAMPLES = 100  # times as many as the pilot scored
FEW = MOST_SEEDS // 4 - 1  # seeds or runs with which so many examples should do


def plan_of(study: TaskStudy, gap: Estimate, resolved: bool, resolve: float | None) -> SeedPlan | None:
    """Seeds that resolve a difference, with these cells as the pilot; None without two fine-tuning seeds of both.

    The difference is one point between the two largest budgets unless `resolve` says otherwise; if the gap itself is
    not resolved, or there is only one budget, it is the observed difference between scratch and the reference, or
    where that has other seeds the largest budget.
    """
    budgets = study.budgets("annealed") or study.budgets("raw")
    difference, between, columns = PLANNED_DIFFERENCE, "the two largest budgets", budgets[-2:]
    if not resolved or len(columns) < 2:
        seeds = study.table.grids[study.scratch].seeds  # an outside reference always has one pretraining run
        ends = [column for column in (study.reference, *budgets[-1:]) if study.table.grids[column].seeds == seeds]
        columns = [study.scratch, *ends[:1]]
        between = " and ".join(describe(study.table.checkpoints[column]) for column in columns)
        observed = study.draws.observed
        seen = float(observed[columns[-1]] - observed[columns[0]])
        if not resolved and seen > 0:
            difference, between = seen, f"{between}, the difference that was observed,"
    if len(columns) < 2 or study.table.grids[columns[0]].seeds != study.table.grids[columns[1]].seeds:
        return None
    if len(study.table.grids[columns[0]].finetuning_seeds) < 2:
        return None
    if resolve is not None:
        difference, between = resolve, between.removesuffix(", the difference that was observed,")
    runs = len(study.table.grids[columns[0]].pretraining_seeds)
    plan = plan_seeds(pilot_variance(study, columns), difference, pretraining_seeds=runs, power=POWER)
    return replace(plan, between=between)


def pilot_variance(study: TaskStudy, columns: Sequence[int]) -> PilotVariance:
    """The variances of the second minus the first of two checkpoints with the same seeds, as the interval has them."""
    first, second = (study.table.grids[column].scores(study.table.cell_scores) for column in columns)
    weights = _difference_weights(study, columns)
    pilot = PilotVariance.of(first, second, examples=_example_variance(study, weights))
    if len(first) > 1:
        return pilot
    variance, degrees = study.draws.seed_degrees(weights)  # moderated over the task's checkpoints
    seeds = first.shape[1]
    return replace(pilot, finetuning=seeds * variance, degrees=max(1.0, degrees / (seeds - 1)))


def _variance_above_one(study: TaskStudy, columns: Sequence[int]) -> PilotVariance:
    """The variances of several runs minus the one checkpoint that they continue: more fine-tuning seeds lower the
    spread of both, but not that of the runs.
    """
    given, series = (study.table.grids[column] for column in columns)
    scores, weights = series.scores(study.table.cell_scores), np.zeros(len(study.table.checkpoints))
    weights[columns[0]] = -1.0
    of_one = len(given.finetuning_seeds) * study.draws.seed_degrees(weights)[0]
    within, _ = series.within(study.table.cell_scores)
    between = float(scores.mean(axis=1).var(ddof=1)) - within / scores.shape[1]
    weights[columns[1]] = 1.0
    return PilotVariance(max(0.0, between), within + len(scores) * of_one, _example_variance(study, weights))


def _variance_of_runs(study: TaskStudy, columns: Sequence[int]) -> PilotVariance:
    """Of a zero-shot task: runs and examples only. What is given, as a reference from outside, has no spread."""
    weights = _difference_weights(study, columns)
    own = [
        weights[column] * study.table.grids[column].scores(study.table.cell_scores).mean(axis=1)
        for column in columns
        if study.table.grids[column].has_runs
    ]
    between = float(np.sum(own, axis=0).var(ddof=1)) if own else 0.0
    return PilotVariance(between, 0.0, _example_variance(study, weights))


def _difference_weights(study: TaskStudy, columns: Sequence[int]) -> Floats:
    """Weights [C] of the second minus the first of two checkpoints."""
    weights = np.zeros(len(study.table.checkpoints))
    weights[list(columns)] = -1.0, 1.0
    return weights


def _example_variance(study: TaskStudy, weights: Floats) -> float:
    """The examples' variance as the interval has it, without their interaction with the seeds."""
    return float((study.draws.example_share(weights) * (study.draws.examples @ weights)).var())


@dataclass(frozen=True)
class PilotVerdict:
    """What a pilot of both ends of the gap says about one task.

    A zero-shot task has pretraining runs and clusters of examples where others have fine-tuning seeds and examples.
    """

    task: str
    end: str  # of the gap: the reference, or the largest budget
    confidence: float  # of the interval of `gap`
    verdict: Literal["resolved", "resolvable", "needs examples", "needs runs", "not seen"]
    gap: Estimate  # at the confidence of the pilot's look
    smallest: float  # the gap that the study's own number of seeds, or runs, resolves with a power of 80 %
    planned_difference: float | None = None  # the least gap that is plausible after the pilot
    finetuning_seeds: int | None = None
    examples: int | None = None  # to score, where those of the pilot are too few
    power: float | None = None
    floor: str = "scratch"  # what the gap begins at
    runs: int = 1  # of pretraining
    zero_shot: bool = False
    limit: float | None = None  # the gap that any number of runs would resolve with the pilot's examples, if seen
    pretraining_runs: int | None = None  # in all that a zero-shot task needs
    clusters: int | None = None  # in all that a zero-shot task needs, where those of the pilot are too few
    pilot_clusters: int | None = None
    cluster: str = "cluster"  # what one is
    hours_per_run: float | None = None  # device-hours that pretraining took, as the series records them

    def sentence(self, study_seeds: int, hours: float | None) -> str:
        """The verdict in words; `study_seeds` are those the study would run, `hours` what is left of it would cost."""
        given = ", given this pretraining run" if (self.verdict, self.runs) == ("needs runs", 1) else ""
        begin = (
            f"{self.task}: {self.end} minus {self.floor} {points_text(self.gap)} points ({self.confidence:.2%} "
            f"confidence{given})"
        )
        cost = "" if hours is None else f"; what is left of the study takes about {hours:.2f} device-hours"
        if self.verdict == "resolved":
            harm = ": pretraining lowers the score" if self.gap.is_below_zero else ""
            return f"{begin}, resolved already{harm}{cost}"
        if self.verdict == "needs runs":
            there = counted(self.runs, "pretraining run")
            return (
                f"{begin}: the spread of the runs is unknown with {there}, so nothing can be planned: give --series "
                f"{FEWEST_SEEDS} or more{self._pretraining()}{cost}"
            )
        if self.verdict == "not seen":
            return f"{begin}, no gap seen: {self.smallest_words(study_seeds)}{cost}"
        more = "" if self.examples is None else f" and {counted(self.examples, 'scored example')}"
        if self.clusters is not None and self.pilot_clusters is not None:
            further = self.clusters - self.pilot_clusters
            more = f" and {counted(self.clusters, self.cluster)} ({further:,} more than there are)"
        cost += " with the examples that there are" if more and hours is not None else ""
        if self.zero_shot and self.power is None:
            there = f"the pretraining runs that there are ({self.runs})"
            return f"{begin}, resolvable with {there}: at the study's own confidence the interval lies above 0{cost}"
        assert self.planned_difference is not None
        needed = counted(self.finetuning_seeds or 0, "seed")
        if self.zero_shot:
            needed = counted(self.pretraining_runs or 0, "pretraining run")
        return (
            f"{begin}, resolvable with {needed}{more} (a power of {POWER:.0%} for {100 * self.planned_difference:.1f} "
            f"points, the least that is plausible after this pilot){self._pretraining()}{cost}"
        )

    def smallest_words(self, study_seeds: int) -> str:
        """The gaps that could be resolved, and what cannot be done about a smaller one."""
        those = counted(self.runs, "pretraining run") if self.zero_shot else counted(study_seeds, "seed")
        words = f"{those} would resolve a gap of {100 * self.smallest:.1f} points or more"
        if self.limit is not None:
            with_these = (
                "" if self.pilot_clusters is None else f" with these {counted(self.pilot_clusters, self.cluster)}"
            )
            words += f", any number of them one of {100 * self.limit:.1f} points or more{with_these}"
        if self.planned_difference is None or (self.runs == 1 and not self.zero_shot):
            return words
        least = f"one of {100 * self.planned_difference:.1f} points is plausible"
        if self.zero_shot:
            return f"{words}; {least}, but no more pretraining runs or {plural(self.cluster)} show it"
        return f"{words}; {least}, but no more fine-tuning seeds show it: add pretraining runs"

    def _pretraining(self) -> str:
        """What the runs that are missing cost."""
        further = (self.pretraining_runs or 0) - self.runs
        if further <= 0 or self.hours_per_run is None:
            return ""
        return (
            f"; pretraining {counted(further, 'further run')} takes about {further * self.hours_per_run:.2f} "
            "device-hours, as the series records"
        )


def resolvable_gap(study: TaskStudy, gap: Estimate) -> str | None:
    """Which gap its runs, and any number of them, would resolve on a zero-shot task of which none is resolved."""
    if not study.table.zero_shot or gap.refused or not gap.includes_zero:
        return None
    return judge_pilot(study, study_seeds=1).smallest_words(study_seeds=1)


def judge_pilot(
    study: TaskStudy,
    *,
    study_seeds: int,
    confidences: Mapping[int, float] | None = None,
    more_runs: float = 0.95,
) -> PilotVerdict:
    """Whether the gap of a task can be resolved, and with how many seeds, or pretraining runs, and examples.

    `confidences` are those of the looks that will be taken, by their seeds (None: 95 %, at any number of seeds),
    `more_runs` that of a study with more pretraining runs. The plan is for the lower end of an 80 % interval: a larger
    gap was seen by luck in one pilot of ten. ValueError for cells that no interval can be made of.
    """
    columns = [study.scratch, study.reference]
    gap = study.difference(study.reference, study.scratch)
    statistic = lambda scores: scores[:, columns[1]] - scores[:, columns[0]]  # noqa: E731
    few_runs = bool(gap.refused) and study.table.zero_shot
    if few_runs:
        gap = estimate(statistic, study.draws, confidence=study.confidence)
    if gap.refused:
        raise ValueError(f"task {study.table.task}: the pilot has no interval: {gap.refused}")
    pilot, runs = _variance_and_runs(study, columns)
    looks = confidences or {}
    last = looks.get(study_seeds, 0.95)
    smallest = smallest_difference(pilot, runs, study_seeds, power=POWER, confidence=last)
    end = describe(study.table.checkpoints[study.reference])
    said = PilotVerdict(
        study.table.task, end, study.confidence, "not seen", gap, smallest, floor=study.floor, runs=runs
    )
    if study.table.zero_shot:
        said = _of_zero_shot(study, pilot, said, more_runs)
    if few_runs:
        return replace(said, verdict="needs runs", pretraining_runs=FEWEST_SEEDS)
    if not gap.includes_zero:
        return replace(said, verdict="resolved")
    least = estimate(statistic, study.draws, confidence=PLAUSIBLE).low
    if least is None or least <= 0:
        return said
    said = replace(said, planned_difference=least)
    if study.table.zero_shot:
        own = estimate(statistic, study.draws, confidence=last)
        return _plan_runs(pilot, said, more_runs, is_seen=own.low is not None and own.low > 0)
    for seeds, confidence in sorted(looks.items()) if len(looks) > 1 else []:
        power = power_of(pilot, least, runs, seeds, confidence=confidence)
        if power >= POWER:
            return replace(said, verdict="resolvable", finetuning_seeds=seeds, power=power)
    plan = plan_seeds(pilot, least, pretraining_seeds=runs, power=POWER, confidence=last)
    if plan.finetuning_seeds is not None:
        return replace(said, verdict="resolvable", finetuning_seeds=plan.finetuning_seeds, power=plan.power)
    scored = 0 if study.table.examples is None else study.table.examples.num_examples
    found = _with_more(scored, pilot, lambda larger, seeds: power_of(larger, least, runs, seeds), 3)
    if found is None:
        return said
    examples, seeds, power = found
    return replace(said, verdict="needs examples", finetuning_seeds=seeds, examples=examples, power=power)


def _variance_and_runs(study: TaskStudy, columns: Sequence[int]) -> tuple[PilotVariance, int]:
    """The variances of both ends of the gap, and the pretraining runs that they are of."""
    grids = [study.table.grids[column] for column in columns]
    if study.table.zero_shot:
        return _variance_of_runs(study, columns), max(len(grid.pretraining_seeds) for grid in grids)
    if grids[0].seeds == grids[1].seeds:
        return pilot_variance(study, columns), len(grids[0].pretraining_seeds)
    if grids[1].has_runs and not grids[0].has_runs:
        return _variance_above_one(study, columns), len(grids[1].pretraining_seeds)
    # An outside reference beside several runs: as if all runs were one, whose seeds vary as much.
    weights = _difference_weights(study, columns)
    variance, degrees = study.draws.seed_degrees(weights)
    seeds = len(grids[0].finetuning_seeds)
    own = PilotVariance(0.0, seeds * variance, _example_variance(study, weights), degrees / max(1, seeds - 1))
    return own, 1


def _of_zero_shot(study: TaskStudy, pilot: PilotVariance, said: PilotVerdict, confidence: float) -> PilotVerdict:
    """The verdict with what is planned in place of seeds."""
    limit = None
    if pilot.pretraining > 0 and pilot.examples > 0:
        endless = replace(pilot, pretraining=0.0)
        limit = min(said.smallest, smallest_difference(endless, said.runs, 1, power=POWER, confidence=confidence))
    return replace(
        said,
        zero_shot=True,
        limit=limit,
        pilot_clusters=None if study.table.examples is None else study.table.examples.num_clusters,
        cluster=study.table.cluster,
        hours_per_run=max((cost.hours for cost in study.costs if cost.hours), default=None),
    )


def _plan_runs(pilot: PilotVariance, said: PilotVerdict, confidence: float, *, is_seen: bool) -> PilotVerdict:
    """The runs, or clusters and runs, that resolve the least plausible gap; `is_seen`: the study's own look does."""
    least = said.planned_difference
    assert least is not None
    if is_seen:  # of the same cells as the pilot's
        return replace(said, verdict="resolvable", pretraining_runs=said.runs)
    reached = lambda runs: power_of(pilot, least, runs, 1, confidence=confidence)  # noqa: E731
    runs = fewest(reached, said.runs + 1, POWER)
    if runs is not None:
        return replace(said, verdict="resolvable", pretraining_runs=runs, power=reached(runs))
    found = _with_more(
        said.pilot_clusters or 0, pilot, lambda larger, runs: power_of(larger, least, runs, 1), said.runs
    )
    if found is None:
        return said
    clusters, runs, power = found
    return replace(said, verdict="needs examples", pretraining_runs=runs, clusters=clusters, power=power)


def _with_more(
    scored: int, pilot: PilotVariance, reached: Callable[[PilotVariance, int], float], first: int
) -> tuple[int, int, float] | None:
    """The fewest examples, or clusters, with which FEW seeds, or runs, suffice; how many do then, and their power.

    None if no number does. `scored` are the pilot's, `reached` the power with other examples and so many seeds.
    """
    times = 1.0
    while scored and times < MOST_EXAMPLES:
        times *= 1.25
        larger = replace(pilot, examples=pilot.examples / times)
        if reached(larger, FEW) >= POWER:
            number = fewest(partial(reached, larger), first, POWER)
            assert number is not None
            return int(np.ceil(times * scored)), number, reached(larger, number)
    return None
