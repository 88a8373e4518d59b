"""An experiment: its plan, the list of cells, and the analysis."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetuning.model.checkpoint_files import check_encoder, load_config
from gap.analysis.analysis import analyse
from gap.analysis.results import Analysis
from gap.analysis.tables.costs import Prices, pair_budgets
from gap.analysis.tables.run_folder import earlier_study, write_study
from gap.cells.code_identity import code_version
from gap.cells.consistency import check_same_architecture
from gap.cells.estimate import estimated_seconds, model_of, time_rows, work_of
from gap.cells.job_list import (
    SCORES_NAME,
    SEARCHES_NAME,
    CellOptions,
    JobList,
    cells_of_other_code,
    model_digest,
    write_jobs,
)
from gap.cells.plan import CellPlan, CellSource, Controls, Grid, make_plan, problems_of
from gap.cells.provenance import made_by
from gap.cells.searches import read_searches, same_arguments_notes
from gap.cells.store import Cell, read_scores
from gap.cells.worker import remaining
from gap.intervals.spending import ERROR, SeedLook, history_note, seed_look_error
from gap.report.page import write_report
from gap.tasks.contamination import Shards, write_contaminated, write_not_searched
from gap.tasks.kinds.task_data import TaskData, TaskSpec
from gap.tasks.rows import held_out, label_subset
from gap.tasks.specification import read_task, spec_text
from pretraining.checkpoints.origin import read_run
from pretraining.checkpoints.series import read_series
from runtime.plurals import counted
from runtime.processes.ranks import Ranks, choose_device

Say = Callable[[str], None]
UNKNOWN = "not pretrained yet"


@dataclass(frozen=True)
class Experiment:
    """The tasks, seeds, controls and options of a study."""

    tasks: tuple[TaskSpec, ...]
    tasks_at_ends: tuple[TaskSpec, ...] = ()
    finetuning_seeds: int = 3
    intervals: bool = True
    grid: Grid = field(default_factory=Grid)
    controls: Controls = field(default_factory=Controls)
    options: CellOptions = field(default_factory=CellOptions)

    def read(self) -> dict[str, TaskData]:
        """The examples of every task by its name; ValueError if train and test overlap, or a name occurs twice."""
        specs = [*self.tasks, *self.tasks_at_ends]
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks {', '.join(names)}: each name once; write NAME=KIND:PLACE to give another")
        return {spec.name: read_task(spec, self.options.reading) for spec in specs}

    def plan(self, sources: Sequence[CellSource]) -> CellPlan:
        """The cells; ValueError with everything that the plan could not answer."""
        plan = make_plan(
            sources,
            [spec.name for spec in self.tasks],
            tasks_at_ends=[spec.name for spec in self.tasks_at_ends],
            finetuning_seeds=self.finetuning_seeds,
            grid=self.grid,
            controls=self.controls,
        )
        problems = problems_of(plan, finetuning_seeds=self.finetuning_seeds, intervals=self.intervals)
        if problems:
            raise ValueError("; ".join(problems))
        return plan

    def jobs(self, sources: Sequence[CellSource], data: Mapping[str, TaskData]) -> JobList:
        """The list that the workers share.

        ValueError if checkpoints of the series differ in tokenizer or shape, or a search has no examples to judge by.
        """
        own = dict.fromkeys(source.path for source in sources if source.budget_tokens is not None)
        check_same_architecture(path for path in own if path != UNKNOWN)
        check_sources(sources)
        paths = dict.fromkeys(source.path for source in sources)
        plan = self.plan(sources)
        searched = dict.fromkeys((search.setting.task, search.setting.label_fraction) for search in plan.searches)
        for task, fraction in searched:
            held_out(data[task], label_subset(data[task], fraction))
        return JobList(
            plan,
            self.options,
            {spec.name: spec_text(spec) for spec in (*self.tasks, *self.tasks_at_ends)},
            {name: task.digest for name, task in data.items()},
            {path: path if path == UNKNOWN else model_digest(path) for path in paths},
            code_version(),
        )


def check_sources(sources: Sequence[CellSource]) -> None:
    """ValueError for a checkpoint that no cell can start from, before anything runs: see `check_encoder`."""
    trained = {source.path for source in sources if not source.from_scratch}
    for source in {other.path: other for other in sources}.values():
        option = "--reference" if source.budget_tokens is None else "--series"
        if source.path != UNKNOWN:
            check_encoder(source.path, from_scratch=source.path not in trained, option=option)


@dataclass(frozen=True)
class Outlook:
    """The remaining jobs and the estimated time for them."""

    cells: int
    searches: int
    finished: int
    device_seconds: float
    devices: int
    price_per_hour: float = 0.0
    currency: str = "$"

    def line(self) -> str:
        hours = self.device_seconds / 3600
        price = f", {self.currency}{hours * self.price_per_hour:.2f}" if self.price_per_hour else ""
        wall = self.device_seconds / self.devices
        shown = f"{wall / 60:.1f} minutes" if wall < 7200 else f"{wall / 3600:.1f} hours"
        return (
            f"{counted(self.cells, 'cell')} and {counted(self.searches, 'search')} to run, "
            f"{counted(self.finished, 'cell')} already finished: about "
            f"{shown} on {self.devices} device{'s' * (self.devices > 1)} at a time ({hours:.2f} device-hours{price})"
        )


def outlook(
    jobs: JobList,
    data: Mapping[str, TaskData],
    directory: Path,
    *,
    devices: int,
    config: Any = None,
    price_per_hour: float = 0.0,
    currency: str = "$",
) -> Outlook:
    """Count and estimate the remaining jobs; `config` replaces a model that is yet to be pretrained."""
    left = remaining(jobs, directory)
    finished = _finished_cells(jobs, directory)
    seconds = 0.0
    if left:
        device = choose_device(Ranks(local_world_size=devices))
        work = {name: work_of(task, jobs.options) for name, task in data.items()}
        models = {(job.setting.task, model_of(job.setting.source)): job.setting.source.path for job in left}
        speed = {
            key: time_rows(
                config if path == UNKNOWN else load_config(path), work[key[0]].row_tokens, jobs.options, device
            )
            for key, path in models.items()
        }
        seconds = estimated_seconds(jobs, left, finished, work, speed)
    cells = [job for job in left if job in set(jobs.plan.cells)]
    return Outlook(len(cells), len(left) - len(cells), len(finished), seconds, devices, price_per_hour, currency)


def write_list(
    jobs: JobList,
    data: Mapping[str, TaskData],
    directory: Path,
    shards: Shards | None,
    say: Say,
    *,
    no_shards: str = "the shards of the series are not known: name them with --shards",
) -> None:
    """Search for contamination (without shards, record why not), then write cells.json: now workers can start.

    First reports finished cells that do not belong to this list because other code trained them.
    """
    if warning := other_code_warning(jobs, directory):
        say(f"warning: {warning}")
    if shards is None:
        write_not_searched(directory, list(data.values()), no_shards)
    else:
        for name, number_found in write_contaminated(directory, list(data.values()), shards).items():
            if number_found:
                number = len(data[name].scored)
                say(f"warning: {number_found} of {number} scored examples of {name} occur in the pretraining corpus")
    write_jobs(directory, jobs)


def other_code_warning(jobs: JobList, directory: Path) -> str | None:
    """The message if finished cells of the existing list were trained by other code; None if there are none."""
    before, cells = cells_of_other_code(jobs, directory)
    if not cells:
        return None
    tasks = ", ".join(dict.fromkeys(cell.task for cell in cells))
    return (
        f"{len(cells)} finished cells of {tasks} in {directory} were trained by other code (sources {before[:16]}, now "
        f"{jobs.code[:16]}): they stay in {SCORES_NAME} and are run again. To report them as they are, use "
        f"launch/report.py {directory} before this command; to keep both, give another --output_dir; to go on with "
        "them, use the version that trained them"
    )


def shards_of(series: Path) -> str | None:
    """The shards that the run next to a series.json was trained on: an address, or a directory that still exists."""
    run = (series if series.is_dir() else series.parent) / "run.json"
    if not run.is_file():
        return None
    shards = read_run(run).shards
    if shards is None:
        return None
    return shards if "://" in shards or (Path(shards) / "manifest.json").is_file() else None


def series_rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The checkpoints of several series, one per pretraining seed, paired; ValueError if two have the same seed."""
    rows: list[dict[str, Any]] = []
    seeds: list[int] = []
    for path in paths:
        own = read_series(path)
        seeds += sorted({int(row["pretraining_seed"]) for row in own})
        rows += own
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--series: pretraining seeds {seeds}; the runs of one study must differ in --seed")
    return pair_budgets(rows)


def finish_experiment(
    directory: Path,
    jobs: JobList,
    rows: Sequence[Mapping[str, Any]],
    *,
    prices: Prices,
    draws: int,
    commands: Sequence[str],
    notes: Sequence[str] = (),
    resolve: float | None = None,
    series: Sequence[Path] = (),
    finetuning_seeds: int = 0,
    most_seeds: int | None = None,
) -> Analysis:
    """Analyse the scores and write report, curves and figures into the directory; study.json makes it repeatable.

    `series` are the series.json files: the report gives the options of the pretraining runs next to them. The study
    was looked at before with fewer than these `finetuning_seeds`, or will be with up to `most_seeds`: what the looks
    may err is spent over them.
    """
    own = [*same_arguments_notes(jobs, read_searches(directory / SEARCHES_NAME)), *notes]
    planned, made = jobs.cell_names(), made_by(jobs, series)
    before = earlier_study(directory, planned)
    commands = list(dict.fromkeys([*(before.commands if before else ()), *commands]))
    looks = list(before.looks) if before else []
    kept = partial(
        write_study,
        directory,
        rows,
        planned=planned,
        commands=commands,
        notes=own,
        prices=prices,
        resolve=resolve,
        made=made,
    )
    kept(looks=looks)
    error = seed_look_error(looks, finetuning_seeds, most_seeds or finetuning_seeds) if finetuning_seeds else ERROR
    analysis = analyse(
        directory / SCORES_NAME,
        series=rows,
        prices=prices,
        draws=draws,
        confidence=1 - (error or ERROR),
        commands=commands,
        made=made,
        planned=planned,
        resolve=resolve,
    )
    if finetuning_seeds:
        resolved = {task.task: not task.gap.includes_zero for task in analysis.tasks}
        looks.append(SeedLook(finetuning_seeds, error, resolved))
        kept(looks=looks)
    history = history_note(looks)
    analysis = replace(analysis, notes=(*analysis.notes, *own, *([history] if history else [])))
    write_report(analysis, directory)
    return analysis


def busy_seconds(directory: Path, jobs: JobList) -> float:
    """Seconds that training and evaluating the list's finished searches and cells took, over all workers."""
    names = {jobs.fingerprint(job) for job in jobs.plan.jobs()}
    records = read_searches(directory / SEARCHES_NAME)
    searched = sum(float(record["seconds"]) for name, record in records.items() if name in names)
    return searched + sum(cell.seconds for cell in _finished_cells(jobs, directory))


def _finished_cells(jobs: JobList, directory: Path) -> list[Cell]:
    path = directory / SCORES_NAME
    names = jobs.cell_names()
    return [cell for cell in read_scores(path) if cell.fingerprint in names] if path.is_file() else []


def set_lines(data: Mapping[str, TaskData]) -> list[str]:
    """For each task its examples and their clusters, which stay on one side of a split and are resampled whole."""
    lines = []
    for name, task in data.items():
        parts = []
        for examples, clusters, of in (
            (task.train, task.train_clusters, "for training"),
            (task.scored, task.scored_clusters, "scored"),
        ):
            parts.append(
                f"{counted(len(examples), 'example')} in {counted(len(set(clusters.values())), task.grouping)} {of}"
            )
        lines.append(f"{name}: {', '.join(parts)}")
    return lines


def plan_json(jobs: JobList) -> str:
    """Counts by task and kind, for people and machines."""
    counts: dict[str, int] = {}
    for cell in jobs.plan.cells:
        source = cell.setting.source
        kind = cell.control or ("scratch" if source.is_scratch else source.kind)
        counts[f"{cell.setting.task}: {kind}"] = counts.get(f"{cell.setting.task}: {kind}", 0) + 1
    return json.dumps(counts)
