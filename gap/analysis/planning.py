"""How many seeds resolve what: for a finished study, and for a study of which only a pilot has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import describe
from gap.analysis.wording import points_text
from gap.intervals.interval import Estimate, estimate
from gap.intervals.power import MOST_SEEDS, PilotVariance, SeedPlan, plan_seeds, power_of, smallest_difference
from runtime.plurals import counted

PLANNED_DIFFERENCE = 0.01
POWER = 0.8
PLAUSIBLE = (
    0.8  # confidence of the pilot's interval whose lower end is planned for: below 0 in 9 of 10 pilots of no gap
)
MOST_EXAMPLES = 100  # times as many as the pilot scored


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
    weights = np.zeros(len(study.table.checkpoints))
    weights[list(columns)] = -1.0, 1.0
    shifts = study.draws.examples @ weights
    pilot = PilotVariance.of(first, second, examples=float((study.draws.example_share(weights) * shifts).var()))
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
    shifts = study.draws.example_share(weights) * (study.draws.examples @ weights)
    return PilotVariance(max(0.0, between), within + len(scores) * of_one, float(shifts.var()))


@dataclass(frozen=True)
class PilotVerdict:
    """What a pilot of scratch and the end of the gap says about one task."""

    task: str
    end: str  # of the gap: the reference, or the largest budget
    confidence: float  # of the interval of `gap`
    verdict: Literal["resolved", "resolvable", "needs examples", "not seen"]
    gap: Estimate  # at the confidence of the pilot's look
    smallest: float  # the gap that the study's own number of seeds resolves with a power of 80 %
    planned_difference: float | None = None  # the least gap that is plausible after the pilot
    finetuning_seeds: int | None = None
    examples: int | None = None  # to score, where those of the pilot are too few
    power: float | None = None
    floor: str = "scratch"  # what the gap begins at
    runs: int = 1  # of pretraining

    def sentence(self, study_seeds: int, hours: float | None) -> str:
        """The verdict in words; `study_seeds` are those the study would run, `hours` what is left of it would cost."""
        begin = (
            f"{self.task}: {self.end} minus {self.floor} {points_text(self.gap)} points ({self.confidence:.2%} "
            "confidence)"
        )
        cost = "" if hours is None else f"; what is left of the study takes about {hours:.2f} device-hours"
        if self.verdict == "resolved":
            harm = ": pretraining lowers the score" if self.gap.is_below_zero else ""
            return f"{begin}, resolved already{harm}{cost}"
        if self.verdict == "not seen":
            remedy = ""
            if self.planned_difference is not None and self.runs > 1:
                least = f"{100 * self.planned_difference:.1f} points"
                remedy = f"; one of {least} is plausible, but no more fine-tuning seeds show it: add pretraining runs"
            return (
                f"{begin}, no gap seen: {counted(study_seeds, 'seed')} would resolve one of "
                f"{100 * self.smallest:.1f} points or more{remedy}{cost}"
            )
        examples = "" if self.examples is None else f" and {counted(self.examples, 'scored example')}"
        cost += "" if self.examples is None or hours is None else " with the examples that there are"
        assert self.planned_difference is not None
        return (
            f"{begin}, resolvable with {counted(self.finetuning_seeds or 0, 'seed')}{examples} (a power of {POWER:.0%} "
            f"for {100 * self.planned_difference:.1f} points, the least that is plausible after this pilot){cost}"
        )


def judge_pilot(study: TaskStudy, *, study_seeds: int, confidences: Mapping[int, float] | None = None) -> PilotVerdict:
    """Whether the gap of a task can be resolved, and with how many seeds and examples.

    `confidences` are those of the looks that will be taken, by their seeds (None: 95 %, at any number of seeds).
    The plan is for the lower end of an 80 % interval: a larger gap was seen by luck in one pilot of ten. ValueError
    for cells that no interval can be made of.
    """
    columns = [study.scratch, study.reference]
    gap = study.difference(study.reference, study.scratch)
    if gap.refused:
        raise ValueError(f"task {study.table.task}: the pilot has no interval: {gap.refused}")
    grids = [study.table.grids[column] for column in columns]
    if grids[0].seeds == grids[1].seeds:
        pilot, runs = pilot_variance(study, columns), len(grids[0].pretraining_seeds)
    elif grids[1].has_runs and not grids[0].has_runs:
        pilot, runs = _variance_above_one(study, columns), len(grids[1].pretraining_seeds)
    else:  # an outside reference beside several runs: as if all runs were one, whose seeds vary as much
        weights = np.zeros(len(study.table.checkpoints))
        weights[columns] = -1.0, 1.0
        variance, degrees = study.draws.seed_degrees(weights)
        shifts = study.draws.example_share(weights) * (study.draws.examples @ weights)
        seeds = len(grids[0].finetuning_seeds)
        pilot, runs = PilotVariance(0.0, seeds * variance, float(shifts.var()), degrees / max(1, seeds - 1)), 1
    looks = confidences or {}
    last = looks.get(study_seeds, 0.95)
    smallest = smallest_difference(pilot, runs, study_seeds, power=POWER, confidence=last)
    end = describe(study.table.checkpoints[study.reference])
    said = partial(PilotVerdict, study.table.task, end, study.confidence, floor=study.floor, runs=runs)
    if not gap.includes_zero:
        return said("resolved", gap, smallest)
    statistic = lambda scores: scores[:, columns[1]] - scores[:, columns[0]]  # noqa: E731
    least = estimate(statistic, study.draws, confidence=PLAUSIBLE).low
    if least is None or least <= 0:
        return said("not seen", gap, smallest)
    for seeds, confidence in sorted(looks.items()) if len(looks) > 1 else []:
        power = power_of(pilot, least, runs, seeds, confidence=confidence)
        if power >= POWER:
            return said("resolvable", gap, smallest, least, seeds, power=power)
    plan = plan_seeds(pilot, least, pretraining_seeds=runs, power=POWER, confidence=last)
    if plan.finetuning_seeds is not None:
        return said("resolvable", gap, smallest, least, plan.finetuning_seeds, power=plan.power)
    return _with_more_examples(study, pilot, runs, said("not seen", gap, smallest, least))


def _with_more_examples(study: TaskStudy, pilot: PilotVariance, runs: int, verdict: PilotVerdict) -> PilotVerdict:
    """The fewest examples with which some number of seeds suffices; the verdict as it is if none do."""
    scored = 0 if study.table.examples is None else study.table.examples.num_examples
    assert verdict.planned_difference is not None
    times = 1.0
    while scored and times < MOST_EXAMPLES:
        times *= 1.25
        larger = replace(pilot, examples=pilot.examples / times)
        if power_of(larger, verdict.planned_difference, runs, MOST_SEEDS // 4 - 1) >= POWER:
            plan = plan_seeds(larger, verdict.planned_difference, pretraining_seeds=runs, power=POWER)
            examples = int(np.ceil(times * scored))
            seeds, power = plan.finetuning_seeds, plan.power
            return replace(verdict, verdict="needs examples", finetuning_seeds=seeds, examples=examples, power=power)
    return verdict
