"""A study as a small folder that is kept with a project: what it takes to analyse it again, and its results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gap.analysis.results import Analysis
from gap.analysis.tables.packed_predictions import PACKED_NAME, pack_predictions
from gap.analysis.tables.run_folder import STUDY_NAME, RunSource
from gap.cells.job_list import LIST_NAME, SCORES_NAME, SEARCHES_NAME, read_jobs
from gap.cells.search.choice import follow, read_searches, search_lines
from gap.cells.store import read_scores, reported_cells
from gap.published.markdown_text import study_markdown
from gap.report.chart_list import TASK_CHARTS, draw_charts
from gap.report.images import draw_chart
from gap.report.reports import analysis_of
from gap.report_options import ReportOptions
from runtime.files.whole_files import write_json, write_text

PLAN_NAME, RESULTS_NAME = "plan.md", "results.md"
SHOWN_CHARTS = ("Gap closed", "Score, every seed a dot (failed runs are crosses)")
PICTURE = ".png"


@dataclass(frozen=True)
class StudyCost:
    """What a study took, in seconds of one device or process."""

    pretraining: float  # of each run's largest checkpoint that has a cell, summed over the runs
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
    write_text(target / SCORES_NAME, _lines_of(run.scores, {cell.fingerprint for cell in cells}))
    pack_predictions(cells, source, target / PACKED_NAME)
    if (source / STUDY_NAME).is_file():
        content = json.loads((source / STUDY_NAME).read_text(encoding="utf-8"))  # which RunSource has checked
        write_json(target / STUDY_NAME, _without_folders(content))
    if (source / SEARCHES_NAME).is_file():
        write_text(target / SEARCHES_NAME, _lines_of(source / SEARCHES_NAME, _own_tries(source, run.planned)))
    if (source / "contamination").is_dir():
        shutil.copytree(source / "contamination", target / "contamination", dirs_exist_ok=True)
    return write_results(analysis_of(RunSource.of(target), options), target)


def _without_folders(study: dict[str, Any]) -> dict[str, Any]:
    """The study without the folders in which its checkpoints lay: `series/annealed-1000` stays."""
    rows = [{**row, "path": "/".join(Path(str(row["path"])).parts[-2:])} for row in study["checkpoints"]]
    return {**study, "checkpoints": rows}


def _lines_of(path: Path, fingerprints: Collection[str] | None) -> Iterator[str]:
    """The whole lines of a file of records with these fingerprints (None: all) as they are; a torn last one is none."""
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        if line.strip() and (fingerprints is None or json.loads(line)["fingerprint"] in fingerprints):
            yield f"{line}\n"


def _own_tries(source: Path, planned: Collection[str] | None) -> set[str] | None:
    """Fingerprints of the tries on which the planned cells depend: the file may hold those of earlier grids or code.

    None, for all of them, where no list of the planned cells is there.
    """
    if planned is None or not (source / LIST_NAME).is_file():
        return None
    jobs, records = read_jobs(source), read_searches(source / SEARCHES_NAME)
    if not set(planned) <= jobs.cell_names():
        return None
    trails = (follow(jobs, setting, seed, records) for setting, seed in jobs.plan.decisions)
    return {jobs.fingerprint(search) for trail in trails for search in trail.tries}


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
    used = {(cell.kind, cell.budget_tokens, cell.pretraining_seed) for cell in cells if cell.control is None}
    longest: dict[int, float] = {}
    for row in run.series if isinstance(run.series, (list, tuple)) else ():
        seed = int(row["pretraining_seed"])
        if (row["kind"], round(row["budget_tokens"]), seed) in used:
            longest[seed] = max(longest.get(seed, 0.0), float(row.get("seconds") or 0.0))
    return StudyCost(
        sum(longest.values()), sum(cell.seconds for cell in cells), sum(float(line["seconds"]) for line in tried)
    )
