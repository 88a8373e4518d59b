"""The report of several runs: their differences, their curves over one another, then each run's own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gap.analysis.analysis import analysis_json
from gap.analysis.results import Analysis
from gap.report.chart_list import RUN_CHARTS, DrawnChart, draw_charts
from gap.report.comparison import Comparison, Difference, difference_text, value_text
from gap.report.images import draw_figures
from gap.report.page import Section, render_page, replace_file
from gap.report.tables import Part, Table
from gap.report.text import chart_parts, made_parts, method_parts, note_parts


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
    answers = [Part(one.name, " ".join(task.answer for task in one.tasks)) for one in analyses]
    sections.append(Section("Each run by itself", [*answers, *(Part(text=note) for note in comparison.notes)]))
    made = [part for one in analyses for part in (*made_parts(one, f": {one.name}"), *note_parts(one))]
    general = method_parts(replace(analyses[0], commands=(), made={}, notes=()))
    sections.append(Section("Method, limits and versions", [*general, *made]))
    page = render_page(
        f"Comparison: {', '.join(comparison.runs)}", comparison_answers(comparison), sections, charts, ["tokens"]
    )
    draw_figures(charts, folder / "figures")
    replace_file(folder / "comparison.json", analysis_json(comparison) + "\n")
    replace_file(folder / "report.html", page)
    return folder / "report.html"


def compared_tasks(comparison: Comparison) -> list[str]:
    """Tasks by how much there is to compare."""
    names = [one.task for one in comparison.differences]
    return sorted(dict.fromkeys(names), key=lambda name: -names.count(name))


def comparison_answers(comparison: Comparison) -> list[str]:
    """One sentence a task and run: the score at the largest common budget, then the tokens to the best goal of both."""
    answers = []
    for task in compared_tasks(comparison):
        for run in comparison.runs[1:]:
            members = [one for one in comparison.differences if (one.task, one.other) == (task, run)]
            points = [one for one in members if one.unit == "points"]
            scores = [one for one in points if one.quantity.startswith("score, annealed")] or points
            ratios = [one for one in members if one.unit == "ratio" and one.same_goal and one.change.low is not None]
            shares = [one for one in ratios if "of the gap" in one.quantity]
            told = "; ".join(_told(one) for one in [*scores[-1:], *(shares or ratios)[-1:]])
            if told:
                answers.append(f"On {task}, {run} against {comparison.runs[0]}: {told}.")
    return answers or ["The runs have nothing in common that could be compared."]


def _told(one: Difference) -> str:
    unit = " points" if one.unit == "points" else ""
    return f"{one.quantity}, {difference_text(one)}{unit}{'' if one.resolved else ' (not resolved)'}"


def difference_table(comparison: Comparison, task: str) -> Table:
    """All differences of one task."""
    rows = [
        (
            one.quantity,
            one.other,
            value_text(one.baseline_value, one.unit),
            value_text(one.other_value, one.unit),
            difference_text(one),
            "yes" if one.resolved else "no",
        )
        for one in comparison.differences
        if one.task == task
    ]
    header = ("quantity", "run", comparison.runs[0], "this run", "difference or ratio", "resolved")
    return Table(header, rows)
