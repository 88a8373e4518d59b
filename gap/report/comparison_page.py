"""The report page of several runs: their differences, overlaid curves, then each run's own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gap.analysis.analysis import analysis_json
from gap.analysis.results import Analysis
from gap.report.chart_list import RUN_CHARTS, DrawnChart, draw_charts
from gap.report.comparison import Comparison, Difference, difference_text, value_text
from gap.report.images import draw_figures
from gap.report.page import Section, render_page
from gap.report.tables import Part, Table
from gap.report.text import chart_parts, made_parts, method_parts, note_parts
from runtime.files.whole_files import write_text


def write_comparison(comparison: Comparison, analyses: Sequence[Analysis], directory: str | Path) -> Path:
    """Write report.html, comparison.json and figures into a directory; analyses come in the order of the runs."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = compared_tasks(comparison)
    charts: list[DrawnChart] = []
    sections = []
    for number, task in enumerate(tasks):
        runs = [(run.name, next((own for own in run.tasks if own.task == task), None)) for run in analyses]
        drawn = draw_charts(RUN_CHARTS, runs, task=task, number=number)
        table = Part("Differences", table=difference_table(comparison, task))
        sections.append(Section(task, [table, *chart_parts(drawn)]))
        charts += drawn
    answers = [Part(analysis.name, " ".join(task.answer for task in analysis.tasks)) for analysis in analyses]
    answers += [
        Part(text=f"{analysis.name}, {task.task}: {warning}", style="warn")
        for analysis in analyses
        for task in analysis.tasks
        for warning in task.warnings
    ]
    sections.append(Section("Each run by itself", [*answers, *(Part(text=note) for note in comparison.notes)]))
    made = [
        part for analysis in analyses for part in (*made_parts(analysis, f": {analysis.name}"), *note_parts(analysis))
    ]
    general = method_parts(replace(analyses[0], commands=(), made={}, notes=(), confidence=comparison.confidence))
    sections.append(Section("Method, limits and versions", [*general, *made]))
    page = render_page(
        f"Comparison: {', '.join(comparison.runs)}", comparison_answers(comparison), sections, charts, ["tokens"]
    )
    draw_figures(charts, folder / "figures")
    write_text(folder / "comparison.json", analysis_json(comparison) + "\n")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def compared_tasks(comparison: Comparison) -> list[str]:
    """Tasks, ordered by how much there is to compare."""
    names = [difference.task for difference in comparison.differences]
    return sorted(dict.fromkeys(names), key=lambda name: -names.count(name))


def comparison_answers(comparison: Comparison) -> list[str]:
    """One sentence per task and run: the score at the largest common budget, then the tokens to their best goal."""
    answers = []
    for task in compared_tasks(comparison):
        for run in comparison.runs[1:]:
            members = [
                difference
                for difference in comparison.differences
                if (difference.task, difference.other) == (task, run)
            ]
            points = [difference for difference in members if difference.unit == "points"]
            scores = [
                difference for difference in points if difference.quantity.startswith("score, annealed")
            ] or points
            ratios = [
                difference
                for difference in members
                if difference.unit == "ratio" and difference.same_goal and difference.change.low is not None
            ]
            shares = [difference for difference in ratios if "of the gap" in difference.quantity]
            changes = "; ".join(_change_text(difference) for difference in [*scores[-1:], *(shares or ratios)[-1:]])
            if changes:
                answers.append(f"On {task}, {run} against {comparison.runs[0]}: {changes}.")
    return answers or ["The runs have no tasks or budgets in common to compare."]


def _change_text(difference: Difference) -> str:
    unit = " points" if difference.unit == "points" else ""
    return (
        f"{difference.quantity}, {difference_text(difference)}{unit}{'' if difference.resolved else ' (not resolved)'}"
    )


def difference_table(comparison: Comparison, task: str) -> Table:
    """All differences of one task."""
    rows = [
        (
            difference.quantity,
            difference.other,
            value_text(difference.baseline_value, difference.unit),
            value_text(difference.other_value, difference.unit),
            difference_text(difference),
            "yes" if difference.resolved else "no",
        )
        for difference in comparison.differences
        if difference.task == task
    ]
    header = ("quantity", "run", comparison.runs[0], "this run", "difference or ratio", "resolved")
    return Table(header, rows)
