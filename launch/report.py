"""Write the report of a gap run, or of several runs side by side with their paired differences.

    python launch/report.py RUN                                    analyse again and rewrite RUN/report.html
    python launch/report.py RUN RUN ... --output_dir runs/compared
    python launch/report.py options.yaml RUN RUN ...               options from a YAML or JSON file

A RUN is the output folder of launch/gap.py, or any folder with a scores.jsonl (and a series.json). The others
are compared with the first run. Prices are those of the run itself, unless they are given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.analysis.costs import Prices
from gap.report.reports import write_reports
from gap.report.text import command_text
from gap.study.options import ANALYSIS, COSTS
from runtime.options.command_line import parse_options
from runtime.options.declaration import OUTPUT, Options, option
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks

LOCAL_RANK = ("--local_rank=", "--local-rank=")  # inserted by the deepspeed launcher
OPTION_FILES = (".yaml", ".yml", ".json")


@dataclass
class ReportOptions(Options):
    """Options of launch/report.py."""

    draws: int = option(10_000, "bootstrap draws", group=ANALYSIS, at_least=100)
    confidence: float = option(
        0.95, "confidence of the intervals", group=ANALYSIS, above=0, below=1, what="a share such as 0.95"
    )
    seed: int = option(0, "seed of the draws", group=ANALYSIS, at_least=0)
    resolve: float | None = option(
        None,
        "score difference to plan seeds for, such as 0.02",
        group=ANALYSIS,
        above=0,
        below=1,
        what="a difference in score such as 0.02",
    )
    price_per_hour: float | None = option(None, "price of a device-hour", group=COSTS, at_least=0)
    currency: str | None = option(None, "currency of the price", group=COSTS)
    devices: int | None = option(None, "devices that the series was pretrained on", group=COSTS, at_least=1)
    output_dir: str | None = option(None, "where to write; default for one run: its own folder", group=OUTPUT)

    def prices(self, own: Prices) -> Prices:
        """A run's prices, replaced by those given as options."""
        return Prices(
            own.per_device_hour if self.price_per_hour is None else self.price_per_hour,
            own.currency if self.currency is None else self.currency,
            own.devices if self.devices is None else self.devices,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    arguments = [argument for argument in given if not argument.startswith(LOCAL_RANK)]
    folders, option_arguments = runs_and_options(arguments)
    options = parse_options(ReportOptions, option_arguments, description=__doc__)
    command = command_text("python launch/report.py", arguments)
    return run_command(lambda: run(folders, options, command), memory_remedy="lower --draws")


def run(folders: Sequence[str], options: ReportOptions, command: str) -> int:
    """Write the report; returns the exit status."""
    if read_ranks().is_main:  # under a launcher one process writes
        report = write_reports(
            folders,
            options.output_dir,
            prices=options.prices,
            draws=options.draws,
            confidence=options.confidence,
            seed=options.seed,
            resolve=options.resolve,
            command=command,
        )
        print(report)
    return 0


def runs_and_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into run folders, up to the first `--option`, and options; the first may be an options file."""
    first_option = next((index for index, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    first_run = int(bool(first_option) and Path(arguments[0]).suffix in OPTION_FILES)
    return list(arguments[first_run:first_option]), [*arguments[:first_run], *arguments[first_option:]]


if __name__ == "__main__":
    sys.exit(main())
