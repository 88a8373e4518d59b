"""Write the report of a gap run, or of several runs side by side with their paired differences.

    python launch/report.py RUN                                    analyse again and rewrite RUN/report.html
    python launch/report.py RUN RUN ... --output_dir runs/compared
    python launch/report.py options.yaml RUN RUN ...               options from a YAML or JSON file

A RUN is the output folder of launch/gap.py, or any folder with a scores.jsonl (and a series.json). The first run is
what the others are compared with. Prices are those that a run was made with, unless they are given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.analysis.analysis import analyse
from gap.analysis.costs import Prices
from gap.analysis.run_folder import RunSource, told_apart
from gap.report.comparison import compare_runs
from gap.report.comparison_page import write_comparison
from gap.report.page import write_report
from gap.report.text import command_text
from gap.study.options import ANALYSIS, COSTS
from runtime.options.command_line import parse_options
from runtime.options.declaration import OUTPUT, Options, option
from runtime.processes.ranks import read_ranks

LOCAL_RANK = ("--local_rank=", "--local-rank=")  # what the deepspeed launcher puts in front
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
        "difference that seeds are planned for: 0.02",
        group=ANALYSIS,
        above=0,
        below=1,
        what="a difference in score such as 0.02",
    )
    price_per_hour: float | None = option(None, "price of a device-hour", group=COSTS, at_least=0)
    currency: str | None = option(None, "its currency", group=COSTS)
    devices: int | None = option(None, "devices that the series was pretrained on", group=COSTS, at_least=1)
    output_dir: str | None = option(None, "where to write; one run: its own folder", group=OUTPUT)

    def prices(self, own: Prices) -> Prices:
        """A run's prices, with what was given in their place."""
        return Prices(
            own.per_device_hour if self.price_per_hour is None else self.price_per_hour,
            own.currency if self.currency is None else self.currency,
            own.devices if self.devices is None else self.devices,
        )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = [one for one in (sys.argv[1:] if argv is None else argv) if not one.startswith(LOCAL_RANK)]
    folders, given = runs_and_options(arguments)
    options = parse_options(ReportOptions, given, description=__doc__)
    try:
        if read_ranks().is_main:  # under a launcher one process writes
            print(write(folders, options, ["launch/report.py", *arguments]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def runs_and_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the first `--option` names runs, but for a file of options, which stands first of all."""
    first_option = next((number for number, one in enumerate(arguments) if one.startswith("-")), len(arguments))
    first_run = int(bool(first_option) and Path(arguments[0]).suffix in OPTION_FILES)
    return list(arguments[first_run:first_option]), [*arguments[:first_run], *arguments[first_option:]]


def write(folders: Sequence[str], options: ReportOptions, command: Sequence[str]) -> Path:
    """The report of the runs in these folders; returns its path."""
    if not folders:
        raise ValueError("no run named: give one or more folders that hold scores.jsonl")
    runs = told_apart([RunSource.of(Path(folder)) for folder in folders])
    if len(runs) > 1 and options.output_dir is None:
        raise ValueError(f"{len(runs)} runs and no --output_dir: say where their report goes")
    if len(runs) > 1 and Path(str(options.output_dir)).resolve() in [run.scores.resolve().parent for run in runs]:
        raise ValueError(
            f"--output_dir {options.output_dir} is one of the runs, whose own report it holds: name another"
        )
    analyses = [
        analyse(
            run.scores,
            series=run.series,
            prices=options.prices(run.prices),
            draws=options.draws,
            confidence=options.confidence,
            seed=options.seed,
            name=run.name,
            planned=run.planned,
            resolve=run.resolve if options.resolve is None else options.resolve,
            commands=[*run.commands, command_text(["python", *command])],
            made=run.made,
        )
        for run in runs
    ]
    analyses = [replace(one, notes=(*one.notes, *run.notes)) for one, run in zip(analyses, runs, strict=True)]
    if len(runs) == 1:
        return write_report(analyses[0], options.output_dir or runs[0].scores.parent)
    comparison = compare_runs(runs, draws=options.draws, seed=options.seed, confidence=options.confidence)
    assert options.output_dir is not None
    return write_comparison(comparison, analyses, options.output_dir)


if __name__ == "__main__":
    raise SystemExit(main())
