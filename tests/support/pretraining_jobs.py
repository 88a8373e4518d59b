"""Several pretraining runs one after the other in the processes of one launch: `pretraining_jobs.py JOBS.json`.

The file is a list of command lines. Starting a process group costs more than a tiny run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from gap.study.until_options import PretrainCommandOptions
from pretraining.plan.options import with_defaults
from pretraining.run import run_pretraining
from runtime.options.command_line import parse_options
from runtime.processes.interruption import disarm_watchdog
from runtime.processes.ranks import close_process_group, init_process_group, read_ranks
from runtime.verbosity import quiet_libraries


def main() -> int:
    """Run every command line of the file; the first that raises ends all."""
    import torch

    commands = json.loads(Path(sys.argv[-1]).read_text())
    ranks = read_ranks()
    quiet_libraries(is_main=ranks.is_main)
    init_process_group(ranks, torch.device("cpu"), always=True)
    for command in commands:
        run_pretraining(with_defaults(parse_options(PretrainCommandOptions, command)), ranks)
        disarm_watchdog()
    close_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
