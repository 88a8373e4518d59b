"""Run a grid or a list of fine-tuning settings: python launch/sweep.py --sweep_file FILE.yaml --output_dir DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.sweep.report import run_sweep
from runtime.options.command_line import parse_options
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


@dataclass
class SweepOptions:
    """A sweep file and how to run it."""

    sweep_file: str = field(metadata={"help": "YAML file: recipe, base, grid or list, seeds; see docs/sweep.md."})
    output_dir: str = field(metadata={"help": "Cells, tables and curves go here; the same command again continues."})
    max_parallel: int | None = field(
        default=None, metadata={"help": "Cells at once; default: one a GPU, or one on the CPU."}
    )
    smoke: bool = field(default=False, metadata={"help": "First run every cell for one epoch; stop if any fails."})
    smoke_samples: int = field(default=256, metadata={"help": "Training examples of a smoke run; 0: all."})
    compare_with: str = field(
        default="baseline", metadata={"help": "Reference of the paired intervals: baseline or best."}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; the exit status is 0 when every cell has finished, 1 when some failed."""
    options = parse_options(SweepOptions, argv, description=__doc__)
    remedy = "lower --max_parallel"
    return run_command(lambda: run(options), memory_remedy=remedy, output_dir=options.output_dir)


def run(options: SweepOptions) -> int:
    """The command for parsed options."""
    if not read_ranks().is_main:  # under a launcher one process starts the cells, each a world of its own
        return 0
    return run_sweep(
        Path(options.sweep_file),
        Path(options.output_dir),
        max_parallel=options.max_parallel,
        smoke=options.smoke,
        smoke_samples=options.smoke_samples,
        compare_with=options.compare_with,
    )


if __name__ == "__main__":
    sys.exit(main())
