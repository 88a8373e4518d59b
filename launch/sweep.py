"""Run a grid or a list of fine-tuning settings: python launch/sweep.py --sweep_file FILE.yaml --output_dir DIR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.sweep.report import REFERENCES, run_sweep
from runtime.options.command_line import parse_options
from runtime.options.declaration import DATA, MACHINE, OUTPUT, TRAINING, Options, option
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


@dataclass
class SweepOptions(Options):
    """A sweep file and how to run it."""

    sweep_file: str = option(MISSING, "YAML file: recipe, base, grid or list, seeds; see docs/sweep.md", group=DATA)
    output_dir: str = option(
        MISSING, "folder of cells, tables and curves; the same command again continues", group=OUTPUT
    )
    max_parallel: int | None = option(
        None, "cells run at once; default: one per GPU, or one on the CPU", group=MACHINE, at_least=1
    )
    smoke: bool = option(False, "first run every cell for one epoch; stop if any fails", group=TRAINING)
    smoke_samples: int = option(256, "training examples of a smoke run; 0: all", group=TRAINING, at_least=0)
    compare_with: str = option("baseline", "reference of the paired intervals", group=OUTPUT, choices=REFERENCES)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; the exit status is 0 when every cell has finished, 1 when some failed."""
    options = parse_options(SweepOptions, argv, description=__doc__)
    remedy = "lower --max_parallel"
    return run_command(lambda: run(options), memory_remedy=remedy, output_dir=options.output_dir)


def run(options: SweepOptions) -> int:
    """Run the sweep; returns the exit status."""
    if not read_ranks().is_main:  # under a launcher, one process starts the cells, each as a separate run
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
