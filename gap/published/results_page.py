"""One page about all published studies: a table of questions and answers, then a section for each.

    python launch/report.py docs/studies --results_page docs/results.md

Every figure of the page comes from the studies' records. A study's folder may hold a comment.md, for sentences without
figures, and a commands.sh, a command a line, from its text on: study.json knows only the commands of the study itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gap.analysis.results import Analysis, CheckpointResult, TaskResult
from gap.analysis.tables.run_folder import RunSource
from gap.analysis.wording import duration_text, points_text
from gap.cells.job_list import SCORES_NAME
from gap.published.markdown_text import (
    anchor,
    bold,
    code,
    command_lines,
    filled,
    joined,
    picture,
    table_text,
    tasks_longest_first,
    wrapped,
)
from gap.published.study_folder import PLAN_NAME, RESULTS_NAME, StudyCost, cost_of, question_of
from gap.report.reports import analysis_of
from gap.report.tables import Table, closed_text, score_text
from gap.report_options import ReportOptions
from runtime.files.whole_files import write_text

INTRODUCTION_NAME, COMMENT_NAME, COMMANDS_NAME = "introduction.md", "comment.md", "commands.sh"


def write_results_page(folders: Sequence[str], page: Path) -> Path:
    """Write the page about the studies in the one folder that is named; returns its path.

    Raises ValueError for other than one folder.
    """
    if len(folders) != 1:
        raise ValueError(f"--results_page {page}: {len(folders)} folders; name the one that holds the studies")
    folder = Path(folders[0])
    write_text(page, results_page(folder, pictures=Path(os.path.relpath(folder, page.parent)).as_posix()))
    return page


def results_page(folder: Path, *, pictures: str) -> str:
    """The page; `pictures` is the way from the page to the folder of the studies.

    introduction.md in the folder begins it. Raises ValueError if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: publish studies into one (launch/report.py RUN --publish DIR)")
    studies = sorted(path.parent for path in folder.glob(f"*/{SCORES_NAME}"))
    runs = [RunSource.of(study) for study in studies]
    analyses = [analysis_of(run, ReportOptions()) for run in runs]
    introduction = folder / INTRODUCTION_NAME
    blocks = [introduction.read_text().rstrip()] if introduction.is_file() else ["# Results"]
    if not studies:
        blocks.append("No study has been published yet.")
    rows = []
    for study, run, analysis in zip(studies, runs, analyses, strict=True):
        cost = cost_text(cost_of(run))
        for number, task in enumerate(tasks_longest_first(analysis)):
            asked = f"[{question_of(study)}](#{anchor(question_of(study))})" if number == 0 else "the same"
            rows.append((asked, answer_with_gap(task), cost if number == 0 else ""))
    if rows:
        blocks.append(table_text(Table(("question", "answer, 95 % interval", "cost"), rows)))
    planned = [path.parent for path in sorted(folder.glob(f"*/{PLAN_NAME}")) if path.parent not in studies]
    if planned:
        links = "; ".join(f"[{question_of(study)}]({pictures}/{study.name}/{PLAN_NAME})" for study in planned)
        blocks.append(filled(f"Planned, not run yet: {links}"))
    for study, run, analysis in zip(studies, runs, analyses, strict=True):
        blocks += study_blocks(study, run, analysis, f"{pictures}/{study.name}")
    return joined(blocks)


def study_blocks(study: Path, run: RunSource, analysis: Analysis, place: str) -> Iterator[str]:
    """A study's section: answer, comment, what it cost, commands, tables and pictures."""
    yield f"## {question_of(study)}"
    for task in tasks_longest_first(analysis):
        yield bold(answer_with_gap(task))
        if task.resolvable_gap is not None:
            yield filled(f"With a power of 80 %, {task.resolvable_gap}.")
    comment = study / COMMENT_NAME
    if comment.is_file():
        yield comment.read_text().rstrip()
    made = [f"{what} {value}" for what, value in analysis.made.items() if what.startswith("cells ")]
    whole = f"[plan]({place}/{PLAN_NAME}), [all tables]({place}/{RESULTS_NAME}), [records]({place}/{SCORES_NAME})"
    yield filled(f"Cost: {cost_text(cost_of(run))}; {'; '.join(made)}. {whole}.")
    commands = study / COMMANDS_NAME
    whole_way = commands.read_text().splitlines() if commands.is_file() else run.commands
    yield code([line for command in whole_way for line in command_lines(command)])
    yield from (wrapped(note) for note in analysis.notes if note.startswith("Warning"))
    for task in tasks_longest_first(analysis):
        yield from (wrapped(warning) for warning in task.warnings)
        yield table_text(checkpoint_rows(task))
        for file in sorted(study.glob(f"{task.task}-gap.png")) or sorted(study.glob(f"{task.task}-score.png")):
            yield picture(f"{place}/{file.name}")


def answer_with_gap(task: TaskResult) -> str:
    """The report's answer, and the gap in points where the answer is about shares of it."""
    if not task.gap_resolved or task.gap.refused:
        return task.answer
    return f"{task.answer} The gap: {points_text(task.gap)} points of {task.metric.replace('_', ' ')}."


def checkpoint_rows(task: TaskResult) -> Table:
    """One row per checkpoint: its seeds, its mean with the interval, the share of the gap that it closes."""
    rows = [
        (
            each.name,
            ", ".join(f"{100 * dot.score:.1f}" for dot in each.dots),
            score_text(each.score),
            "" if each.gap_closed is None else closed_text(each.gap_closed),
            _rates(each),
        )
        for each in task.checkpoints
    ]
    return Table((f"{task.task}: checkpoint", "seeds", "mean", "gap closed", "rate"), rows)


def cost_text(cost: StudyCost) -> str:
    """What a study took, in words."""
    parts = (("pretraining", cost.pretraining), ("cells", cost.cells), ("searches", cost.searches))
    return ", ".join(f"{name} {duration_text(seconds / 3600)}" for name, seconds in parts if seconds)


def _rates(checkpoint: CheckpointResult) -> str:
    rates = dict.fromkeys(f"{dot.learning_rate:g}" for dot in checkpoint.dots if dot.learning_rate is not None)
    return ", ".join(rates)
