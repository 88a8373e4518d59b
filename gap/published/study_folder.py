"""A study as a small folder that is kept with a project: what it takes to analyse it again, and its results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gap.analysis.results import Analysis
from gap.analysis.tables.packed_predictions import PACKED_NAME, pack_predictions
from gap.analysis.tables.run_folder import STUDY_NAME, RunSource
from gap.cells.job_list import SCORES_NAME, SEARCHES_NAME
from gap.cells.search.choice import search_lines
from gap.cells.store import read_scores, reported_cells
from gap.published.markdown_text import study_markdown
from gap.report.chart_list import TASK_CHARTS, draw_charts
from gap.report.images import draw_chart
from gap.report.reports import analysis_of
from gap.report_options import ReportOptions
from runtime.files.whole_files import write_text

PLAN_NAME, RESULTS_NAME = "plan.md", "results.md"
SHOWN_CHARTS = ("Gap closed", "Score, every seed a dot (failed runs are crosses)")
PICTURE = ".png"


@dataclass(frozen=True)
class StudyCost:
    """What a study took, in seconds of one device or process."""

    pretraining: float  # of the largest checkpoints, summed over the runs
    cells: float
    searches: float


def publish(folders: Sequence[str], options: ReportOptions) -> Path:
    """Write a run's own cells with packed records, results.md and pictures into the folder `options.publish`.

    A plan.md there begins with the question, as its heading, which results.md repeats. The folder is a run for
    launch/report.py in its turn; returns its results.md. Raises ValueError if it is the run's own folder, and for
    several runs.
    """
    target = Path(str(options.publish))
    if len(folders) != 1:
        raise ValueError(f"--publish {target} with {len(folders)} runs: publish one at a time")
    run = RunSource.of(Path(folders[0]))
    source = run.scores.parent
    if target.resolve() == source.resolve():
        raise ValueError(f"--publish {target} is the run's own folder: name another, such as docs/studies/NAME")
    target.mkdir(parents=True, exist_ok=True)
    cells = reported_cells(read_scores(run.scores), run.planned)[0]
    kept = {cell.fingerprint for cell in cells}
    lines = [line for line in run.scores.read_text().splitlines() if json.loads(line)["fingerprint"] in kept]
    write_text(target / SCORES_NAME, "".join(f"{line}\n" for line in lines))
    pack_predictions(cells, source, target / PACKED_NAME)
    for name in (STUDY_NAME, SEARCHES_NAME):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / "contamination").is_dir():
        shutil.copytree(source / "contamination", target / "contamination", dirs_exist_ok=True)
    return write_results(analysis_of(RunSource.of(target), options), target)


def write_results(analysis: Analysis, folder: Path) -> Path:
    """Write results.md, which it returns, and the pictures of a study into its folder."""
    pictures = []
    for number, task in enumerate(analysis.tasks):
        for chart in draw_charts(TASK_CHARTS, task, task=task.task, number=number):
            if chart.title in SHOWN_CHARTS:
                draw_chart(chart.figure, folder / chart.file, kinds=(PICTURE,))
                pictures.append(f"{chart.file}{PICTURE}")
    write_text(folder / RESULTS_NAME, study_markdown(analysis, question_of(folder), pictures))
    return folder / RESULTS_NAME


def question_of(folder: Path) -> str:
    """The heading of the study's plan; its folder's name without a plan."""
    plan = folder / PLAN_NAME
    lines = plan.read_text().splitlines() if plan.is_file() else []
    heading = next((line for line in lines if line.startswith("# ")), f"# {folder.name}")
    return heading.removeprefix("# ").strip()


def cost_of(run: RunSource) -> StudyCost:
    """What the study took, from its records; pretraining is 0 where series.json has no times."""
    cells = reported_cells(read_scores(run.scores), run.planned)[0]
    searches = run.scores.parent / SEARCHES_NAME
    tried: list[dict[str, Any]] = search_lines(searches).read() if searches.is_file() else []
    longest: dict[int, float] = {}
    for row in run.series if isinstance(run.series, (list, tuple)) else ():
        seed = int(row["pretraining_seed"])
        longest[seed] = max(longest.get(seed, 0.0), float(row.get("seconds") or 0.0))
    return StudyCost(
        sum(longest.values()), sum(cell.seconds for cell in cells), sum(float(line["seconds"]) for line in tried)
    )
