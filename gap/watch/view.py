"""What is shown of a run, the same for the page and the terminal: plain records, without any file behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LiveState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    FAILED = "failed"
    STALE = "stale"  # unfinished, and its process is gone
    INTERRUPTED = "interrupted"  # asked to stop, and saved
    DAMAGED = "damaged"  # its files cannot be read
    FINISHED = "finished"

    @property
    def needs_attention(self) -> bool:
        return self not in (LiveState.RUNNING, LiveState.FINISHED)


class CellState(StrEnum):
    """How a cell of a study or a sweep stands."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    TO_COME = "to come"


@dataclass(frozen=True)
class ChartSeries:
    """Points of one kind, in order of x. `role` names the colour; low and high are an interval's ends."""

    label: str
    role: str
    points: tuple[tuple[float, float], ...]
    line: bool = True
    band: tuple[tuple[float, float], ...] = ()  # (low, high) of each point


@dataclass(frozen=True)
class LiveChart:
    """A small chart. `levels` are horizontal lines: label, role, value; `left` is the word for x = 0 on a log axis."""

    title: str
    x_label: str
    series: tuple[ChartSeries, ...]
    levels: tuple[tuple[str, str, float], ...] = ()
    log_x: bool = False
    percent: bool = False
    left: str = ""
    x_end: float | None = None  # where the axis ends, if beyond the last point


@dataclass(frozen=True)
class LiveTable:
    """A small table; the columns in `numbers` are right-aligned."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class CellGrid:
    """The cells of a task: a row for each checkpoint, a place for each seed."""

    title: str
    rows: tuple[tuple[str, tuple[CellState, ...]], ...]

    def counts(self) -> dict[CellState, int]:
        """How many cells are in each state."""
        states = [state for _, row in self.rows for state in row]
        return {state: states.count(state) for state in CellState}


@dataclass(frozen=True)
class RunView:
    """A run as it stands. `changed` is when its files last changed, in seconds since the epoch."""

    place: str  # relative to the folder that is watched
    kind: str
    state: LiveState
    changed: float = 0.0
    reason: str = ""  # why it is in this state, or what to do
    share: float | None = None  # of the work that is done
    done: str = ""  # the same in words
    seconds_left: float | None = None
    figures: tuple[tuple[str, str], ...] = ()
    charts: tuple[LiveChart, ...] = ()
    grids: tuple[CellGrid, ...] = ()
    tables: tuple[LiveTable, ...] = ()
    answers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # files that cannot be read
