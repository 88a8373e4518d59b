"""Reports of finished runs: of one run in its folder, or of several in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gap.analysis.analysis import analyse
from gap.analysis.results import Analysis
from gap.analysis.tables.run_folder import RunSource, told_apart
from gap.intervals.spending import history_note
from gap.report.comparison import compare_runs
from gap.report.comparison_page import write_comparison
from gap.report.page import write_report
from gap.report_options import ReportOptions


def write_reports(folders: Sequence[str], options: ReportOptions, command: str) -> Path:
    """Analyse the runs in these folders again and write their report, which shows `command`; returns its path.

    Raises ValueError without a run, and if the report of several runs has no separate folder.
    """
    output_dir = options.output_dir
    if not folders:
        raise ValueError("no run named: give one or more folders that hold scores.jsonl")
    runs = told_apart([RunSource.of(Path(folder)) for folder in folders])
    if len(runs) > 1 and output_dir is None:
        raise ValueError(f"{len(runs)} runs and no --output_dir: name a folder for their report")
    if len(runs) > 1 and Path(str(output_dir)).resolve() in [run.scores.resolve().parent for run in runs]:
        raise ValueError(f"--output_dir {output_dir} is one of the runs and holds its own report: name another")
    analyses = [analysis_of(run, options, command) for run in runs]
    if len(runs) == 1:
        return write_report(analyses[0], output_dir or runs[0].scores.parent)
    comparison = compare_runs(runs, draws=options.draws, seed=options.seed, confidence=options.confidence or 0.95)
    assert output_dir is not None
    return write_comparison(comparison, analyses, output_dir)


def analysis_of(run: RunSource, options: ReportOptions, *commands: str) -> Analysis:
    """The analysis of a run with its own prices, plan and looks, where the options do not say otherwise.

    `commands` are shown after those that made the run.
    """
    analysis = analyse(
        run.scores,
        series=run.series,
        prices=options.prices(run.prices),
        draws=options.draws,
        confidence=run.confidence if options.confidence is None else options.confidence,
        seed=options.seed,
        name=run.name,
        planned=run.planned,
        resolve=run.resolve if options.resolve is None else options.resolve,
        commands=[*run.commands, *commands],
        made=run.made,
    )
    history = history_note(run.looks, options.confidence)
    return replace(analysis, notes=(*analysis.notes, *run.notes, *([history] if history else [])))
