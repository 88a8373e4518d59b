"""Writing of report.html (one file, no network needed), curve.json, curve.csv, and the figures as PNG and SVG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from gap.analysis.analysis import analysis_json
from gap.analysis.results import Analysis, TaskResult
from gap.analysis.tables.costs import UNITS
from gap.report.chart_list import MACRO_CHARTS, TASK_CHARTS, DrawnChart, draw_charts
from gap.report.charts import LABELS, available_units
from gap.report.images import draw_figures
from gap.report.tables import Part, curve_csv
from gap.report.text import macro_parts, method_parts, task_parts
from runtime.files.whole_files import write_text
from runtime.plurals import counted


@dataclass(frozen=True)
class Section:
    """A heading of the report and the parts under it."""

    title: str
    parts: Sequence[Part]


def write_report(analysis: Analysis, directory: str | Path) -> Path:
    """Write report.html, curve.json, curve.csv and figures/*.png, *.svg into a directory; returns report.html."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    charts: list[DrawnChart] = []
    sections = []
    for number, task in enumerate(_longest_first(analysis.tasks)):
        own = draw_charts(TASK_CHARTS, task, task=task.task, number=number)
        sections.append(Section(task.task, task_parts(task, analysis, own)))
        charts += own
    if analysis.macro is not None:
        own = draw_charts(MACRO_CHARTS, analysis.macro)
        sections.append(
            Section(f"Mean of {counted(len(analysis.macro.tasks), 'task')}", macro_parts(analysis.macro, own))
        )
        charts += own
    sections.append(Section("Method, limits and versions", method_parts(analysis)))
    units = [
        unit for unit in UNITS if any(unit in available_units(task, priced=analysis.priced) for task in analysis.tasks)
    ]
    shared = [
        unit
        for unit in units
        if all(unit in available_units(task, priced=analysis.priced) for task in analysis.tasks if task.curves)
    ]
    page = render_page(
        f"Pretraining gap: {analysis.name}",
        [task.answer for task in _longest_first(analysis.tasks)],
        sections,
        charts,
        shared or ["tokens"],
    )
    write_text(folder / "curve.json", analysis_json(analysis) + "\n")
    write_text(folder / "curve.csv", curve_csv(analysis))
    draw_figures(charts, folder / "figures")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render_page(
    title: str, answers: Sequence[str], sections: Sequence[Section], charts: Sequence[DrawnChart], units: Sequence[str]
) -> str:
    """The page; all text is escaped, figures go in as JSON without a `<`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
        answers=answers,
        sections=sections,
        units=units,
        unit_names=UNITS,
        unit_titles_json=_script_json(LABELS),
        figures_json=_script_json({chart.id: chart.figure for chart in charts}),
        plotly_source=get_plotlyjs(),
    )


def _longest_first(tasks: Sequence[TaskResult]) -> list[TaskResult]:
    """The run's main task: the one with the most checkpoints."""
    return sorted(tasks, key=lambda task: -len(task.checkpoints))


def _script_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
