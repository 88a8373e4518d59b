"""Build shards: `build_shards.py --input FILES --output_dir DIR [--tokenizer DIR | --vocab_size N]`, or --task SPEC."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    from gap.tasks.build_options import TaskBuildOptions

# Every worker process imports this file again, so what only the main process needs is imported inside functions.


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and build; returns the exit status."""
    from gap.tasks.build_options import TaskBuildOptions
    from runtime.options.command_line import parse_options
    from runtime.options.exit_status import run_command
    from runtime.stores.options import in_local_folder

    options = in_local_folder(parse_options(TaskBuildOptions, argv, description=__doc__))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    remedy = "lower --processes, --max_document_mb or --index_memory_mb"
    return run_command(lambda: run(options), memory_remedy=remedy, output_dir=options.output_dir)


def run(options: TaskBuildOptions) -> int:
    """Build, with a bar, and report."""
    from dataclasses import replace

    from tqdm.contrib.logging import logging_redirect_tqdm

    from runtime.processes.ranks import read_ranks
    from shards import build
    from shards.building.report import closing_report

    if not read_ranks().is_main:  # under a launcher, only one process builds
        return 0
    if options.task is not None:
        from gap.tasks.training_texts import write_training_texts  # imports the recipes: seconds

        data = write_training_texts(options.task, options.texts_file, options.data_dir)
        print(f"{options.texts_file}: the texts of {len(data.train):,} training examples of {data.spec.name}")
        options = replace(options, task=None, data_dir=None, input=[str(options.texts_file)])
    with logging_redirect_tqdm():  # a message stands on a line of its own, not behind the bar
        summary = build(options)
    print(closing_report(summary, Path(options.output_dir)))
    if options.upload is not None:
        print(f"uploaded to {options.upload}, the manifest last")
    return 0


if __name__ == "__main__":
    sys.exit(main())
