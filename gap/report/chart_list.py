"""The declarations of a report's charts, drawn by the page, the PNG and SVG files and the comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from gap.analysis.results import MacroAverage, TaskResult
from gap.cells.plan import UNIGRAM
from gap.report.charts import Figure, gap_chart, macro_chart, run_chart, score_chart
from gap.report.control_charts import label_chart, loss_chart, probe_chart

Results = TypeVar("Results")
# A task's chart goes below its gap, the crossings, the controls or the table of checkpoints.
Place = Literal["gap", "crossings", "controls", "checkpoints"]


@dataclass(frozen=True)
class Chart(Generic[Results]):
    """A chart of some results.

    `draw` gives its plotly figure, or None if the results lack what it shows, and `note` the text above it. `id` (on
    the page) and `file` (without an extension) are filled with {task}, its name for files, and {number}, its position.
    """

    title: str
    draw: Callable[[Results], Figure | None]
    id: str
    file: str
    place: Place = "checkpoints"
    note: Callable[[Results], str] = lambda results: ""


@dataclass(frozen=True)
class DrawnChart:
    """A chart for which the results have data."""

    title: str
    note: str
    place: Place
    id: str
    file: str
    figure: Figure


def draw_charts(
    charts: Sequence[Chart[Results]], results: Results, *, task: str = "", number: int = 0
) -> list[DrawnChart]:
    """Draw the charts that have data; `task` and `number` identify the section of the page."""
    names = {"task": re.sub(r"[^\w.-]+", "-", task).strip("-.") or "task", "number": number}
    drawn = []
    for chart in charts:
        figure = chart.draw(results)
        if figure is not None:
            own = chart.id.format(**names), chart.file.format(**names)
            drawn.append(DrawnChart(chart.title, chart.note(results), chart.place, *own, figure))
    return drawn


def _seeds_note(task: TaskResult) -> str:
    if any(checkpoint.control == UNIGRAM for checkpoint in task.checkpoints):
        return (
            "The unigram floor and scratch (random weights) are levels; their seeds, and those of a reference from "
            "outside, are shown left of the smallest budget."
        )
    if any(checkpoint.kind == "start" for checkpoint in task.checkpoints):
        return (
            "Seeds of your starting checkpoint, of scratch, and of a reference from outside, are shown left of the "
            "smallest budget."
        )
    return "Seeds of scratch, and of a reference from outside, are shown left of the smallest budget."


def _loss_note(task: TaskResult) -> str:
    value = task.loss_rank_correlation
    return "" if value is None else f"Rank correlation of loss and score: {value:.2f}. A good predictor is near -1."


TASK_CHARTS: tuple[Chart[TaskResult], ...] = (
    Chart("Gap closed", gap_chart, "gap-{number}", "{task}-gap", "gap"),
    Chart(
        "Score, every seed a dot (failed runs are crosses)",
        score_chart,
        "score-{number}",
        "{task}-score",
        "crossings",
        _seeds_note,
    ),
    Chart("Linear probe beside fine-tuning", probe_chart, "probe-{number}", "{task}-probe", "controls"),
    Chart("Fewer labels", label_chart, "labels-{number}", "{task}-labels", "controls"),
    Chart("Validation loss against score", loss_chart, "loss-{number}", "{task}-loss", "checkpoints", _loss_note),
)
MACRO_CHARTS: tuple[Chart[MacroAverage], ...] = (Chart("Mean over the tasks", macro_chart, "macro", "mean-of-tasks"),)
# Charts of several runs on one task, each run with its name.
RUN_CHARTS: tuple[Chart[Sequence[tuple[str, TaskResult | None]]], ...] = (
    Chart("Scores of all runs", run_chart, "runs-{number}", "runs-{number}"),
)
