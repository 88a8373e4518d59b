"""How much pretraining closes the gap: from a checkpoint series to scores, the curve and report.html.

    python launch/gap.py                                   the whole job on the embedded small world
    python launch/gap.py --dry_run true                    the plan only: number of cells, time, cost
    python launch/gap.py --series runs/wiki/series.json --tasks qa:FILE,glue:sst2,classification:imdb \\
        --reference bert-base-uncased --finetuning_seeds 5 --output_dir runs/gap

The small world is a positive control: what its tasks ask stands in its corpus and hardly in their labels, so
pretraining must close the gap there. What it closes on real text only a real series says.

A killed run continues where it stopped when the same command is given again; more seeds or tasks run only what is new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap import measure
from gap.study.options import GapOptions
from runtime.options.command_line import parse_options
from runtime.options.exit_status import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run the study; returns the exit status."""
    options = parse_options(GapOptions, argv, description=__doc__)
    from gap.cells.worker import MEMORY_REMEDY  # loads torch, which --help does not need
    from gap.report.text import command_text

    command = command_text("python launch/gap.py", argv)

    def run() -> int:
        measure(options, command=command, whole_process=argv is None)
        return 0

    return run_command(run, memory_remedy=MEMORY_REMEDY, output_dir=options.output_dir)


if __name__ == "__main__":
    sys.exit(main())
