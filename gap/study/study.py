"""A whole study, from parsed options to its report: pretraining, plan, cells, analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gap.analysis.results import Analysis
from gap.cells.code_identity import code_version
from gap.cells.consistency import settled_bf16
from gap.cells.executor import Workers, devices_of, run_local, submit_slurm, waiting_workers
from gap.cells.job_list import JobList
from gap.cells.plan import CellSource, reference_sources, sources_of
from gap.cells.worker import work
from gap.study.clock import Clock
from gap.study.experiment import Experiment, finish_experiment, other_code_warning, series_rows, write_list
from gap.study.from_options import experiment_of, slurm_of
from gap.study.options import GapOptions
from gap.study.outlook import busy_seconds, method_notes, outlook, plan_lines, set_lines
from gap.study.seeds import finish_pilot, most_seeds, seed_stages, seeds_of_resolved, warning_before
from gap.study.small_world import pretrain_series, pretraining_runs, series_paths
from gap.study.sources import (
    extra_sources,
    families_of,
    jobs_before_pretraining,
    known_corpus,
    known_shards,
    of_budgets,
    self_pretrained_sources,
)
from gap.tasks.kinds.task_data import TaskData
from gap.tasks.unigram import write_token_counts
from pretraining.checkpoints.stored_series import cached_series
from pretraining.loop.training_data import SMALL_WORLD_DIRECTORY, build_small_world
from pretraining.plan.options import PretrainingOptions
from pretraining.publishing.hub_download import local_series
from runtime.files.lock import Ownership
from runtime.processes.collectives import barrier, broadcast_json
from runtime.processes.ranks import Ranks, choose_device, close_process_group, init_process_group, read_ranks
from runtime.stores.records import mirrored_records


def run_study(options: GapOptions, command: str, clock: Clock) -> Analysis | None:
    """The whole study: pretrain what is missing, run the cells, write the report; its analysis on the main rank.

    `command` is the command line or the call that the report shows. Without a report (a dry run, a pilot, jobs that
    were submitted) there is no analysis. Raises Interrupted when asked to stop; finished work is kept.
    """
    code_version()  # of the sources that this process runs, even if the files change while it pretrains
    ranks, directory = read_ranks(), Path(options.output_dir)
    options = in_the_cache(options)
    upload = options.upload if ranks.is_main and not options.dry_run else None
    with mirrored_records(upload, directory, wait_minutes=options.upload_wait_minutes, leave_out=_is_no_result):
        return _run_study(options, ranks, directory, command, clock)


def in_the_cache(options: GapOptions) -> GapOptions:
    """The options with each series at an address replaced by its verified copy in the cache."""

    def local(places: str | None) -> str | None:
        return cached_series(places) if places else places

    return replace(
        options,
        series=local(options.series),
        independent=local(options.independent),
        self_pretrained=local(options.self_pretrained),
    )


def _is_no_result(name: str) -> bool:
    """The small world's pretraining runs, weights, and locks: what --upload leaves out."""
    return name.startswith("pretraining/") or name.endswith((".safetensors", ".lock"))


def _run_study(options: GapOptions, ranks: Ranks, directory: Path, command: str, clock: Clock) -> Analysis | None:
    if options.series is not None:
        options = replace(options, series=local_series(options.series))
    bf16 = settled_bf16(options.bf16, directory, model_types=families_of(options), elsewhere=options.runs_on_other_gpus)
    options = replace(options, bf16=bf16)
    runs = pretraining_runs(options)
    with clock.pretraining():
        if options.series is None and ranks.is_main:
            build_small_world(SMALL_WORLD_DIRECTORY)
    if options.dry_run:
        if ranks.is_main:
            show_plan(options, runs, directory)
        return None
    if options.series is None and ranks.is_main:
        jobs_before_pretraining(options, runs)  # an impossible plan is refused before hours of training
    with clock.pretraining():
        pretrain_series(runs)
    owner = Ownership(directory)
    try:
        return run_stages(options, ranks, owner, command=command, clock=clock)
    finally:
        owner.release()


def run_stages(options: GapOptions, ranks: Ranks, owner: Ownership, *, command: str, clock: Clock) -> Analysis | None:
    """Run the study, with more and more seeds for what is not resolved if so asked; the analysis of its last stage.

    The same command goes on inside any stage: the cells of earlier ones are finished, and give the same verdicts.
    """
    alone = ranks.world_size == 1 and options.executor == "local"
    others = devices_of(options.max_parallel)[1:] if alone else []  # this process uses the first
    kept: dict[str, int] = {}  # by task that is resolved, its seeds
    analysis: Analysis | None = None
    if ranks.is_main and (warning := warning_before(options)):
        print(f"warning: {warning}", flush=True)
    for seeds in seed_stages(options):
        stage = replace(options, finetuning_seeds=seeds)
        experiment = replace(experiment_of(stage), task_seeds=kept)
        with waiting_workers(Path(options.output_dir), others) as workers:
            kept, tasks, analysis = run_cells(
                stage, experiment, most_seeds(options), ranks, owner, workers, command=command, clock=clock
            )
        if len(kept) == tasks:
            break
    return analysis


def run_cells(
    options: GapOptions,
    experiment: Experiment,
    most: int,
    ranks: Ranks,
    owner: Ownership,
    workers: Workers,
    *,
    command: str,
    clock: Clock,
) -> tuple[dict[str, int], int, Analysis | None]:
    """Plan, work through the list and write the report; the main rank locks the directory throughout.

    Returns, on all ranks, the seeds of each fine-tuned task that is resolved, and the number of such tasks; on the main
    rank the analysis too. `most`: the fine-tuning seeds over which the error is spent.
    """
    directory, paths = Path(options.output_dir), series_paths(options)
    rows = series_rows(paths)
    series = of_budgets([*sources_of(rows, options.kind_names), *extra_sources(options)], options.budgets)
    sources = [*series, *reference_sources(options.reference)]
    if options.pilot:
        whole = experiment_of(replace(options, pilot=False))
        replace(whole, pilot=True).plan(sources)  # what the study could not answer is refused now; runs are planned
        if options.self_pretrained is not None and ranks.is_main:
            print("--pilot leaves out --self_pretrained: as all controls, it is run with the study", flush=True)
    jobs, data = prepare(options, experiment, sources, directory, ranks, owner)
    if options.executor == "slurm":
        print("submitted: " + (", ".join(submit_slurm(directory, slurm_of(options))) or "nothing, all cells are done"))
        print("when they are done, run the same command with --executor local, which analyses the finished cells")
        return {}, len(data) - len(experiment.zero_shot), None
    before = busy_seconds(directory, jobs)
    if ranks.world_size > 1:
        work(directory, ranks=ranks)
    else:
        run_local(directory, workers)
    kept: dict[str, int] = {}
    analysis: Analysis | None = None
    if ranks.is_main:
        number = max(ranks.world_size, len(devices_of(options.max_parallel)))
        if options.pilot:
            whole_sources = [*sources, *self_pretrained_sources(options, data)]
            finish_pilot(options, jobs, rows, whole_sources, data, devices=number, command=command, series=paths)
        else:
            analysis = finish_experiment(
                directory,
                jobs,
                rows,
                prices=options.prices(),
                draws=options.draws,
                commands=[command],
                notes=method_notes(jobs),
                resolve=options.resolve,
                series=paths,
                finetuning_seeds=options.finetuning_seeds,
                most_seeds=most,
            )
            kept = seeds_of_resolved(analysis, options.finetuning_seeds, experiment.task_seeds)
            kept = {task: seeds for task, seeds in kept.items() if task not in experiment.zero_shot}
            warnings = [f"warning: {task.task}: {one}" for task in analysis.tasks for one in task.warnings]
            notes = [f"note: {note}" for note in analysis.notes]
            print(*(task.answer for task in analysis.tasks), *warnings, *notes, sep="\n")
        report = f"; report: {directory}/report.html" * (not options.pilot)
        print(f"{clock.line(busy_seconds(directory, jobs) - before, number)}{report}", flush=True)
    if options.seeds_until_resolved is not None and ranks.world_size > 1:
        init_process_group(ranks, choose_device(ranks))
        kept = broadcast_json(kept)
        close_process_group()
    return kept, len(data) - len(experiment.zero_shot), analysis


def prepare(
    options: GapOptions,
    experiment: Experiment,
    sources: list[CellSource],
    directory: Path,
    ranks: Ranks,
    owner: Ownership,
) -> tuple[JobList, dict[str, TaskData]]:
    """The main rank plans, estimates, locks the directory and writes the list; all ranks return once it is on disk."""
    init_process_group(ranks, choose_device(ranks))
    data: dict[str, TaskData] = experiment.read()
    sources = [*sources, *self_pretrained_sources(options, data)]
    jobs = experiment.jobs(sources, data, corpus=known_corpus(options, experiment))
    if ranks.is_main:
        print(*plan_lines(jobs), sep="\n", flush=True)
        devices = devices_at_once(options, ranks.world_size)
        print(*set_lines(data), sep="\n")
        print(outlook(jobs, data, directory, devices=devices, **options.price()).line(), flush=True)
        owner.take()
        shards = known_shards(options)
        if jobs.corpus is not None and shards is not None:
            write_token_counts(directory, shards, jobs.code)
        if options.contamination:
            write_list(jobs, data, directory, shards, print)
        else:
            write_list(jobs, data, directory, None, print, no_shards="--contamination false")
    barrier()
    close_process_group()
    return jobs, data


def show_plan(options: GapOptions, runs: Sequence[PretrainingOptions], directory: Path) -> None:
    """Print the plan and stop."""
    jobs, data, config = jobs_before_pretraining(options, runs)
    print(*plan_lines(jobs), sep="\n")
    devices = devices_at_once(options)
    print(*set_lines(data), sep="\n")
    print(outlook(jobs, data, directory, devices=devices, config=config, **options.price()).line())
    if options.seeds_until_resolved is not None and not options.pilot:
        most = replace(options, finetuning_seeds=options.seeds_until_resolved, seeds_until_resolved=None)
        jobs, data, config = jobs_before_pretraining(most, runs)
        line = outlook(jobs, data, directory, devices=devices, config=config, **options.price()).line()
        print(f"with the most seeds, if nothing is resolved before: {line}")
    if warning := other_code_warning(jobs, directory):
        print(f"warning: {warning}")


def devices_at_once(options: GapOptions, world_size: int = 1) -> int:
    """How many cells run at a time: the tasks of an array job, else the ranks or this machine's devices."""
    if options.executor == "slurm":
        return options.slurm_workers
    return max(world_size, len(devices_of(options.max_parallel)))
