"""The GLUE run: training, scoring and saving of each task."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.examples.dataset_records import SAVE_IT, read_dataset
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.recipes.options.glue import GlueOptions
from finetuning.recipes.texts.glue_table import glue_rows, write_table
from finetuning.recipes.texts.glue_tasks import (
    GLUE_TASKS,
    STARTED_FROM_MNLI,
    GlueTask,
    from_dataset,
    read_glue,
    task_files,
)
from finetuning.recipes.texts.labelled_text import LabelledText
from finetuning.recipes.texts.metrics import classification_metrics, regression_metrics
from finetuning.recipes.texts.text_run import TextTask, names_of, run_task
from finetuning.run.command import finish_world, open_world, output_directory
from finetuning.run.starting_point import StartingPoint, open_start, starting_point
from runtime.processes.ranks import Ranks
from shards.text.saved_datasets import is_saved

DEFAULT_DATASET = "nyu-mll/glue"


def run(options: GlueOptions, asked: Asked) -> int:
    """Run the command with parsed options: every task asked for, then the table."""
    tasks = tasks_of(options)
    refuse_idle(options, tasks)
    ranks = open_world(options)
    directory = output_directory(options, "glue")
    places = {task.name: directory if len(tasks) == 1 else directory / task.name for task in tasks}
    present = require_data(options, tasks)
    starts = starting_points(options, present)
    missing = [task.title for task in tasks if task not in present]
    if missing and ranks.is_main:
        print(f"no data in {options.data_dir or options.dataset_name}, skipped: {', '.join(missing)}", flush=True)
    results_by_task = {
        task.name: run_glue_task(
            task, read_splits(task, options), options, starts[task.name], places[task.name], ranks, asked
        )
        for task in present
    }
    if ranks.is_main:
        collect_submissions(results_by_task, places, directory, several_seeds=len(options.seeds) > 1)
        if options.max_eval_samples is not None and (directory / "submission").is_dir():
            print(f"note: --max_eval_samples {options.max_eval_samples}: submission files may lack rows", flush=True)
        print(write_table(glue_rows(results_by_task), directory, missing=missing), flush=True)
    finish_world()
    return 0


def starting_points(options: GlueOptions, tasks: Sequence[GlueTask]) -> dict[str, StartingPoint]:
    """The checkpoint of each task; opened once for all tasks, before the first runs. Every rank calls it."""
    from_mnli = [task.name for task in tasks if starts_from_mnli(options, task)]
    starts: dict[str, StartingPoint] = {}
    if options.mnli_checkpoint is not None:
        mnli = open_start(options.mnli_checkpoint, from_scratch=options.from_scratch, option="--mnli_checkpoint")
        starts |= dict.fromkeys(from_mnli, mnli)
    if len(from_mnli) < len(tasks):
        # A default pretraining run that is still going would give later tasks another model.
        common = starting_point(options)
        starts = {task.name: starts.get(task.name, common) for task in tasks}
    return starts


def starts_from_mnli(options: GlueOptions, task: GlueTask) -> bool:
    """Whether the task starts from --mnli_checkpoint."""
    return options.mnli_checkpoint is not None and task.name in STARTED_FROM_MNLI


def tasks_of(options: GlueOptions) -> list[GlueTask]:
    """The tasks that --task_name names; ValueError with the list for any other name."""
    named = [name.strip().lower() for name in (options.task_name or "").split(",") if name.strip()]
    if named == ["all"]:
        return list(GLUE_TASKS.values())
    unknown = [name for name in named if name not in GLUE_TASKS]
    if unknown or not named or len(set(named)) < len(named):
        raise ValueError(f"--task_name {options.task_name}: use each of {', '.join(GLUE_TASKS)} once, or all")
    return [GLUE_TASKS[name] for name in named]


def refuse_idle(options: GlueOptions, tasks: Sequence[GlueTask]) -> None:
    """ValueError for options that would have no effect."""
    if options.mnli_checkpoint is not None and not any(task.name in STARTED_FROM_MNLI for task in tasks):
        raise ValueError(
            f"--mnli_checkpoint {options.mnli_checkpoint} and --task_name {options.task_name}: only "
            f"{', '.join(STARTED_FROM_MNLI)} start from it; drop one of the two"
        )
    for name in ("label_smoothing", "balance_classes"):
        if getattr(options, name) and not any(task.labels for task in tasks):
            raise ValueError(
                f"--{name} and --task_name {options.task_name}: a regression has no classes; drop --{name}"
            )


def require_data(options: GlueOptions, tasks: Sequence[GlueTask]) -> list[GlueTask]:
    """The tasks to run; for `all`, those with a folder in the named one.

    Raises ValueError, before the first task is trained, if a task lacks a file or there is no task at all.
    """
    named = Path(options.data_dir or options.dataset_name or DEFAULT_DATASET)
    folders = {task.name: task.folder if options.data_dir else task.name for task in tasks}
    is_collection = options.data_dir is not None or (named.is_dir() and not is_saved(named))
    present = list(tasks)
    if is_collection and (options.task_name or "").strip().lower() == "all":
        present = [task for task in tasks if (named / folders[task.name]).is_dir()]
    if not present:
        given = "--data_dir" if options.data_dir else "--dataset_name"
        raise ValueError(f"{given} {named} holds none of {', '.join(folders.values())}")
    if options.data_dir is not None:
        for task in present:
            task_files(task, options.data_dir, train=makes_updates(options))
    return present


def read_splits(task: GlueTask, options: GlueOptions) -> Mapping[str, list[LabelledText]]:
    """The task's examples."""
    if options.data_dir is None:
        name = options.dataset_name or DEFAULT_DATASET
        saved = Path(name) / task.name
        if saved.is_dir():
            return from_dataset(task, read_dataset(str(saved), class_names=False))
        remedy = f"name a folder with --data_dir, or {SAVE_IT}"
        return from_dataset(task, read_dataset(name, task.name, class_names=False, remedy=remedy))
    return read_glue(task, options.data_dir, train=makes_updates(options), on_bad_text=options.on_bad_text)


def run_glue_task(
    task: GlueTask,
    splits: Mapping[str, list[LabelledText]],
    options: GlueOptions,
    start: StartingPoint,
    directory: Path,
    ranks: Ranks,
    asked: Asked,
) -> list[dict[str, Any]]:
    """Every seed of one task; the results say whether it was started from MNLI."""
    started = starts_from_mnli(options, task)
    if started and ranks.is_main:
        print(f"{task.title}: started from {start.name}, which was fine-tuned on MNLI", flush=True)
    whole = TextTask(f"glue_{task.name}", task.labels, splits, task.metrics, task)
    return [
        {**result, "started_from_mnli": started} for result in run_task(whole, options, start, directory, ranks, asked)
    ]


def collect_submissions(
    results_by_task: Mapping[str, list[dict[str, Any]]],
    places: Mapping[str, Path],
    directory: Path,
    *,
    several_seeds: bool,
) -> None:
    """Copy every task's submission files, from the seed with the best validation score, into one folder."""
    for name, results in results_by_task.items():
        best = max(results, key=lambda result: float(result.get(f"eval_{result['metric']}") or 0.0))
        place = places[name] / f"seed-{best['seed']}" if several_seeds else places[name]
        for split, file in GLUE_TASKS[name].submissions.items():
            written = next((path for path in (place / file, place / split / file) if path.is_file()), None)
            if written is not None:
                (directory / "submission").mkdir(exist_ok=True)
                shutil.copyfile(written, directory / "submission" / file)


def score_names() -> list[str]:
    """The names that the scoring functions of classes and of a regression give, and those that GLUE adds."""
    scores = classification_metrics(np.eye(2), [0, 1]), regression_metrics([0.0, 1.0], [0.0, 1.0])
    return [*names_of(*scores), "absolute_error", "combined_score"]
