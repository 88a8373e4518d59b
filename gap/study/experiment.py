"""An experiment: its plan, the list of cells, and the analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetuning.model.checkpoint_files import check_encoder, load_config
from finetuning.model.masked_lm import check_masked_lm
from gap.analysis.analysis import analyse
from gap.analysis.results import Analysis
from gap.analysis.tables.costs import Prices, pair_budgets
from gap.analysis.tables.run_folder import earlier_study, write_study
from gap.cells.code_identity import code_version, probe_version
from gap.cells.consistency import check_same_architecture
from gap.cells.estimate import work_of
from gap.cells.job_list import (
    SCORES_NAME,
    SEARCHES_NAME,
    CellOptions,
    JobList,
    cells_of_other_code,
    is_probe,
    model_digest,
    write_jobs,
)
from gap.cells.plan import CellPlan, CellSource, Controls, make_plan, problems_of
from gap.cells.provenance import made_by
from gap.cells.search.choice import read_searches
from gap.cells.search.grid import Grid
from gap.cells.search.notes import edge_notes, same_arguments_notes
from gap.cells.store import LINEAR_PROBE
from gap.intervals.spending import ERROR, SeedLook, history_note, seed_look_error, with_look
from gap.report.page import write_report
from gap.tasks.contamination import Shards, write_contaminated, write_not_searched
from gap.tasks.kinds.task_data import TaskData, TaskSpec
from gap.tasks.rows import held_out, label_subset
from gap.tasks.specification import is_zero_shot, read_task, spec_text
from pretraining.checkpoints.origin import run_digest
from pretraining.checkpoints.run_file import read_run
from pretraining.checkpoints.series import read_series
from pretraining.plan.identity import HEAD_WARMUP
from pretraining.publishing.model_card import named

PILOT_SEEDS = 3
Say = Callable[[str], None]
UNKNOWN = "not pretrained yet"
MOST_STATE_BYTES = 8 << 30  # hidden states of a linear probe's training examples


@dataclass(frozen=True)
class Experiment:
    """The tasks, seeds, controls and options of a study."""

    tasks: tuple[TaskSpec, ...]
    tasks_at_ends: tuple[TaskSpec, ...] = ()
    finetuning_seeds: int = 3
    intervals: bool = True
    grid: Grid = field(default_factory=Grid)  # without learning rates: those that follow each model's width
    reference_rates: tuple[float, ...] | None = None  # of the reference and its shape from scratch; None: as the grid
    controls: Controls = field(default_factory=Controls)
    options: CellOptions = field(default_factory=CellOptions)
    resample_split: bool = False  # and with it the search: anew for each fine-tuning seed
    linear_probe: bool = False  # of every checkpoint of the curve, beside its fine-tuning
    pilot: bool = False  # scratch and the end of each gap only
    task_seeds: Mapping[str, int] = field(default_factory=dict)  # of tasks that have other numbers of seeds

    def as_pilot(self) -> Experiment:
        """The first cells of this study that show which of its gaps can be resolved."""
        tasks = (*self.tasks, *self.tasks_at_ends)
        smaller = replace(self, tasks=(), tasks_at_ends=tasks, finetuning_seeds=PILOT_SEEDS, controls=Controls())
        return replace(smaller, linear_probe=False, pilot=True)

    @property
    def zero_shot(self) -> list[str]:
        """The names of the tasks on which nothing is fine-tuned."""
        return [spec.name for spec in (*self.tasks, *self.tasks_at_ends) if is_zero_shot(spec)]

    def read(self) -> dict[str, TaskData]:
        """The examples of every task by its name; ValueError if train and test overlap, or a name occurs twice."""
        specs = [*self.tasks, *self.tasks_at_ends]
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks {', '.join(names)}: each name once; write NAME=KIND:PLACE to give another")
        return {spec.name: read_task(spec, self.options.reading) for spec in specs}

    def grids(self, sources: Sequence[CellSource], width: int | None = None) -> tuple[Grid, Grid | None]:
        """The grid of the series and that of the reference, None where they are the same.

        `width` is that of a series which is yet to be pretrained. ValueError for options without an effect: rates of a
        reference that is not there, and what needs a search where nothing is searched.
        """
        grid, own = self._grids(sources, width)
        others = ["resample_split"] if self.resample_split else []
        others += ["same_arguments"] if self.controls.same_arguments and own in (None, grid) else []
        if others and not any(one is not None and one.is_searched for one in (grid, own)):
            raise ValueError(
                f"--{' and --'.join(others)}: one learning rate and one number of epochs for all, so nothing is "
                "searched: give several --learning_rates or --num_train_epochs, or leave it out"
            )
        return grid, own

    def _grids(self, sources: Sequence[CellSource], width: int | None) -> tuple[Grid, Grid | None]:
        outside = [source for source in sources if source.is_outside]
        if self.reference_rates is not None and not outside:
            raise ValueError("--reference_learning_rates without --reference: name the reference, or leave them out")
        grid = self.grid
        if not grid.learning_rates:
            path = next(source.path for source in sources if not source.is_outside)
            grid = grid.for_width(width or load_config(path, option="--series").hidden_size)
        if not outside:
            return grid, None
        own = self.grid if self.reference_rates is None else replace(self.grid, learning_rates=self.reference_rates)
        if not own.learning_rates:
            own = own.for_width(load_config(outside[0].path, option="--reference").hidden_size)
        return grid, None if own == grid else own

    def plan(self, sources: Sequence[CellSource], width: int | None = None) -> CellPlan:
        """The cells; ValueError with everything that the plan could not answer."""
        tuned = [spec.name for spec in self.tasks if not is_zero_shot(spec)]
        if self.linear_probe and not tuned:
            raise ValueError(
                "--linear_probe probes the curves of the fine-tuned --tasks, and there is none: name one there "
                "(--tasks_at_ends has no curve), or leave the probe out"
            )
        grid, reference_grid = self.grids(sources, width)
        plan = make_plan(
            [source for source in sources if not (self.pilot and source.from_scratch)],
            [spec.name for spec in self.tasks],
            tasks_at_ends=[spec.name for spec in self.tasks_at_ends],
            zero_shot=self.zero_shot,
            finetuning_seeds=self.finetuning_seeds,
            task_seeds=self.task_seeds,
            grid=grid,
            reference_grid=reference_grid,
            controls=self.controls,
            resample_split=self.resample_split,
        )
        if self.pilot:  # random weights are no end of a zero-shot task's gap
            plan = replace(plan, cells=tuple(cell for cell in plan.cells if not cell.is_scored_scratch))
        problems = problems_of(plan, intervals=self.intervals, pilot=self.pilot)
        if problems:
            raise ValueError("; ".join(problems))
        return with_probes(plan, tuned) if self.linear_probe else plan

    def jobs(
        self,
        sources: Sequence[CellSource],
        data: Mapping[str, TaskData],
        width: int | None = None,
        *,
        corpus: str | None = None,
    ) -> JobList:
        """The list that the workers share; `width` as in `grids`, `corpus` as in `JobList`.

        ValueError if checkpoints of the series differ in tokenizer or shape, a search has no examples to judge by, or a
        zero-shot task has no corpus or a checkpoint without a masked-language head.
        """
        if self.zero_shot and corpus is None:
            raise ValueError(
                f"{', '.join(self.zero_shot)}: its floor is the frequencies of the pretraining corpus, and the shards "
                "of the series are not known: name them with --shards"
            )
        own = dict.fromkeys(source.path for source in sources if source.budget_tokens is not None)
        check_same_architecture(path for path in own if path != UNKNOWN)
        check_sources(sources, masked_lm=bool(self.zero_shot))
        paths = dict.fromkeys(source.path for source in sources)
        plan = self.plan(sources, width)
        parts = ((search.setting.task, search.setting.label_fraction, search.split) for search in plan.searches)
        for task, fraction, split in dict.fromkeys(parts):
            held_out(data[task], label_subset(data[task], fraction), split)
        check_probes(plan, data, self.options, width)
        return JobList(
            plan,
            self.options,
            {spec.name: spec_text(spec) for spec in (*self.tasks, *self.tasks_at_ends)},
            {name: task.digest for name, task in data.items()},
            {path: path if path == UNKNOWN else model_digest(path) for path in paths},
            code_version(),
            corpus if self.zero_shot else None,
            probe_version() if self.linear_probe else None,
        )


def with_probes(plan: CellPlan, tasks: Sequence[str]) -> CellPlan:
    """The plan with a linear probe beside every fine-tuned checkpoint of the curves of `tasks`.

    A probe has one optimum: only random weights, drawn for every fine-tuning seed, give it a different score with each.
    """
    probes = [
        replace(cell, control=LINEAR_PROBE)
        for cell in plan.cells
        if cell.setting.task in tasks and cell.control is None and not cell.zero_shot
        if cell.setting.source.starts_random or cell.finetuning_seed == 0
    ]
    return replace(plan, cells=(*plan.cells, *probes))


def check_probes(plan: CellPlan, data: Mapping[str, TaskData], options: CellOptions, width: int | None) -> None:
    """ValueError for a probe whose hidden states do not fit in memory, or whose strength has no examples to judge by.

    `width` is that of a series which is yet to be pretrained.
    """
    cells = [cell for cell in plan.cells if is_probe(cell)]
    for task, path in dict.fromkeys((cell.setting.task, cell.setting.source.path) for cell in cells):
        own = data[task]
        held_out(own, label_subset(own, 1.0))
        work = work_of(own, options)
        items = work.train_rows * (work.row_tokens if own.windowed else 1)
        states = 4 * items * (width if path == UNKNOWN and width else load_config(path).hidden_size)
        if states > MOST_STATE_BYTES:
            raise ValueError(
                f"--linear_probe: the hidden states of task {task} take about {states / 2**30:.0f} GiB, one for every "
                f"token of its {len(own.train):,} training examples; at most {MOST_STATE_BYTES / 2**30:.0f} GiB are "
                "kept: give the task fewer examples (KIND:PLACE@N, --max_train_samples), or leave the probe out"
            )


def check_sources(sources: Sequence[CellSource], *, masked_lm: bool = False) -> None:
    """ValueError for a checkpoint that no cell can start from, before anything runs: see `check_encoder`.

    `masked_lm`: for one without a masked-language head, too.
    """
    trained = {source.path for source in sources if not source.from_scratch}
    for source in {other.path: other for other in sources}.values():
        option = "--reference" if source.budget_tokens is None else "--series"
        if source.path != UNKNOWN:
            config, _ = check_encoder(source.path, from_scratch=source.path not in trained, option=option)
            if masked_lm and source.path in trained and not source.is_scratch:
                check_masked_lm(source.path, config, option=option)


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
    """The checkpoints of several series, one per pretraining seed, paired.

    ValueError if two have the same seed, or start from other weights.
    """
    rows: list[dict[str, Any]] = []
    seeds: list[int] = []
    refuse_one_run_twice(paths)
    for path in paths:
        own = with_start(read_series(path), path)
        check_same_start(rows, own, path)
        seeds += sorted({int(row["pretraining_seed"]) for row in own})
        rows += own
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--series: pretraining seeds {seeds}; the runs of one study must differ in --seed")
    return pair_budgets(rows)


def refuse_one_run_twice(paths: Sequence[Path]) -> None:
    """ValueError where two series are of one run, as its folder and its repository on the hub are."""
    before: dict[str, Path] = {}
    for path in paths:
        run = run_digest(path if path.is_dir() else path.parent)
        if run is not None and before.setdefault(run, path) != path:
            raise ValueError(f"--series: {before[run]} and {path} are the same run: name one of them")


def with_start(rows: Sequence[Mapping[str, Any]], series: Path) -> list[dict[str, Any]]:
    """Rows with the checkpoint that their run continues; those of earlier versions lack it, the run.json does not.

    A head that was trained alone first was a fresh one.
    """
    run = (series if series.is_dir() else series.parent) / "run.json"
    if any("fresh_head" in row for row in rows) or not run.is_file():
        return [dict(row) for row in rows]
    identity = read_run(run).identity or {}
    source = identity.get("model_name_or_path")
    if not isinstance(source, str):
        return [dict(row) for row in rows]
    own = {"started_from": named(source), "fresh_head": bool(identity.get(HEAD_WARMUP))}
    return [{**own, **row} for row in rows]


def check_same_start(before: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """ValueError if the runs of one study start from other weights: one from random ones, or from two checkpoints."""
    if not (before and rows):
        return
    first, second = before[0], rows[0]
    digests = [row.get("started_digest") for row in (first, second)]
    names = [row.get("started_from") for row in (first, second)]
    same = digests[0] == digests[1] if all(digests) else names[0] == names[1]
    if not same:
        texts = [f"continues {name}" if name else "starts from random weights" for name in names]
        if names[0] == names[1]:
            texts = [f"{text} ({digest[:12]})" for text, digest in zip(texts, map(str, digests), strict=True)]
        raise ValueError(
            f"{path}: this run {texts[1]}, another of the study {texts[0]}: the runs of one study start from the same "
            "weights, or from random ones of the same shape; study them apart and compare with launch/report.py"
        )


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
    searches = read_searches(directory / SEARCHES_NAME)
    own = [*edge_notes(jobs, searches), *same_arguments_notes(jobs, searches), *notes]
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
    runs = len({cell.setting.source.pretraining_seed for cell in jobs.plan.cells if cell.setting.source.is_scratch})
    error = ERROR
    if finetuning_seeds:
        error = seed_look_error(looks, finetuning_seeds, most_seeds or finetuning_seeds, runs=runs)
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
        resolved = {task.task: task.is_resolved(analysis.confidence) for task in analysis.tasks}
        looks = with_look(looks, SeedLook(finetuning_seeds, error, resolved, runs=runs))
        kept(looks=looks)
    history = history_note(looks)
    analysis = replace(analysis, notes=(*analysis.notes, *own, *([history] if history else [])))
    write_report(analysis, directory)
    return analysis
