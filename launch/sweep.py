"""Run a grid or a list of fine-tuning settings: python launch/sweep.py --sweep_file FILE.yaml --output_dir DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.sweep.sweep_options import SweepOptions
from runtime.options.command_line import parse_options
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; the exit status is 0 when every cell has finished, 1 when some failed."""
    options = parse_options(SweepOptions, argv, description=__doc__)
    remedy = "lower --max_parallel"
    return run_command(lambda: run(options), memory_remedy=remedy, output_dir=options.output_dir)


def run(options: SweepOptions) -> int:
    """Run the sweep; returns the exit status."""
    if not read_ranks().is_main:  # under a launcher, one process starts the cells, each as a separate run
        return 0
    from finetuning.sweep.report import run_sweep  # loads torch, which --help does not need

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
