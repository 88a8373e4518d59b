"""Show the runs below a folder as they go: a page that follows them, or lines in the terminal.

    python launch/watch.py runs                  the page, on http://127.0.0.1:8765
    python launch/watch.py runs --port 0         on any free port
    python launch/watch.py runs --line           one line for each run, refreshed in the terminal
    python launch/watch.py runs --once           the same, printed once

It finds pretraining runs, builds of shards, fine-tuning runs, sweeps and studies by the files that they leave, and
shows loss, learning rate, speed, budget and time left, checkpoints, cells and the curve of each task as it fills. It
reads only: nothing is written into the folder and no run's lock is taken. From another machine, forward the port:
ssh -L 8765:127.0.0.1:8765 HOST.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gap.watch.options import WatchOptions
from runtime.options.command_line import parse_with_names
from runtime.options.exit_status import run_command
from runtime.processes.interruption import may_handle_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, show; returns the exit status."""
    folders, options = parse_with_names(WatchOptions, argv, description=__doc__)
    if may_handle_signals():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is to be saved: Ctrl-C ends it without a traceback
    return run_command(lambda: run(folders, options), memory_remedy="lower the number of runs: name a deeper folder")


def run(folders: Sequence[str], options: WatchOptions) -> int:
    """Show the runs below the one folder that is named, until the command is ended; ValueError for any other number."""
    if len(folders) != 1:
        raise ValueError(f"{len(folders)} folders: name the one below which the runs lie, such as runs")
    root = Path(folders[0])
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: name the one below which the runs lie, such as runs")
    from gap.watch.board import Board  # loads the readers, which --help does not need

    board = Board(root, every=options.every)
    if options.line or options.once:
        from gap.watch.terminal import print_lines

        return print_lines(board, once=options.once)
    from gap.watch.page.server import serve

    return serve(board, options.host, options.port)


if __name__ == "__main__":
    sys.exit(main())
