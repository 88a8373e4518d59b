"""The checkpoints that a study fine-tunes: the series, the control run of a middle budget, the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gap.analysis.tables.costs import pair_budgets
from gap.cells.consistency import model_types_of
from gap.cells.job_list import JobList
from gap.cells.plan import SELF_PRETRAINED, CellSource, largest_sources, reference_sources, sources_of
from gap.study.experiment import UNKNOWN, Experiment, check_same_start, series_rows, shards_of
from gap.study.from_options import experiment_of
from gap.study.options import GapOptions
from gap.study.small_world import expected_config, expected_own_run, expected_sources, series_paths
from gap.tasks.kinds.task_data import ReadingOptions, TaskData
from gap.tasks.training_texts import holds_training_texts
from gap.tasks.unigram import corpus_digest
from pretraining.checkpoints.series import read_series
from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import numbers
from shards.storage.location import open_location


def jobs_before_pretraining(
    options: GapOptions, runs: Sequence[PretrainingOptions]
) -> tuple[JobList, dict[str, TaskData], Any]:
    """The list as far as it is known, and the configuration of models yet to be pretrained (None: they exist).

    ValueError with everything that the plan cannot answer.
    """
    experiment, paths = experiment_of(options), series_paths(options)
    config = None
    if options.series is not None or all(path.is_file() for path in paths):
        sources = sources_of(series_rows(paths), options.kind_names)
        sources += extra_sources(options) if own_run_exists(options) else expected_own_run(options, runs)
    else:
        sources, config = expected_sources(options, runs), expected_config(runs[0])
    sources = of_budgets(sources, options.budgets)
    data = experiment.read()
    sources += self_pretrained_sources(options, data)
    width = None if config is None else config.hidden_size
    corpus = UNKNOWN if options.series is None and options.shards is None else known_corpus(options, experiment)
    sources += reference_sources(options.reference)
    return experiment.jobs(sources, data, width, corpus=corpus), data, config


def known_shards(options: GapOptions) -> str | None:
    """The shards that were named, else those in the run.json next to the first series."""
    return options.shards or shards_of(series_paths(options)[0])


def known_corpus(options: GapOptions, experiment: Experiment) -> str | None:
    """The digest of the shards whose token frequencies are a floor; None if none is needed or they are not known."""
    shards = known_shards(options) if experiment.zero_shot else None
    return None if shards is None else corpus_digest(shards)


def of_budgets(sources: Sequence[CellSource], budgets: str | None) -> list[CellSource]:
    """Scratch and the checkpoints of these budgets in tokens, such as `1.25e6,5e6`; None: all.

    ValueError for a budget that the series does not have, or if a run for one budget alone has none of them.
    """
    wanted = {round(budget) for budget in numbers(budgets)}
    there = {source.budget_tokens for source in sources if source.budget_tokens and not source.control}
    if missing := sorted(wanted - there):
        own = ", ".join(f"{budget:,}" for budget in sorted(budget for budget in there if budget is not None))
        raise ValueError(f"--budgets {budgets}: {', '.join(f'{one:,}' for one in missing)} is not a budget; use {own}")
    alone = {source.budget_tokens for source in sources if source.control}
    if wanted and alone and wanted.isdisjoint(alone):
        own = ", ".join(f"{budget:,}" for budget in sorted(budget for budget in alone if budget is not None))
        raise ValueError(
            f"--budgets {budgets}: the run for one budget alone has {own}, and is compared with the series there: name "
            "that budget as well, or leave out --independent (--full)"
        )
    kept = wanted | {0}
    return [source for source in sources if not wanted or source.budget_tokens in kept]


def families_of(options: GapOptions) -> set[str]:
    """The model families of the checkpoints that exist: of the series, and of a reference that is a directory."""
    paths = [path for path in series_paths(options) if path.is_file()]
    places = [str(row["path"]) for path in paths for row in read_series(path)]
    return model_types_of([*places, *([options.reference] if options.reference else [])])


def own_run_exists(options: GapOptions) -> bool:
    """Whether the control run of a middle budget exists (a named one must), or none is asked for."""
    path = options.independent_run
    return path is None or options.independent is not None or path.exists()


def extra_sources(options: GapOptions) -> list[CellSource]:
    """The control run of a middle budget alone, if there is one.

    ValueError if it has a seed of the series, whose branch it would then repeat, or none of the series' budgets.
    """
    path = options.independent_run
    if path is None:
        return []
    series = series_rows(series_paths(options))
    own = pair_budgets(series_rows([path]), like=series)
    check_same_start(series, own, path)
    seeds = {int(row["pretraining_seed"]) for row in series} & {int(row["pretraining_seed"]) for row in own}
    if seeds:
        raise ValueError(f"--independent {path}: seed {min(seeds)} is the series' own; pretrain it with another --seed")
    rows = [row for row in own if row["kind"] == "annealed"]
    budgets = {round(row["budget_tokens"]) for row in series if row["kind"] == "annealed"}
    if budgets.isdisjoint(round(row["budget_tokens"]) for row in rows):
        raise ValueError(f"--independent {path}: no annealed checkpoint of a budget of the series, {sorted(budgets)}")
    return [
        CellSource(
            row["path"],
            "annealed",
            round(row["budget_tokens"]),
            int(row["pretraining_seed"]),
            control="independent_run",
        )
        for row in rows
    ]


def self_pretrained_sources(options: GapOptions, data: Mapping[str, TaskData]) -> list[CellSource]:
    """The largest checkpoint of each run on the training texts of a task alone; it is fine-tuned on that task.

    ValueError if its shards hold anything else, or are not there any more, it starts from other weights, or the task is
    run at the ends of the gap only.
    """
    if options.self_pretrained is None:
        return []
    paths = [Path(part.strip()) for part in options.self_pretrained.split(",") if part.strip()]
    rows = series_rows(paths)
    check_same_start(series_rows(series_paths(options)), rows, paths[0])
    reading = experiment_of(options).options.reading
    tasks = {_task_of(path, data, reading) for path in paths}
    if len(tasks) > 1:
        raise ValueError(
            f"--self_pretrained {options.self_pretrained}: runs on the texts of {' and '.join(sorted(tasks))}; name "
            "the runs of one task"
        )
    task = min(tasks)
    if task not in [spec.name for spec in experiment_of(replace(options, pilot=False)).tasks]:
        raise ValueError(
            f"--self_pretrained {options.self_pretrained}: runs on the texts of {task}, one of --tasks_at_ends, where "
            "no control is run: name the task in --tasks, or leave the runs out"
        )
    largest = largest_sources(sources_of(rows, ["annealed"]))
    if len({source.budget_tokens for source in largest}) > 1:
        raise ValueError(f"--self_pretrained {options.self_pretrained}: the largest budgets of the runs differ")
    return [replace(source, control=SELF_PRETRAINED, task=task) for source in largest]


def _task_of(series: Path, data: Mapping[str, TaskData], reading: ReadingOptions) -> str:
    """The task whose training texts a run was pretrained on, and nothing else."""
    shards = shards_of(series)
    if shards is None:
        raise ValueError(
            f"--self_pretrained {series}: its run.json names no shards that are still there, so what it was trained on "
            "is unknown: put them back where they were"
        )
    manifest = open_location(shards).manifest
    for name, task in data.items():
        if holds_training_texts(manifest, task, reading):
            return name
    raise ValueError(
        f"--self_pretrained {series}: its shards, {shards}, were not built from exactly the training texts of "
        f"{' or '.join(data)}: build them with launch/build_shards.py --task and the specification of --tasks, its @N "
        "included"
    )
