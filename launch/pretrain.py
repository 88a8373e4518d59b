"""Pretrain a masked-language model from shards and leave a series of checkpoints.

    deepspeed launch/pretrain.py --deepspeed ds_configs/zero2.json     ZeRO
    torchrun --nproc_per_node 2 launch/pretrain.py                     FSDP2
    python launch/pretrain.py --dry_run true                           the plan, and what contradicts it
    python launch/pretrain.py --until "gap_closed>=0.9" --reference NAME --tasks qa:FILE    stop when it is enough

Without --shards it runs on the embedded small world, which it generates. Exit status: 0 done, 75 interrupted and saved
(run the same command again), 1 failed, 2 wrong options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.checks import data_warnings, find_problems, find_warnings
from pretraining.loop.loop import NotFinite
from pretraining.loop.training_data import prepare_shards
from pretraining.overfit.gate import check_overfits
from pretraining.plan.memory_advice import OutOfMemory, explained
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.plan import Plan
from pretraining.plan.table import plan_lines
from pretraining.publishing.export import ExportError
from pretraining.replaced_options import REPLACED_OPTIONS
from pretraining.run import Run
from runtime.options.command_line import parse_options
from runtime.options.declaration import option
from runtime.processes.collectives import PeerFailed, fail_together
from runtime.processes.interruption import EXIT_CODE, MARKER_NAME, Interrupted, disarm_watchdog
from runtime.processes.ranks import Ranks, choose_device, close_process_group, init_process_group, read_ranks
from runtime.verbosity import quiet_libraries
from shards.storage.location import ShardLocation, open_location

if TYPE_CHECKING:
    from gap.study.until import GapWatch

FAILED, WRONG_OPTIONS = 1, 2
EARLY_END = "ending early, by --until"


@dataclass(frozen=True)
class Options(PretrainingOptions):
    """The options of a run, and when to stop it early."""

    until: str | None = option(
        None,
        'stop the run early: "gap_closed>=0.9", looked at with every annealed checkpoint',
        group=EARLY_END,
        identity=False,
    )
    tasks: str | None = option(
        None,
        "as for launch/gap.py; none: the small world's questions",
        group=EARLY_END,
        commas=True,
        identity=False,
    )
    reference: str | None = option(
        None, "the fully pretrained checkpoint, a directory or hub name", group=EARLY_END, identity=False
    )
    finetuning_seeds: int = option(3, "fine-tuning runs of every cell", group=EARLY_END, at_least=1, identity=False)
    finetuning: str = option("", "more options of launch/gap.py, as on a command line", group=EARLY_END, identity=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, plan, run; returns the exit status."""
    options = with_defaults(parse_options(Options, argv, description=__doc__, replaced=REPLACED_OPTIONS.get))
    assert isinstance(options, Options)
    ranks = Ranks()
    try:
        ranks = read_ranks()
        quiet_libraries(is_main=ranks.is_main)
        status = pretrain(options, ranks)
    except Interrupted as interruption:
        if ranks.is_main:
            print(f"interrupted ({interruption}) and saved: run the same command again to go on", file=sys.stderr)
        status = EXIT_CODE
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_OPTIONS
    except (OSError, PeerFailed, NotFinite, OutOfMemory, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    disarm_watchdog()
    close_process_group()
    return status


def pretrain(options: Options, ranks: Ranks) -> int:
    """What the options ask for, on this rank."""
    device = choose_device(ranks)
    init_process_group(ranks, device, always=options.deepspeed is not None and not options.dry_run)
    shards = open_location(prepare_shards(options, ranks))
    plan = Plan(options, shards.manifest, ranks, device)
    if not announce(plan, shards):
        return WRONG_OPTIONS
    if options.dry_run:
        return 0
    watch = watch_gap(options, plan, shards)
    if watch is not None and watch.reached:
        if ranks.is_main:
            print(f"stopped before: {watch.reached}")
        return 0
    if watch is not None:
        check_first(watch, ranks)
    with explained(plan):
        if options.overfit_gate:
            check_overfits(plan, shards)
        run = Run(plan, shards, after_export=watch)
        if watch is not None:
            watch.stop_requested = run.stop_requested
        run.start()
        try:
            run.execute()
        except Interrupted:
            if not run.stop_reason:
                raise
            if ranks.is_main:  # nobody is to continue it
                (Path(options.output_dir) / MARKER_NAME).unlink(missing_ok=True)
                print(f"stopped: {run.stop_reason}")
    if ranks.is_main:
        print(f"series: {options.output_dir}/series.json")
    return 0


def check_first(watch: GapWatch, ranks: Ranks) -> None:
    """Tasks or a reference that cannot be read are an error now, not at the first look."""
    error: BaseException | None = None
    if ranks.is_main:
        try:
            watch.check()
        except (OSError, ValueError) as caught:
            error = caught
    fail_together(error, "reading the tasks and the reference of --until")


def watch_gap(options: Options, plan: Plan, shards: ShardLocation) -> GapWatch | None:
    """What looks at the gap after each export; None without --until."""
    if options.until is None:
        return None
    from gap.study.options import make_watch

    return make_watch(
        options.until,
        tasks=options.tasks,
        reference=options.reference,
        finetuning_seeds=options.finetuning_seeds,
        more=options.finetuning,
        on_small_world=options.shards is None,
        run=Path(options.output_dir),
        shards=shards,
        budgets=[segment.budget for segment in plan.segments if segment.is_branch and segment.budget],
        ranks=plan.ranks,
        hang_timeout_seconds=options.hang_timeout_seconds,
    )


def announce(plan: Plan, shards: ShardLocation) -> bool:
    """Print the plan; False when it contradicts itself."""
    warnings: list[str] = []
    problems = find_problems(plan, lambda: warnings.extend(data_warnings(plan, shards)))
    if plan.ranks.is_main:
        for problem in problems:
            print(f"contradiction: {problem}", file=sys.stderr)
        if not problems:
            texts = [f"   warning  {text}" for text in (*find_warnings(plan), *warnings)]
            print("\n".join([*plan_lines(plan), *texts]), flush=True)
    return not problems


if __name__ == "__main__":
    sys.exit(main())
