"""A chart is one declaration: the page and the pictures draw what the list holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from simulated_scores import BUDGETS, SimulatedStudy, expected_score, series_rows, write_study

from gap.analysis.analysis import analyse
from gap.analysis.results import Analysis, TaskResult
from gap.report import page
from gap.report.chart_list import MACRO_CHARTS, TASK_CHARTS, Chart, draw_charts
from gap.report.charts import Figure, base_layout


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """One task with everything, one with a curve alone, one at both ends; and the mean of the first two."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    study = SimulatedStudy(folder)
    study.add("reddit", "raw", 0, 0.1)
    for budget in BUDGETS[2:4]:
        study.add("reddit", "annealed", budget, expected_score(budget))
        study.add("reddit", "annealed", budget, 0.1, control="linear_probe", finetuning_seeds=1)
    return analyse(study.scores, series=series_rows(kinds=("annealed", "raw")), draws=100)


def charts_on(report: Path) -> list[str]:
    return re.findall(r'<div class="chart" id="([^"]+)"', report.read_text(encoding="utf-8"))


def test_every_chart_that_can_be_drawn_is_on_the_page_and_a_picture(analysis: Analysis, tmp_path: Path) -> None:
    assert analysis.macro is not None
    drawn = draw_charts(MACRO_CHARTS, analysis.macro)
    longest_first = sorted(analysis.tasks, key=lambda task: -len(task.checkpoints))
    for number, task in enumerate(longest_first):
        drawn += draw_charts(TASK_CHARTS, task, task=task.task, number=number)
    assert {chart.title for chart in drawn} == {chart.title for chart in (*TASK_CHARTS, *MACRO_CHARTS)}
    assert sorted(charts_on(page.write_report(analysis, tmp_path))) == sorted(chart.id for chart in drawn)
    pictures = {file.name for file in (tmp_path / "figures").iterdir()}
    assert pictures == {f"{chart.file}{ending}" for chart in drawn for ending in (".png", ".svg")}


def failed_chart(task: TaskResult) -> Figure | None:
    if task.task != "qa":
        return None
    bar = {"type": "scatter", "mode": "markers", "name": "failed", "marker": {"symbol": "x", "color": "role:raw"}}
    return {"data": [{**bar, "x": [1.0, 2.0], "y": [0.0, 1.0]}], "layout": base_layout("failed runs", percent=False)}


def test_a_declared_chart_is_drawn_for_the_tasks_that_have_its_results(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: Chart[TaskResult] = Chart(
        "Failures", failed_chart, "failed-{number}", "{task}-failed", "gap", lambda task: f"Those of {task.task}."
    )
    monkeypatch.setattr(page, "TASK_CHARTS", (*TASK_CHARTS, added))
    report = page.write_report(analysis, tmp_path)
    ids = charts_on(report)
    assert [name for name in ids if name.startswith("failed")] == ["failed-0"]
    assert ids.index("gap-0") < ids.index("failed-0") < ids.index("score-0")
    assert "Those of qa." in report.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "qa-failed.png").is_file()
