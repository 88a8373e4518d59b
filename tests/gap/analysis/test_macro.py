"""The average over tasks: joint draws, what is left out, and where it is written."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows

from gap.analysis.analysis import analyse, analysis_json, read_studies
from gap.analysis.macro import macro_average
from gap.analysis.results import Analysis, CheckpointResult
from gap.analysis.tables.costs import Prices
from gap.cells.store import Cell, append_score
from gap.intervals.bootstrap import Resampling
from gap.report.charts import macro_chart
from gap.report.page import write_report
from gap.report.tables import curve_csv

FEW = BUDGETS[2:6]
DRAWS = 2000


def write_tasks(folder: Path, *names: str, top: float = 0.95) -> SimulatedStudy:
    made = SimulatedStudy(folder)
    for name in names:
        made.add(name, "raw", 0, 0.15)
        for budget in FEW:
            made.add(name, "annealed", budget, expected_score(budget, top=top))
    return made


def width(one: CheckpointResult) -> float:
    assert one.score.low is not None
    assert one.score.high is not None
    return one.score.high - one.score.low


def test_the_mean_of_two_tasks_is_the_mean_of_their_curves(tmp_path: Path) -> None:
    made = write_tasks(tmp_path, "amazon", "reddit")
    made.add("ends", "raw", 0, 0.2)
    made.add("ends", "annealed", FEW[-1], 0.9)  # no curve: not averaged with those that have one
    found = analyse(made.scores, series=series_rows(), prices=Prices(), draws=DRAWS)
    macro = found.macro
    assert macro is not None
    assert (macro.tasks, macro.metric) == (("amazon", "reddit"), "exact_match")
    own = {task.task: {one.name: one for one in task.checkpoints} for task in found.tasks}
    assert [one.budget_tokens for one in macro.checkpoints] == [0, *FEW]
    for one in macro.checkpoints:
        first, second = own["amazon"][one.name], own["reddit"][one.name]
        assert one.score.value == pytest.approx((first.score.value + second.score.value) / 2)
        assert one.runs == 6
        assert first.gap_closed is not None
        assert second.gap_closed is not None
        assert one.gap_closed is not None
        assert one.gap_closed.value == pytest.approx((first.gap_closed.value + second.gap_closed.value) / 2)
    middle = macro.checkpoints[2].gap_closed
    assert middle is not None
    assert middle.low is not None
    assert middle.high is not None
    assert middle.low < middle.value < middle.high
    assert macro.checkpoints[-1].gap_closed is not None
    assert macro.checkpoints[-1].gap_closed.refused == "by definition"


def only_seeds(folder: Path, runs: np.ndarray, *, more: int = 0) -> list[CheckpointResult]:
    """Two tasks without examples, scores shifted by pretraining runs [2, P]; the mean of one and of both.

    The second has `more` fine-tuning seeds.
    """
    path = folder / "scores.jsonl"
    for task, shifts in zip(("one", "two"), runs, strict=True):
        for kind, budget, level in (("raw", 0, 0.2), ("annealed", 1000, 0.6), ("annealed", 2000, 0.8)):
            for run, shift in enumerate(shifts):
                for seed in range(3 + more * (task == "two")):
                    name = f"{task}{budget}{run}{seed}"
                    append_score(path, Cell(name, task, kind, budget, run, seed, "accuracy", level + shift))
    resampling = Resampling(draws=20_000)
    studies, _ = read_studies(path, series=None, prices=Prices(), resampling=resampling, confidence=0.95)
    macro = macro_average(studies)
    assert macro is not None
    single = macro_average([studies[0], replace(studies[0])])
    assert single is not None
    return [single.checkpoints[1], macro.checkpoints[1]]


def test_a_pretraining_run_moves_all_tasks_together(tmp_path: Path) -> None:
    shifts = np.array([-0.02, 0.0, 0.01, 0.01])
    one, same = only_seeds(tmp_path / "same", np.stack([shifts, shifts]))
    assert width(same) == pytest.approx(width(one), rel=1e-6)  # the second task says nothing new about the runs
    _, longer = only_seeds(tmp_path / "longer", np.stack([shifts, shifts]), more=1)
    assert width(longer) == pytest.approx(width(one), rel=1e-6)  # the seeds in common stay paired
    _, opposed = only_seeds(tmp_path / "opposed", np.stack([shifts, -shifts]))
    assert width(opposed) == pytest.approx(0.0, abs=1e-9)


def test_examples_of_different_tasks_are_drawn_apart(tmp_path: Path) -> None:
    """Drawn alike, the mean over two tasks would be as uncertain as one of them, however many tasks there are."""
    path = write_tasks(tmp_path, "amazon", "reddit").scores
    studies, _ = read_studies(path, series=None, prices=Prices(), resampling=Resampling(draws=DRAWS), confidence=0.95)
    first, second = (study.draws.examples[:, 2] for study in studies)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    macro = macro_average(studies)
    assert macro is not None
    assert macro.checkpoints[2].score.low is not None


def test_tasks_of_different_metrics_share_the_gap_closed_only(tmp_path: Path) -> None:
    made = write_tasks(tmp_path, "amazon", "reddit", "flat", top=0.9)
    lines = [json.loads(line) for line in made.scores.read_text().splitlines()]
    for line in lines:
        line["metric"] = "accuracy" if line["task"] == "reddit" else line["metric"]
        if line["task"] == "flat":
            line["score"], line["predictions"] = 0.5 + 0.02 * (line["finetuning_seed"] - 1), None
    made.scores.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = analyse(made.scores, series=series_rows(), prices=Prices(), draws=DRAWS)
    assert found.macro is not None
    assert found.macro.metric is None
    assert all(math.isnan(one.score.value) for one in found.macro.checkpoints)
    assert "without flat" in " ".join(found.macro.notes)
    assert found.macro.checkpoints[1].gap_closed is not None
    chart = macro_chart(found.macro)
    assert chart is not None
    assert chart["layout"]["yaxis"]["title"]["text"] == "mean share of the gap closed"
    check_outputs(found, tmp_path / "out")


def check_outputs(found: Analysis, folder: Path) -> None:
    """The average is in curve.json, in the CSV and in the report, and is drawn as an image."""
    macro = json.loads(analysis_json(found))["macro"]
    assert macro["checkpoints"][1]["score"]["value"] is None
    rows = [row for row in csv.DictReader(curve_csv(found).splitlines()) if row["task"].startswith("mean of")]
    assert [row["budget_tokens"] for row in rows] == ["0", *map(str, FEW)]
    assert (rows[1]["score"], rows[1]["median"]) == ("", "")
    assert float(rows[1]["gap_closed_low"]) < float(rows[1]["gap_closed"]) < float(rows[1]["gap_closed_high"])
    page = write_report(found, folder).read_text(encoding="utf-8")
    assert "Mean of 3 tasks" in page
    assert "only the gap closed is averaged" in page
    assert {"mean-of-tasks.png", "mean-of-tasks.svg"} <= {path.name for path in (folder / "figures").iterdir()}


def test_scores_with_and_without_finetuning_are_not_averaged(tmp_path: Path) -> None:
    made = write_tasks(tmp_path, "amazon", "reddit")
    once = {"pretraining_seeds": 3, "finetuning_seeds": 1, "details": {"zero_shot": True}}
    made.add("pairs", "raw", 0, 0.4, control="unigram", **once)
    made.add("pairs", "raw", 0, 0.3, **once)
    for budget in FEW:
        made.add("pairs", "annealed", budget, expected_score(budget, scratch=0.3), **once)
    macro = analyse(made.scores, series=series_rows(), prices=Prices(), draws=400).macro
    assert macro is not None
    assert macro.tasks == ("amazon", "reddit")
    assert macro.notes == (
        "The average is over tasks that are scored with fine-tuning and whose gap begins at scratch: without pairs.",
    )
    alone = write_tasks(tmp_path / "alone", "amazon")
    alone.add("pairs", "raw", 0, 0.4, control="unigram", **once)
    alone.add("pairs", "annealed", FEW[-1], 0.9, **once)
    assert analyse(alone.scores, draws=400).macro is None


def test_one_task_or_nothing_in_common_has_no_average(tmp_path: Path) -> None:
    alone = write_tasks(tmp_path / "alone", "amazon")
    assert analyse(alone.scores, draws=DRAWS).macro is None
