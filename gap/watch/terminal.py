"""The runs as lines of text: printed once, or redrawn in a terminal."""

from __future__ import annotations

import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from gap.watch.board import Board, BoardState
from gap.watch.view import LiveState, RunView
from gap.watch.wording import ago, duration
from runtime.files.foreign import printable

BAR_WIDTH = 10
LONGEST_PLACE, LONGEST_REASON = 40, 240
MARKS = {
    LiveState.RUNNING: ">",
    LiveState.FINISHED: "=",
    LiveState.INTERRUPTED: "|",
    LiveState.STALE: "?",
    LiveState.FAILED: "!",
    LiveState.DAMAGED: "x",
}
SHOWN_FIGURES = ("loss", "held-out loss", "learning rate", "tokens/s", "running now", "failed cells", "training loss")
CLEAR_LINE, UP = "\x1b[2K", "\x1b[{}A"


def bar(share: float | None) -> str:
    """`[####......]  40 %`; blank without a share."""
    if share is None:
        return " " * (BAR_WIDTH + 8)
    full = round(BAR_WIDTH * min(1.0, max(0.0, share)))
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {int(100 * min(1.0, share)):3d} %"


def line_of(view: RunView, width: int, now: float) -> str:
    """A run in one line: state, name, share, what is done, time left, figures; or why it stands still."""
    words = [view.done] if view.done else []
    if view.seconds_left is not None:
        words.append(f"{duration(view.seconds_left)} left")
    if view.state in (LiveState.RUNNING, LiveState.FINISHED):
        words += [f"{name} {value}" for name, value in view.figures if name in SHOWN_FIGURES][:4]
    if view.reason and view.state != LiveState.FINISHED:
        words.append(view.reason[:LONGEST_REASON])
    words += [f"cannot be read: {view.problems[0]}"[:LONGEST_REASON]] if view.problems else []
    if view.state == LiveState.FINISHED and view.changed:
        words.append(ago(now - view.changed))
    said = printable("; ".join(words)).replace("\n", " ")
    return f"{MARKS[view.state]} {view.state:<11} {width_of(view.place, width)} {bar(view.share)}  {said}"


def width_of(text: str, width: int) -> str:
    """The text in just so many columns; of a longer one the end is kept, which tells runs apart."""
    return text.ljust(width) if len(text) <= width else f"...{text[len(text) - width + 3 :]}"


def lines_of(state: BoardState) -> list[str]:
    """The summary, then one line for each run."""
    width = min(LONGEST_PLACE, max((len(run.view.place) for run in state.runs), default=0))
    head = f"{time.strftime('%H:%M:%S', time.localtime(state.at))}  {state.summary}"
    more = ["(more runs lie below this folder than are shown: name a deeper one)"] if state.is_cut else []
    return [head, *(line_of(run.view, width, state.at) for run in state.runs), *more]


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """The lines cut to a terminal of this size, which they may not overflow: the last says how many are missing."""
    most = max(1, rows - 1)
    shown = list(lines) if len(lines) <= most else [*lines[: most - 1], f"... and {len(lines) - most + 1} more"]
    return [line if columns_of(line) < columns else f"{_cut(line, columns - 4)}..." for line in shown]


def columns_of(text: str) -> int:
    """The columns that a text fills: characters of East Asian scripts are two wide."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def _cut(text: str, columns: int) -> str:
    """The longest beginning of a text that fits."""
    while columns_of(text) > columns:
        text = text[:-1]
    return text


def print_lines(board: Board, *, once: bool, out: TextIO | None = None) -> int:
    """Print the lines; in a terminal redraw them until the process is ended, unless `once`. The exit status."""
    out = sys.stdout if out is None else out
    if once or not out.isatty():
        print(*lines_of(board.look()), sep="\n", file=out, flush=True)
        return 0
    drawn = 0
    while True:
        columns, rows = shutil.get_terminal_size()
        lines = fitted(lines_of(board.look()), columns, rows)
        blank = max(0, drawn - len(lines))
        text = (UP.format(drawn) if drawn else "") + "".join(f"\r{CLEAR_LINE}{line}\n" for line in lines)
        out.write(text + f"\r{CLEAR_LINE}\n" * blank + (UP.format(blank) if blank else ""))
        out.flush()
        drawn = len(lines)
        time.sleep(board.every)
