"""A sweep: its cells as their folders stand, and the scores of those that have finished."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuning.run.finished import RESULTS_NAME, read_results
from finetuning.sweep.cell_file import CELL_NAME, CellFile, read_record
from gap.watch.journal_tail import number_in
from gap.watch.owners import Owner, newest, read_owner, state_of_unfinished
from gap.watch.readers.kept_files import KeptFiles
from gap.watch.view import CellGrid, CellState, LiveState, LiveTable, RunView
from gap.watch.wording import duration
from runtime.files.foreign import printable
from runtime.processes.interruption import MARKER_NAME
from runtime.processes.liveness import is_alive

LOG_NAME, TABLE_NAME, CELLS_FOLDER = "sweep.log", "sweep.md", "cells"
SIZE_LINE = re.compile(r"^(\d{1,7}) cells, \d+ settings x \d+ seeds of (\w{1,40})$", re.MULTILINE)
MOST_CELLS, MOST_ROWS, LOG_BYTES = 5000, 10, 64 << 10


@dataclass(frozen=True)
class CellFolder:
    """A cell's folder: its record, how it stands, its results."""

    folder: Path
    record: CellFile
    state: CellState
    results: Mapping[str, Any] | None


class SweepReader:
    """The reader of a sweep's folder."""

    kind = "sweep"

    def __init__(self, directory: Path, place: str) -> None:
        self.directory, self.place = directory, place
        self.files = KeptFiles()

    def view(self) -> RunView:
        """The sweep as it stands."""
        self.files.begin()
        log = self.directory / LOG_NAME
        total, recipe = self.files.read(log, lambda: _size_in(log)) or (0, "")
        owner = read_owner(self.directory)
        cells = self._cells(owner)
        total = max(total, len(cells))
        paths = [log, self.directory / TABLE_NAME, self.directory / MARKER_NAME]
        changed = newest([*paths, *(cell.folder / CELL_NAME for cell in cells)])
        state, reason = self._state(cells, total, owner, changed)
        ended = [cell for cell in cells if cell.state in (CellState.DONE, CellState.FAILED)]
        running = [cell for cell in cells if cell.state == CellState.RUNNING]
        times = [seconds for cell in ended if (seconds := number_in(cell.results or {}, "seconds")) is not None]
        left = None
        if state == LiveState.RUNNING and times:
            left = sum(times) / len(times) * (total - len(ended)) / max(1, len(running))
        figures = [("recipe", recipe)] if recipe else []
        figures += [("running now", f"{len(running)}")] if running else []
        figures += [("failed cells", f"{failed}")] if (failed := len(_failed(cells))) else []
        figures += [("time of a cell", duration(sum(times) / len(times)))] if times else []
        return RunView(
            self.place,
            self.kind,
            state,
            changed,
            reason=reason,
            share=len(ended) / total if total else None,
            done=f"{len(ended)} of {total} cells",
            seconds_left=left,
            figures=tuple(figures),
            grids=tuple(_grids(cells, total)),
            tables=tuple(_best(cells)),
            problems=tuple(self.files.problems),
        )

    def _cells(self, owner: Owner | None) -> list[CellFolder]:
        """The cells that have begun, in the order of their names."""
        parent = self.directory / CELLS_FOLDER
        try:
            with os.scandir(parent) as entries:
                names = sorted(entry.name for entry in list(entries)[:MOST_CELLS])
        except OSError:
            return []
        cells = []
        for name in names:
            folder = parent / name
            record = self.files.read(folder / CELL_NAME, lambda folder=folder: read_record(folder))  # type: ignore[misc]
            if record is None:
                continue
            results = self.files.read(folder / RESULTS_NAME, lambda folder=folder: read_results(folder))  # type: ignore[misc]
            cells.append(CellFolder(folder, record, _state_of(record, results, owner), results))
        return cells

    def _state(
        self, cells: Sequence[CellFolder], total: int, owner: Owner | None, changed: float
    ) -> tuple[LiveState, str]:
        done = sum(cell.state == CellState.DONE for cell in cells)
        failed = _failed(cells)
        if total and done == total:
            return LiveState.FINISHED, ""
        found = self.files.try_now(lambda: state_of_unfinished(self.directory, owner, changed))
        if found is None:
            return LiveState.DAMAGED, "the files named below cannot be read"
        if found[0] != LiveState.RUNNING and failed:
            said = _last_line(failed[0].folder / "log.txt")
            return LiveState.FAILED, f"{len(failed)} of {total} cells failed" + (f"; the first: {said}" if said else "")
        return found


def _state_of(record: CellFile, results: Mapping[str, Any] | None, owner: Owner | None) -> CellState:
    if record.status == "finished":
        good = results is not None and results.get("status", "done") == "done"
        return CellState.DONE if good else CellState.FAILED
    if record.status == "failed":
        return CellState.FAILED
    if record.status == "running" and owner is not None and owner.lives is not False:
        gone = owner.lives and record.pid is not None and not is_alive(record.pid, record.start or "")
        return CellState.TO_COME if gone else CellState.RUNNING
    return CellState.TO_COME


def _failed(cells: Sequence[CellFolder]) -> list[CellFolder]:
    return [cell for cell in cells if cell.state == CellState.FAILED]


def _size_in(log: Path) -> tuple[int, str]:
    """The number of cells and the recipe of the last call, by its first line in the log."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read(LOG_BYTES).decode(errors="replace")
    found = SIZE_LINE.findall(text)
    return (int(found[-1][0]), found[-1][1]) if found else (0, "")


def _last_line(log: Path) -> str:
    """The last line of a failed cell's output; empty where there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))
            lines = file.read(4096).decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return printable(said[-1])[:300] if said else ""


def _differing(cells: Sequence[CellFolder]) -> list[str]:
    """The options in which the cells differ, apart from the seed."""
    names = {name for cell in cells for name in cell.record.options if not name.startswith(("seed", "output"))}
    return sorted(name for name in names if len({repr(cell.record.options.get(name)) for cell in cells}) > 1)


def _setting(cell: CellFolder, names: Sequence[str]) -> str:
    words = [f"{name} {cell.record.options.get(name)}"[:60] for name in names[:4]]
    return ", ".join(words) or "all cells"


def _grids(cells: Sequence[CellFolder], total: int) -> list[CellGrid]:
    if not total:
        return []
    names = _differing(cells)
    rows: dict[str, list[tuple[int, CellState]]] = {}
    for number, cell in enumerate(cells):
        seed = cell.record.options.get("seed")
        order = seed if isinstance(seed, int) else number
        rows.setdefault(_setting(cell, names), []).append((order, cell.state))
    shown = [(label, tuple(state for _, state in sorted(row))) for label, row in sorted(rows.items())]
    if waiting := total - len(cells):
        shown.append(("not started", (CellState.TO_COME,) * waiting))
    return [CellGrid("Cells", tuple(shown))]


def _best(cells: Sequence[CellFolder]) -> list[LiveTable]:
    """The best finished cells, and those that run."""
    names = _differing(cells)
    scored = []
    for cell in cells:
        metric = str((cell.results or {}).get("metric") or "")
        score = number_in(cell.results or {}, f"eval_{metric}")
        if cell.state == CellState.DONE and score is not None:
            scored.append((score, metric, f"{_setting(cell, names)}, seed {cell.record.options.get('seed', '-')}"))
    tables = []
    now = time.time()
    running = [cell for cell in cells if cell.state == CellState.RUNNING]
    if running:
        rows = [
            (
                f"{_setting(cell, names)}, seed {cell.record.options.get('seed', '-')}",
                duration(now - newest([cell.folder / CELL_NAME])),
            )
            for cell in running[:MOST_ROWS]
        ]
        tables.append(LiveTable("Running now", ("cell", "for"), tuple(rows), numbers=(1,)))
    if scored:
        best = sorted(scored, key=lambda one: -one[0])[:MOST_ROWS]
        shown = [(label, metric.replace("_", " "), f"{score:.4f}") for score, metric, label in best]
        tables.append(LiveTable("Highest scores so far", ("cell", "metric", "score"), tuple(shown), numbers=(2,)))
    return tables
