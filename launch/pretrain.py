"""Pretrain a masked-language model from shards and leave a series of checkpoints.

    deepspeed launch/pretrain.py --deepspeed ds_configs/zero2.json     ZeRO
    torchrun --nproc_per_node 2 launch/pretrain.py                     FSDP2
    python launch/pretrain.py --dry_run true                           the plan only, and its contradictions
    python launch/pretrain.py --until "gap_closed>=0.9" --reference NAME --tasks qa:FILE    stop at this share

Without --shards it runs on the embedded small world, which it generates. Exit status: 0 done, 75 interrupted and saved
(run the same command again), 1 failed, 2 wrong options or unreadable input (docs/exit-status.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.replaced_options import REPLACED_OPTIONS
from pretraining.run import pretrain
from runtime.options.command_line import parse_options, parse_text
from runtime.options.declaration import option
from runtime.options.exit_status import run_command
from runtime.processes.ranks import close_process_group, read_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pretraining.plan.plan import Plan
    from pretraining.run import Watch
    from shards.storage.location import ShardLocation

EARLY_END = "ending early, by --until"


@dataclass(frozen=True)
class PretrainCommandOptions(PretrainingOptions):
    """The options of a run, and when to stop it early."""

    until: str | None = option(
        None,
        'stop the run early: "gap_closed>=0.9", checked at every annealed checkpoint',
        group=EARLY_END,
        identity=False,
    )
    tasks: str | None = option(
        None,
        "as for launch/gap.py; default: the small world's questions",
        group=EARLY_END,
        commas=True,
        identity=False,
    )
    reference: str | None = option(
        None, "the fully pretrained checkpoint, a directory or hub name", group=EARLY_END, identity=False
    )
    finetuning_seeds: int = option(3, "fine-tuning runs per cell", group=EARLY_END, at_least=1, identity=False)
    finetuning: str = option("", "more options of launch/gap.py, as on a command line", group=EARLY_END, identity=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, plan, run; returns the exit status."""
    options = parse_options(PretrainCommandOptions, argv, description=__doc__, replaced=REPLACED_OPTIONS.get)
    remedy = "lower --per_device_train_batch_size or --max_seq_length, or take a smaller --model"
    return run_command(lambda: run(options), memory_remedy=remedy)


def run(options: PretrainCommandOptions) -> int:
    """Pretrain; returns the exit status."""
    settings = with_defaults(options)
    status = pretrain(settings, read_ranks(), watch_of=None if options.until is None else watch_of(options))
    close_process_group()
    return status


def watch_of(options: PretrainCommandOptions) -> Callable[[Plan, ShardLocation], Watch]:
    """A function that builds a plan's watch, which measures the gap after each export."""
    from gap.study.options import GapOptions, check_tokenizer, make_watch  # loads much that only --until needs

    more = parse_text(GapOptions, options.finetuning, option="--finetuning")

    def watch(plan: Plan, shards: ShardLocation) -> Watch:
        check_tokenizer(shards)
        return make_watch(
            str(options.until),
            tasks=options.tasks,
            reference=options.reference,
            finetuning_seeds=options.finetuning_seeds,
            more=more,
            on_small_world=options.shards is None,
            run=Path(options.output_dir),
            shards=shards,
            budgets=[segment.budget for segment in plan.segments if segment.is_branch and segment.budget],
            ranks=plan.ranks,
            hang_timeout_seconds=options.hang_timeout_seconds,
        )

    return watch


if __name__ == "__main__":
    sys.exit(main())
