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
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.study.until_options import PretrainCommandOptions
from pretraining import pretrain
from pretraining.replaced_options import REPLACED_OPTIONS
from runtime.options.command_line import parse_options
from runtime.options.exit_status import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, plan, run; returns the exit status."""
    options = parse_options(PretrainCommandOptions, argv, description=__doc__, replaced=REPLACED_OPTIONS.get)
    remedy = "lower --per_device_train_batch_size or --max_seq_length, or take a smaller --model"
    return run_command(lambda: run(options), memory_remedy=remedy)


def run(options: PretrainCommandOptions) -> int:
    """Pretrain; returns the exit status."""
    watch = None
    if options.until is not None:
        from gap.study.until import watch_of  # loads much that only --until needs

        watch = watch_of(options)
    pretrain(options, watch_of=watch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
