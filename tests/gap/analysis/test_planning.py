"""Pilots of simulated tasks: how often they see a gap where there is none, and whether their seeds resolve it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gap.analysis.planning import PilotVerdict, judge_pilot
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import SCRATCH, START, CheckpointKey, TaskTable
from gap.cells.store import Cell
from gap.intervals.bootstrap import Resampling
from gap.intervals.spending import spent_error
from gap.intervals.variance import SeedGrid
from gap.measures.weighted_metrics import tabulate_examples

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
    assert "no gap seen: 8 seeds would resolve one of" in unseen.sentence(8, None)
