"""How much pretraining closes the gap: from a checkpoint series to scores, the curve and report.html.

    python launch/gap.py                                   the whole job on the embedded small world
    python launch/gap.py --dry_run true                    the plan: how many cells, how long, at what price
    python launch/gap.py --series runs/wiki/series.json --tasks qa:FILE,glue:sst2,classification:imdb \\
        --reference bert-base-uncased --finetuning_seeds 5 --output_dir runs/gap

A killed run goes on where it stopped when the same command is given again; more seeds or tasks run only what is new.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.analysis.costs import pair_budgets
from gap.cells.code_identity import code_version
from gap.cells.consistency import settled_bf16
from gap.cells.executor import Workers, devices_of, run_local, submit_slurm, waiting_workers
from gap.cells.job_list import JobList
from gap.cells.plan import Source, reference_sources, sources_of
from gap.cells.worker import work
from gap.study.clock import Clock
from gap.study.experiment import (
    busy_seconds,
    command_text,
    finish_experiment,
    other_code_warning,
    outlook,
    plan_json,
    series_rows,
    shards_of,
    write_list,
)
from gap.study.options import GapOptions, with_defaults
from gap.study.small_world import (
    expected_config,
    expected_own_run,
    expected_sources,
    pretraining_arguments,
    series_paths,
)
from gap.tasks.specification import TaskData
from launch import pretrain
from pretraining.loop.training_data import SMALL_WORLD_DIRECTORY, build_small_world
from runtime.files.lock import Ownership
from runtime.options.command_line import parse_options
from runtime.processes.collectives import barrier
from runtime.processes.interruption import EXIT_CODE
from runtime.processes.ranks import Ranks, choose_device, close_process_group, init_process_group, read_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 2: refused; 75: interrupted, and what was done is saved: run it again."""
    options = with_defaults(parse_options(GapOptions, argv, description=__doc__))
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        clock = Clock.of_process() if argv is None else Clock()
        with signals_as_interrupts():
            return run(options, command_text("python launch/gap.py", words), clock)
    except KeyboardInterrupt:
        print(
            f"interrupted: finished cells are in {options.output_dir}/scores.jsonl; the same command again goes on",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_CODE
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM stops the cells as Ctrl-C does, so that the workers are ended; pretraining saves before it stops."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(options: GapOptions, command: str, clock: Clock) -> int:
    """The command for parsed options."""
    code_version()  # of the sources that this process runs, whatever happens to the files while it pretrains
    ranks, directory = read_ranks(), Path(options.output_dir)
    options = replace(options, bf16=settled_bf16(options.bf16, directory, elsewhere=options.runs_on_other_gpus))
    with clock.pretraining():
        if options.series is None and ranks.is_main:
            build_small_world(SMALL_WORLD_DIRECTORY)
    if options.dry_run:
        return show_plan(options, directory) if ranks.is_main else 0
    if options.series is None and ranks.is_main:
        jobs_before_pretraining(options)  # what the plan cannot answer is refused before hours of training
    with clock.pretraining():
        status = pretrain_series(options)
    if status:
        return status
    alone = ranks.world_size == 1 and options.executor == "local"
    others = devices_of(options.max_parallel)[1:] if alone else []  # this process works on the first
    owner = Ownership(directory)
    with waiting_workers(directory, others) as workers:
        try:
            return run_cells(options, ranks, owner, workers, command=command, clock=clock)
        finally:
            owner.release()


def run_cells(
    options: GapOptions, ranks: Ranks, owner: Ownership, workers: Workers, *, command: str, clock: Clock
) -> int:
    """Plan, work through the list and write the report; the main rank holds the directory all the while."""
    directory, paths = Path(options.output_dir), series_paths(options)
    rows = series_rows(paths)
    sources = [*sources_of(rows, options.kind_names), *extra_sources(options), *reference_sources(options.reference)]
    jobs = prepare(options, sources, directory, paths, ranks, owner)
    if options.executor == "slurm":
        print("submitted: " + (", ".join(submit_slurm(directory, options.slurm())) or "nothing, all cells are done"))
        print("run the same command with --executor local when they are done: it analyses what is there")
        return 0
    before = busy_seconds(directory, jobs)
    if ranks.world_size > 1:
        work(directory, ranks=ranks)
    else:
        run_local(directory, workers)
    if not ranks.is_main:
        return 0
    analysis = finish_experiment(
        directory,
        jobs,
        rows,
        prices=options.prices(),
        draws=options.draws,
        commands=[command],
        notes=options.notes(),
        resolve=options.resolve,
        series=paths,
    )
    for line in (*(task.answer for task in analysis.tasks), *(f"note: {note}" for note in analysis.notes)):
        print(line)
    number = max(ranks.world_size, len(devices_of(options.max_parallel)))
    print(f"{clock.line(busy_seconds(directory, jobs) - before, number)}; report: {directory}/report.html")
    return 0


def prepare(
    options: GapOptions, sources: list[Source], directory: Path, paths: list[Path], ranks: Ranks, owner: Ownership
) -> JobList:
    """The main rank plans, estimates, takes the directory and writes the list; every rank returns with it on disk."""
    init_process_group(ranks, choose_device(ranks))
    experiment = options.experiment()
    data: dict[str, TaskData] = experiment.read()
    jobs = experiment.jobs(sources, data)
    if ranks.is_main:
        print(plan_json(jobs), flush=True)
        devices = devices_at_once(options, ranks.world_size)
        print(outlook(jobs, data, directory, devices=devices, **options.price()).line(), flush=True)
        owner.take()
        if options.contamination:
            write_list(jobs, data, directory, options.shards or shards_of(paths[0]), print)
        else:
            write_list(jobs, data, directory, None, print, no_shards="--contamination false")
    barrier()
    close_process_group()
    return jobs


def show_plan(options: GapOptions, directory: Path) -> int:
    """Print the plan and stop."""
    jobs, data, config = jobs_before_pretraining(options)
    print(plan_json(jobs))
    devices = devices_at_once(options)
    print(outlook(jobs, data, directory, devices=devices, config=config, **options.price()).line())
    if warning := other_code_warning(jobs, directory):
        print(f"warning: {warning}")
    return 0


def devices_at_once(options: GapOptions, world_size: int = 1) -> int:
    """How many cells are run at a time: of an array job its tasks, else the ranks or this machine's devices."""
    if options.executor == "slurm":
        return options.slurm_workers
    return max(world_size, len(devices_of(options.max_parallel)))


def jobs_before_pretraining(options: GapOptions) -> tuple[JobList, dict[str, TaskData], Any]:
    """The list as far as it is known, and the configuration of models yet to be pretrained (None: they are there).

    ValueError with all that the plan cannot answer.
    """
    experiment, paths = options.experiment(), series_paths(options)
    config = None
    if options.series is not None or all(path.is_file() for path in paths):
        found = sources_of(series_rows(paths), options.kind_names)
        found += extra_sources(options) if own_run_exists(options) else expected_own_run(options)
    else:
        found, config = expected_sources(options), expected_config(options)
    data = experiment.read()
    return experiment.jobs([*found, *reference_sources(options.reference)], data), data, config


def pretrain_series(options: GapOptions) -> int:
    """Make the small world's series, one run a pretraining seed; a finished one is left as it is."""
    for arguments in pretraining_arguments(options):
        status = pretrain.main(arguments)
        if status:
            return status
    return 0


def own_run_exists(options: GapOptions) -> bool:
    """Whether the control run of a middle budget is there (a named one has to be), or none is asked for."""
    path = options.independent_run
    return path is None or options.independent is not None or path.exists()


def extra_sources(options: GapOptions) -> list[Source]:
    """The control run of a middle budget by itself, when there is one.

    ValueError when it shares its seed with the series, whose branch it would then repeat, or none of its budgets.
    """
    path = options.independent_run
    if path is None:
        return []
    series = series_rows(series_paths(options))
    own = pair_budgets(series_rows([path]), like=series)
    seeds = {int(row["pretraining_seed"]) for row in series} & {int(row["pretraining_seed"]) for row in own}
    if seeds:
        raise ValueError(f"--independent {path}: seed {min(seeds)} is the series' own; pretrain it with another --seed")
    rows = [row for row in own if row["kind"] == "annealed"]
    budgets = {round(row["budget_tokens"]) for row in series if row["kind"] == "annealed"}
    if budgets.isdisjoint(round(row["budget_tokens"]) for row in rows):
        raise ValueError(f"--independent {path}: no annealed checkpoint of a budget of the series, {sorted(budgets)}")
    return [
        Source(
            row["path"],
            "annealed",
            round(row["budget_tokens"]),
            int(row["pretraining_seed"]),
            control="independent_run",
        )
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
