"""Pilots of simulated tasks: how often they see a gap where there is none, and whether their seeds resolve it.

Zero-shot tasks are simulated with what they plan: pretraining runs, and paradigms as the clusters of their examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.special import ndtri

from gap.analysis.planning import POWER, PilotVerdict, judge_pilot, resolvable_gap
from gap.analysis.tables.costs import CheckpointCost
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import FLOOR, SCRATCH, START, CheckpointKey, TaskTable
from gap.cells.store import Cell
from gap.intervals.bootstrap import Resampling
from gap.intervals.spending import ERROR, spent_error
from gap.intervals.variance import SeedGrid
from gap.measures.ratios import mean_of
from gap.measures.weighted_metrics import ExampleTable, tabulate_examples

PILOT_SEEDS, STUDY_SEEDS = 3, 8


@dataclass
class Task:
    """Two checkpoints answer N examples of varied difficulty; the second is better by `gap` on average."""

    gap: float
    examples: int = 400
    seed_sd: float = 0.015

    def answers(self, random: np.random.Generator, seeds: int) -> np.ndarray:
        """Right or wrong, [2, F, N]; the first seeds of a study are those of its pilot."""
        chance = 0.5 + random.uniform(-0.35, 0.35, self.examples)
        shift = random.normal(0, self.seed_sd, (seeds, 2, 1)).transpose(1, 0, 2)
        levels = np.array([-self.gap / 2, self.gap / 2])[:, None, None]
        draws = random.random((seeds, 2, self.examples)).transpose(1, 0, 2)
        return (draws < chance + shift + levels).astype(np.float32)


def study_of(answers: np.ndarray, confidence: float, seed: int) -> TaskStudy:
    _, seeds, examples = answers.shape
    keys = (SCRATCH, CheckpointKey("annealed", 1000))
    cells = [
        Cell(
            f"{key.kind}{seed}", "qa", "raw" if key == SCRATCH else "annealed", key.budget_tokens, 0, seed, "em", score
        )
        for key, row in zip(keys, answers.mean(axis=-1), strict=True)
        for seed, score in enumerate(row.astype(float).tolist())
    ]
    records = [
        {str(number): {"score": float(right)} for number, right in enumerate(row)}
        for row in answers.reshape(-1, examples)
    ]
    places = np.arange(2 * seeds).reshape(2, seeds).tolist()
    grids = tuple(SeedGrid((0,), tuple(range(seeds)), tuple(own)) for own in places)
    table = TaskTable("qa", "em", keys, grids, tuple(cells), tabulate_examples("em", records), ())
    return TaskStudy(table, table.draws(Resampling(draws=1000, seed=seed)), (), confidence, 0, 1)


def continued(runs: list[float], start: float = 0.5, spread: float = 0.003) -> TaskStudy:
    """One checkpoint and the runs that continue it, by the mean of each; no examples, five fine-tuning seeds of all."""
    shifts = spread * np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5)
    keys = (START, CheckpointKey("annealed", 1000))
    cells = []
    for key, levels in zip(keys, ([start], runs), strict=True):
        for run, level in enumerate(levels):
            for seed, shift in enumerate(shifts):
                name, score = f"{key.kind}{run}{seed}", level + float(shift)
                cells.append(Cell(name, "qa", key.kind, key.budget_tokens, run, seed, "em", score))
    grids = (
        SeedGrid((0,), tuple(range(5)), tuple(range(5))),
        SeedGrid(tuple(range(len(runs))), tuple(range(5)), tuple(range(5, len(cells)))),
    )
    table = TaskTable("qa", "em", keys, grids, tuple(cells), None, ())
    return TaskStudy(table, table.draws(Resampling(draws=2000)), (), 0.95, 0, 1)


def test_more_finetuning_seeds_are_not_promised_to_show_what_pretraining_runs_hide() -> None:
    """Five runs of one checkpoint, 3.5 points better with a spread of 3 points: seeds do not lower that spread."""
    verdict = judge_pilot(continued([0.50, 0.515, 0.53, 0.55, 0.58]), study_seeds=8)
    assert verdict.verdict == "not seen"
    assert verdict.finetuning_seeds is None
    assert "no more fine-tuning seeds show it: add pretraining runs" in verdict.sentence(8, None)
    alike = judge_pilot(continued([0.524, 0.525, 0.526, 0.527, 0.528], spread=0.02), study_seeds=8)
    assert alike.verdict == "resolvable"  # there the spread is that of the fine-tuning seeds of the one checkpoint
    assert judge_pilot(continued([0.60, 0.61, 0.62]), study_seeds=8).verdict == "resolved"


def judged(task: Task, random: np.random.Generator, number: int) -> tuple[PilotVerdict, np.ndarray]:
    """The verdict of one pilot, and the answers of its study, whose first seeds those of the pilot are."""
    answers = task.answers(random, 40)
    error = spent_error(PILOT_SEEDS / STUDY_SEEDS)
    return judge_pilot(study_of(answers[:, :PILOT_SEEDS], 1 - error, number), study_seeds=STUDY_SEEDS), answers


def said_yes(task: Task, pilots: int) -> list[tuple[PilotVerdict, np.ndarray]]:
    random = np.random.default_rng(3)
    found = [judged(task, random, number) for number in range(pilots)]
    return [one for one in found if one[0].verdict != "not seen"]


def kept(yes: list[tuple[PilotVerdict, np.ndarray]]) -> float:
    """The share of studies with the named seeds whose interval lies above 0."""
    found = []
    for number, (verdict, answers) in enumerate(yes):
        seeds = verdict.finetuning_seeds or PILOT_SEEDS
        if verdict.verdict == "needs examples" or seeds > answers.shape[1]:
            continue
        gap = study_of(answers[:, :seeds], 0.95, number).difference(1, 0)
        found.append(gap.low is not None and gap.low > 0)
    assert len(found) > 20
    return float(np.mean(found))


def test_a_pilot_without_a_gap_seldom_says_that_there_is_one() -> None:
    assert len(said_yes(Task(0.0), 100)) <= 17  # more in 1 % of such tests where one in ten says yes


def test_what_a_pilot_says_yes_to_is_resolved_by_the_seeds_it_names() -> None:
    assert kept(said_yes(Task(0.05), 60)) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("task", [Task(0.0, 1000, 0.03), Task(0.0, 200, 0.005)])
def test_at_most_one_pilot_in_ten_says_yes_where_there_is_nothing(task: Task) -> None:
    assert len(said_yes(task, 300)) <= 43  # more in 1 % of such tests where one in ten says yes


@pytest.mark.slow
@pytest.mark.parametrize("task", [Task(0.03, 1000), Task(0.1, 200)])
def test_studies_keep_what_their_pilots_promised(task: Task) -> None:
    assert kept(said_yes(task, 150)) > 0.8


@pytest.mark.long
@pytest.mark.parametrize("task", [Task(0.0), Task(0.0, 2000, 0.01), Task(0.0, 1000, 0.03), Task(0.0, 200, 0.005)])
def test_of_a_thousand_pilots_of_nothing_one_in_ten_says_yes(task: Task) -> None:
    assert len(said_yes(task, 1000)) <= 120


def test_a_large_gap_is_resolved_at_once_and_small_test_sets_are_told_their_size() -> None:
    random = np.random.default_rng(0)
    verdict, _ = judged(Task(0.4, 1000), random, 0)
    assert verdict.verdict == "resolved"
    assert "annealed at 1,000 tokens minus scratch" in verdict.sentence(8, None)
    harm, _ = judged(Task(-0.4, 1000), random, 1)
    assert "pretraining lowers the score" in harm.sentence(8, None)
    assert "resolved already; what is left of the study takes about 1.50 device-hours" in verdict.sentence(8, 1.5)
    few = [judged(Task(0.12, 40, 0.001), random, number)[0] for number in range(60)]
    needing = [one for one in few if one.verdict == "needs examples"]
    assert needing
    assert all(one.examples is not None and one.examples > 40 for one in needing)
    assert "scored examples" in needing[0].sentence(8, None)
    unseen = next(one for one in few if one.verdict == "not seen")
    assert "no gap seen: 8 seeds would resolve a gap of" in unseen.sentence(8, None)


PILOT_ERROR = ERROR / 4  # of a pilot, as launch/gap.py spends it
MORE_RUNS = 1 - ERROR + PILOT_ERROR  # the confidence of a study that has got more pretraining runs after it


@dataclass
class Pairs:
    """Runs decide the pairs of paradigms, which they know more or less well, by `gap` better than frequencies do."""

    gap: float
    run_sd: float = 0.02
    paradigms: int = 60
    paradigm_sd: float = 0.1
    both_sd: float = 0.05  # of a run in a paradigm, beyond both
    pairs: int = 10  # of a paradigm

    def answers(self, random: np.random.Generator, runs: int) -> np.ndarray:
        """Right or wrong, [2, R, G, N]; frequencies decide the same in every run, the first runs are the pilot's."""
        floor = random.uniform(0.3, 0.7, (self.paradigms, 1))
        known = floor + self.gap + random.normal(0, self.paradigm_sd, (self.paradigms, 1))
        of_runs = known + random.normal(0, self.run_sd, (runs, 1, 1))
        of_runs = of_runs + random.normal(0, self.both_sd, (runs, self.paradigms, 1))
        draws = random.random((2, runs, self.paradigms, self.pairs))
        draws[0] = draws[0, :1]
        chances = np.stack([np.broadcast_to(floor, of_runs.shape), of_runs])
        return (draws < chances).astype(np.float32)


def pairs_study(values: np.ndarray, confidence: float, seed: int = 0, draws: int = 1000) -> TaskStudy:
    """Of the floor and the end, by their scores [2, R, G, N] in every run, paradigm and pair."""
    _, runs, paradigms, pairs = values.shape
    flat = values.reshape(2 * runs, -1).astype(np.float32)
    keys = (FLOOR, CheckpointKey("annealed", 1000))
    cells, scores = [], iter(flat.mean(axis=-1, dtype=float).tolist())
    for key in keys:
        for run in range(runs):
            details = {"zero_shot": True, "clusters": "paradigm"}
            own = ("blimp", "annealed", key.budget_tokens, run, 0, "accuracy_pll", next(scores), key.control)
            cells.append(Cell(f"{key.kind}{run}", *own, details=details))
    evaluate, units = mean_of(flat, np.repeat(np.arange(paradigms), pairs))
    names, clean = tuple(map(str, range(flat.shape[1]))), np.zeros(flat.shape[1], dtype=bool)
    examples = ExampleTable(evaluate, flat.shape[1], paradigms, units, flat, clean, names, None, {})
    grids = tuple(SeedGrid(tuple(range(runs)), (0,), tuple(range(at, at + runs))) for at in (0, runs))
    table = TaskTable("blimp", "accuracy_pll", keys, grids, tuple(cells), examples, ())
    costs = (CheckpointCost("annealed", 1000, hours=0.5),)
    return TaskStudy(table, table.draws(Resampling(draws=draws, seed=seed)), costs, confidence, 0, 1)


def judge_pairs(study: TaskStudy) -> PilotVerdict:
    return judge_pilot(study, study_seeds=3, confidences={3: 1 - ERROR}, more_runs=MORE_RUNS)


def by_hand(gap: float, runs: float, paradigms: float, number: int = 5) -> PilotVerdict:
    """The verdict on `number` runs and 50 paradigms whose means have these standard errors."""
    shifts, known = np.linspace(-1, 1, number), np.linspace(-1, 1, 50)
    if number > 1:
        shifts *= runs * number**0.5 / shifts.std(ddof=1)
    known *= paradigms * 50**0.5 / known.std()
    end = 0.5 + gap + shifts[:, None] + known
    values = np.stack([np.full_like(end, 0.5), end])[..., None]
    return judge_pairs(pairs_study(values, 1 - PILOT_ERROR, draws=20_000))


def test_runs_are_planned_where_runs_hide_the_gap() -> None:
    """Student's t with two degrees of freedom: 1.9 errors of the mean are half of an 80 % interval, 4.3 of a 95 %."""
    assert by_hand(0.08, 0.005, 0.005).verdict == "resolved"
    assert "pretraining lowers the score" in by_hand(-0.08, 0.005, 0.005).sentence(3, None)
    verdict = by_hand(0.035, 0.01, 0.001, number=3)
    assert (verdict.verdict, verdict.finetuning_seeds, verdict.clusters) == ("resolvable", None, None)
    assert verdict.planned_difference == pytest.approx(0.035 - 1.89 * 0.01, abs=0.0015)
    runs = verdict.pretraining_runs
    assert runs is not None
    assert 8 < runs < 18  # about (2.1 + 0.8)^2 times the variance of one run, and a little for the estimate of it
    assert verdict.power is not None
    assert POWER <= verdict.power < POWER + 0.05
    said = verdict.sentence(3, 1.25)
    assert f"resolvable with {runs} pretraining runs (a power of 80%" in said
    assert f"; pretraining {runs - 3} further runs takes about {(runs - 3) / 2:.2f} device-hours" in said
    assert said.endswith("what is left of the study takes about 1.25 device-hours")


def test_a_study_of_the_runs_that_there_are_may_resolve_what_its_pilot_does_not() -> None:
    verdict = by_hand(0.034, 0.01, 0.001)  # Student's t with four: 2.8 errors at 95 %, 4.2 at the pilot's confidence
    assert (verdict.verdict, verdict.pretraining_runs, verdict.power) == ("resolvable", 5, None)
    assert "resolvable with the pretraining runs that there are (5): at the study's own" in verdict.sentence(3, None)


def test_paradigms_are_asked_for_where_they_hide_the_gap() -> None:
    verdict = by_hand(0.018, 0.001, 0.01)
    assert verdict.verdict == "needs examples"
    assert verdict.examples is None
    assert verdict.clusters is not None
    assert 50 * 10 < verdict.clusters < 50 * 70
    assert f"{verdict.clusters:,} paradigms ({verdict.clusters - 50:,} more than" in verdict.sentence(3, 1.0)
    assert "with the examples that there are" in verdict.sentence(3, 1.0)


def test_a_no_has_its_figures() -> None:
    verdict = by_hand(0.0, 0.01, 0.01)
    assert verdict.verdict == "not seen"
    assert verdict.pretraining_runs is None
    assert verdict.limit == pytest.approx((ndtri((1 + MORE_RUNS) / 2) + ndtri(POWER)) * 0.01, rel=0.05)
    assert verdict.limit < verdict.smallest
    assert verdict.smallest == pytest.approx((2.4 + 0.9) * 0.014, rel=0.1)  # Student's t between those of 4 and of many
    assert (
        f"no gap seen: 5 pretraining runs would resolve a gap of {100 * verdict.smallest:.1f} points or more, any "
        f"number of them one of {100 * verdict.limit:.1f} points or more with these 50 paradigms"
    ) in verdict.sentence(3, None)
    hidden = by_hand(0.0155, 0.01, 0.0001)  # plausible are 0.02 points: a hundred runs do not show them
    assert (hidden.verdict, hidden.clusters) == ("not seen", None)
    assert "is plausible, but no more pretraining runs or paradigms show it" in hidden.sentence(3, None)


def test_a_finished_study_of_pairs_without_a_gap_says_which_one_it_would_have_seen() -> None:
    def said(gap: float) -> str | None:
        floor = np.tile(np.linspace(0.3, 0.7, 50), (5, 1))
        end = floor + gap + np.linspace(-0.02, 0.02, 5)[:, None] + np.linspace(-0.2, 0.2, 50)
        study = pairs_study(np.stack([floor, end])[..., None], 0.95)
        return resolvable_gap(study, study.difference(study.reference, study.scratch))

    assert said(0.2) is None
    figures = re.fullmatch(
        r"5 pretraining runs would resolve a gap of (\d\.\d) points or more, any number of them one of (\d\.\d) points "
        r"or more with these 50 paradigms",
        said(0.0) or "",
    )
    assert figures is not None
    assert 4 < float(figures[2]) <= float(figures[1]) < 7  # 2.8 errors of the paradigms are 4.6


@pytest.mark.parametrize("runs", [1, 2])
def test_of_too_few_runs_nothing_is_planned(runs: int) -> None:
    verdict = by_hand(0.3, 0.001, 0.001, number=runs)
    assert (verdict.verdict, verdict.pretraining_runs) == ("needs runs", 3)
    said = verdict.sentence(3, None)
    assert ("given this pretraining run" in said) == (runs == 1)
    assert "the spread of the runs is unknown with" in said
    assert verdict.gap.low is not None


def test_above_one_given_checkpoint_only_the_runs_that_continue_it_vary() -> None:
    end = 0.6 + 0.01 * np.array([-1, 0, 1])[:, None] + np.linspace(-0.1, 0.1, 50)
    study = pairs_study(np.stack([np.full_like(end, 0.5), end])[..., None], 1 - PILOT_ERROR)
    grids = (SeedGrid((0,), (0,), (0,)), study.table.grids[1])
    table = replace(study.table, checkpoints=(START, study.table.checkpoints[1]), grids=grids)
    verdict = judge_pairs(replace(study, table=table, draws=table.draws(Resampling(draws=1000))))
    assert (verdict.runs, verdict.floor, verdict.zero_shot) == (3, "your starting checkpoint", True)
    assert verdict.verdict == "resolved"
    assert verdict.smallest == pytest.approx(judge_pairs(study).smallest, rel=0.05)  # as the floor, which is constant


def pairs_pilots(task: Pairs, runs: int, pilots: int) -> list[tuple[PilotVerdict, np.ndarray]]:
    """Verdicts that are no "no", and the answers of the study whose first runs those of the pilot are."""
    random, found = np.random.default_rng(5), []
    for number in range(pilots):
        answers = task.answers(random, 24)
        verdict = judge_pairs(pairs_study(answers[:, :runs], 1 - PILOT_ERROR, number))
        if verdict.verdict != "not seen":
            found.append((verdict, answers))
    return found


def test_pilots_of_pairs_without_a_gap_seldom_say_that_there_is_one() -> None:
    assert len(pairs_pilots(Pairs(0.0, paradigms=20), 3, 100)) < 10  # 36, if they planned for the gap that they saw


@pytest.mark.slow
@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize(
    "task", [Pairs(0.0), Pairs(0.0, run_sd=0.0), Pairs(0.0, run_sd=0.08), Pairs(0.0, paradigms=20)]
)
def test_at_most_one_pilot_of_pairs_in_ten_says_yes_where_there_is_nothing(task: Pairs, runs: int) -> None:
    assert len(pairs_pilots(task, runs, 300)) < 30  # of a thousand at most 53


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        Pairs(0.07, run_sd=0.03, paradigm_sd=0.02, both_sd=0.02, pairs=40),
        Pairs(0.06, run_sd=0.04, paradigm_sd=0.02, both_sd=0.0, paradigms=100, pairs=20),
    ],
)
def test_runs_and_paradigms_that_pilots_name_resolve_the_gap(task: Pairs) -> None:
    kept, random = [], np.random.default_rng(11)
    for number, (verdict, answers) in enumerate(pairs_pilots(task, 3, 200)):
        runs = verdict.pretraining_runs or 0
        if verdict.clusters is not None:
            whole, confidence = replace(task, paradigms=verdict.clusters).answers(random, runs), 1 - ERROR
        elif 3 < runs <= 24:
            whole, confidence = answers[:, :runs], MORE_RUNS
        else:
            continue
        if whole.size < 4_000_000:
            kept.append((pairs_study(whole, confidence, number).difference(1, 0).low or 0.0) > 0)
    assert len(kept) > 10
    assert np.mean(kept) > 0.8
