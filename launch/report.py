"""Write the report of a gap run, or of several runs side by side with their paired differences.

    python launch/report.py RUN                                    analyse again and rewrite RUN/report.html
    python launch/report.py RUN RUN ... --output_dir runs/compared
    python launch/report.py RUN --publish docs/studies/NAME        a small copy of the run, to keep with a project
    python launch/report.py docs/studies --results_page FILE       one page about all such copies
    python launch/report.py options.yaml RUN RUN ...               options from a YAML or JSON file

A RUN is the output folder of launch/gap.py, or any folder with a scores.jsonl (and a series.json). The others
are compared with the first run. Prices are those of the run itself, unless they are given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.report_options import ReportOptions
from runtime.options.command_line import parse_with_names
from runtime.options.exit_status import run_command
from runtime.processes.ranks import read_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write; returns the exit status."""
    folders, options = parse_with_names(ReportOptions, argv, description=__doc__)
    return run_command(lambda: run(folders, options, argv), memory_remedy="lower --draws")


def run(folders: Sequence[str], options: ReportOptions, argv: Sequence[str] | None) -> int:
    """Write the report, which shows the command line; returns the exit status."""
    if read_ranks().is_main and options.results_page is not None:
        from gap.published.results_page import write_results_page  # loads scipy, which --help does not need

        print(write_results_page(folders, Path(options.results_page)))
    elif read_ranks().is_main:  # under a launcher one process writes
        from gap.report.reports import write_reports  # as above
        from gap.report.text import command_text

        print(write_reports(folders, options, command_text("python launch/report.py", argv)))
        if options.publish is not None:
            from gap.published.study_folder import publish  # as above

            print(publish(folders, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
