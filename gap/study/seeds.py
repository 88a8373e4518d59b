"""Looks at a study that may get more seeds: the pilot, and `--seeds_until_resolved`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gap.analysis.analysis import read_studies
from gap.analysis.planning import PilotVerdict, judge_pilot
from gap.analysis.results import Analysis
from gap.analysis.tables.run_folder import earlier_looks, earlier_study, write_study
from gap.cells.job_list import SCORES_NAME, JobList
from gap.cells.plan import FEWEST_SEEDS, CellSource
from gap.cells.provenance import made_by
from gap.intervals.bootstrap import Resampling
from gap.intervals.spending import ERROR, SeedLook, seed_look_error, seeds_to_look_at, with_look
from gap.study.experiment import Experiment
from gap.study.from_options import experiment_of
from gap.study.options import GapOptions
from gap.study.outlook import outlook
from gap.tasks.kinds.task_data import TaskData
from runtime.files.whole_files import write_json

PILOT_NAME = "pilot.json"
LARGER = 2  # times as many seeds as the pilot's: a study that it may lead to


def seed_stages(options: GapOptions) -> list[int]:
    """The numbers of fine-tuning seeds at which the study is analysed, one after the other."""
    if options.pilot or options.seeds_until_resolved is None:
        return [options.finetuning_seeds]
    return seeds_to_look_at(options.finetuning_seeds, options.seeds_until_resolved)


def warning_before(options: GapOptions) -> str | None:
    """What to say before cells run: that earlier looks have left none of the error for those to come."""
    before = earlier_looks(Path(options.output_dir))
    if options.seeds_until_resolved is None or not before:
        return None
    if sum(look.error for look in before) < ERROR * (1 - 1e-9) or any(
        look.finetuning_seeds == options.seeds_until_resolved for look in before
    ):
        return None
    return (
        "earlier looks at this study have spent the 5 % that all looks together may err: further ones are as if each "
        "were the first, and the report says so; to spend it over the looks, give --seeds_until_resolved from the "
        "first one on, in another --output_dir"
    )


def most_seeds(options: GapOptions) -> int:
    """The number of seeds over which the error of the looks is spent."""
    return options.seeds_until_resolved or options.finetuning_seeds


def looks_to_come(options: GapOptions, looks: Sequence[SeedLook], runs: int) -> dict[int, float]:
    """Confidence of the looks that the study will take after these, by their fine-tuning seeds."""
    found: dict[int, float] = {}
    for seeds in seed_stages(replace(options, pilot=False)):
        error = seed_look_error(looks, seeds, most_seeds(options), runs=runs)
        looks = with_look(looks, SeedLook(seeds, error, {}, runs=runs))
        found[seeds] = 1 - (error or ERROR)
    return found


def pilot_look(options: GapOptions, looks: Sequence[SeedLook], seeds: int, runs: int) -> SeedLook:
    """The look that a pilot with so many seeds takes after these.

    It may lead to more seeds than the study has now, so it spends as the pilot of a larger study does.
    """
    most = options.seeds_until_resolved or max(options.finetuning_seeds, LARGER * seeds)
    return SeedLook(seeds, seed_look_error(looks, seeds, most, runs=runs, pilot=True), {}, pilot=True, runs=runs)


def seeds_of_resolved(analysis: Analysis, seeds: int, before: Mapping[str, int]) -> dict[str, int]:
    """By task the seeds at which its gap was resolved, which it keeps; `before` are those of earlier looks."""
    found = {task.task: seeds for task in analysis.tasks if task.is_resolved(analysis.confidence)}
    return {**found, **before}


def finish_pilot(
    options: GapOptions,
    jobs: JobList,
    rows: Sequence[Mapping[str, Any]],
    sources: Sequence[CellSource],
    data: Mapping[str, TaskData],
    *,
    devices: int,
    command: str,
    series: Sequence[Path],
) -> list[PilotVerdict]:
    """Judge each task by the pilot's cells, write pilot.json and the look in study.json, and print the verdicts."""
    directory, planned = Path(options.output_dir), jobs.cell_names()
    before = earlier_study(directory, planned)
    looks = list(before.looks) if before else []
    pilot = experiment_of(options)
    runs = len({source.pretraining_seed for source in sources if source.is_scratch})
    own = pilot_look(options, looks, pilot.finetuning_seeds, runs)
    studies, _ = read_studies(
        directory / SCORES_NAME,
        series=rows,
        prices=options.prices(),
        resampling=Resampling(draws=options.draws),
        confidence=1 - (own.error or ERROR),
        planned=planned,
    )
    coming = looks_to_come(options, [*looks, own], runs)
    with_more = looks_to_come(options, [*looks, own], runs + 1)
    verdicts = [
        judge_pilot(study, study_seeds=max(coming), confidences=coming, more_runs=with_more[max(coming)])
        for study in studies
    ]
    resolved = {verdict.task: verdict.verdict == "resolved" for verdict in verdicts}
    if not any(look.is_at(own) and not look.pilot for look in looks):
        looks = with_look(looks, replace(own, resolved=resolved))
    full = experiment_of(replace(options, pilot=False))
    sentences = []
    for verdict in verdicts:
        seeds = verdict.finetuning_seeds or options.finetuning_seeds
        needed = max(verdict.pretraining_runs or runs, FEWEST_SEEDS if verdict.zero_shot else 1)
        all_runs = with_runs(sources, needed)
        hours = _hours(full, verdict.task, seeds, all_runs, data, directory, devices, corpus=jobs.corpus)
        sentences.append(verdict.sentence(max(coming), hours))
    # Cells of a study that has gone on after an earlier pilot stay its own.
    kept = planned | (before.planned or frozenset() if before else frozenset())
    commands = [*(before.commands if before else ()), command]
    write_study(
        directory,
        rows,
        planned=kept,
        commands=list(dict.fromkeys(commands)),
        notes=list(dict.fromkeys([*(before.notes if before else ()), *(f"Pilot: {each}" for each in sentences)])),
        prices=options.prices(),
        resolve=options.resolve,
        made=made_by(jobs, series),
        looks=looks,
    )
    write_json(directory / PILOT_NAME, {"schema_version": 1, "verdicts": [asdict(verdict) for verdict in verdicts]})
    print("\n".join(sentences))
    print(f"the pilot's cells are the first of the study: the same command without --pilot goes on; {_spent(looks)}")
    return verdicts


def with_runs(sources: Sequence[CellSource], runs: int) -> list[CellSource]:
    """The sources of so many pretraining runs: further ones have the checkpoints of the last."""
    seeds = sorted({source.pretraining_seed for source in sources if source.is_scratch})
    last = [
        source
        for source in sources
        if not (source.is_outside or source.is_start or source.control) and source.pretraining_seed == seeds[-1]
    ]
    more = range(1, runs - len(seeds) + 1)
    return [*sources, *(replace(one, pretraining_seed=seeds[-1] + number) for number in more for one in last)]


def _hours(
    full: Experiment,
    task: str,
    seeds: int,
    sources: Sequence[CellSource],
    data: Mapping[str, TaskData],
    directory: Path,
    devices: int,
    *,
    corpus: str | None,
) -> float:
    """Device-hours that the rest of the study takes on one task, with so many seeds and these pretraining runs."""
    own = replace(
        full,
        tasks=tuple(spec for spec in full.tasks if spec.name == task),
        tasks_at_ends=tuple(spec for spec in full.tasks_at_ends if spec.name == task),
        finetuning_seeds=seeds,
    )
    jobs = own.jobs(sources, {task: data[task]}, corpus=corpus)
    return outlook(jobs, {task: data[task]}, directory, devices=devices).device_seconds / 3600


def _spent(looks: Sequence[SeedLook]) -> str:
    spent = sum(look.error for look in looks)
    return f"{100 * spent:.2g} of the {100 * ERROR:g} % that all looks together may err are spent"
