"""Check whether a model can overfit one batch at some learning rates: `overfit.py --learning_rate 1e-2 1e-3 1e-5`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretraining.overfit.options import OverfitOptions
from runtime.options.command_line import parse_options
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and try each rate; the exit status is 0 when one of them solves the batch, 1 when none does."""
    options = parse_options(OverfitOptions, argv, description=__doc__)
    remedy = "lower --global_batch_rows or --max_seq_length, or take a smaller --model"
    return run_command(lambda: run(options), memory_remedy=remedy)


def run(options: OverfitOptions) -> int:
    """Try the learning rates; returns the exit status."""
    if not read_ranks().is_main:  # under a launcher one rank is enough
        return 0
    from pretraining.overfit.rates import try_rates  # loads torch, which --help does not need

    return 0 if any(result.verdict == "solved" for result in try_rates(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
