"""Build shards from text: `build_shards.py --input FILES --output_dir DIR [--tokenizer DIR | --vocab_size N]`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    from shards.building.options import BuildOptions

# Every worker process imports this file again, so what only the main process needs is imported inside functions.


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and build; returns the exit status."""
    from runtime.options.command_line import parse_options
    from runtime.options.exit_status import run_command
    from shards.building.options import BuildOptions

    options = parse_options(BuildOptions, argv, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    remedy = "lower --processes, --max_document_mb or --index_memory_mb"
    return run_command(lambda: run(options), memory_remedy=remedy, output_dir=options.output_dir)


def run(options: BuildOptions) -> int:
    """Build, with a bar, and report."""
    from tqdm import tqdm

    from runtime.processes.interruption import stopping_at_once
    from runtime.processes.ranks import read_ranks
    from shards.building.builder import build_shards
    from shards.building.report import closing_report, progress_reporter

    if not read_ranks().is_main:  # under a launcher, only one process builds
        return 0
    with stopping_at_once(), tqdm(unit="B", unit_scale=True, desc="shards", mininterval=0.5) as bar:
        summary = build_shards(options, report=progress_reporter(bar))
    print(closing_report(summary, Path(options.output_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
