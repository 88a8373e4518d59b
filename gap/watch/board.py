"""All runs below a folder as they stand: looked at when somebody asks, at most every few seconds."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from gap.watch.finding import RunReader, find_runs, place_of
from gap.watch.view import LiveState, RunView
from runtime.files.foreign import printable

FIND_SECONDS = 10.0  # between two searches for new runs, and at least so many times what a search takes:
FIND_SHARE = 20.0
REST_SECONDS = 15.0  # between two looks at a run that has finished
ORDER = (
    *(LiveState.RUNNING, LiveState.FAILED, LiveState.STALE, LiveState.INTERRUPTED),
    *(LiveState.DAMAGED, LiveState.FINISHED),
)


@dataclass(frozen=True)
class ListedRun:
    """A run and the id under which the page knows it."""

    id: str
    view: RunView


@dataclass(frozen=True)
class BoardState:
    """All runs at one time: running ones first, then what needs attention, then the finished ones, newest first."""

    runs: tuple[ListedRun, ...]
    at: float  # seconds since the epoch
    is_cut: bool = False  # there are more runs or folders than are looked at

    def of(self, *states: LiveState) -> list[ListedRun]:
        """The runs in these states."""
        return [run for run in self.runs if run.view.state in states]

    @property
    def summary(self) -> str:
        """`2 running, 1 stale, 5 finished`."""
        counts = [(sum(run.view.state == state for run in self.runs), state) for state in ORDER]
        return ", ".join(f"{number} {state}" for number, state in counts if number) or "no runs below this folder yet"


class Board:
    """The runs below a folder; safe to ask from several threads. It writes nothing and takes no lock of a run."""

    def __init__(self, root: Path, *, every: float = 2.0) -> None:
        self.root, self.every = root, every
        self._lock = threading.Lock()
        self._readers: dict[Path, tuple[str, RunReader]] = {}
        self._resting: dict[Path, tuple[float, ListedRun]] = {}  # until when a finished run is not looked at
        self._state: BoardState | None = None
        self._looked = self._find_at = 0.0
        self._is_cut = False

    def look(self) -> BoardState:
        """How the runs stand, at most `every` seconds old."""
        with self._lock:
            now = time.monotonic()
            if self._state is not None and now - self._looked < self.every:
                return self._state
            if now >= self._find_at:
                self._find()
            listed = [self._listed(folder, *known, now) for folder, known in self._readers.items()]
            self._state = BoardState(tuple(sorted(listed, key=_order)), time.time(), self._is_cut)
            self._looked = time.monotonic()
            return self._state

    def run(self, name: str) -> ListedRun | None:
        """The run with this id."""
        return next((run for run in self.look().runs if run.id == name), None)

    def _listed(self, folder: Path, name: str, reader: RunReader, now: float) -> ListedRun:
        due, run = self._resting.get(folder, (0.0, None))
        if run is not None and now < due:
            return run
        run = ListedRun(name, _view_of(reader, self.root, folder))
        self._resting.pop(folder, None)
        if run.view.state == LiveState.FINISHED:
            self._resting[folder] = (now + REST_SECONDS, run)
        return run

    def _find(self) -> None:
        began = time.monotonic()
        found, self._is_cut = find_runs(self.root)
        kept = {}
        for folder, reader_of in found.items():
            known = self._readers.get(folder)
            place = place_of(self.root, folder)
            is_same = known is not None and known[1].__class__ is reader_of
            kept[folder] = known if known is not None and is_same else (_id_of(place), reader_of(folder, place))
        self._readers = kept
        self._resting = {folder: rest for folder, rest in self._resting.items() if folder in kept}
        took = time.monotonic() - began
        self._find_at = time.monotonic() + max(FIND_SECONDS, FIND_SHARE * took)


def _id_of(place: str) -> str:
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]


def _view_of(reader: RunReader, root: Path, folder: Path) -> RunView:
    """The view; whatever cannot be read is a view too."""
    try:
        view = reader.view()
    except (OSError, ValueError) as error:
        problem = printable(" ".join(str(error).split()))[:400]
        reason = "the files named below cannot be read"
        view = RunView(place_of(root, folder), "run", LiveState.DAMAGED, reason=reason, problems=(problem,))
    return replace(view, place=printable(view.place).replace("\n", "\\n"))


def _order(run: ListedRun) -> tuple[int, float, str]:
    """Running ones keep their order by name, so that nothing jumps; the others have the newest first."""
    state = run.view.state
    return ORDER.index(state), 0.0 if state == LiveState.RUNNING else -run.view.changed, run.view.place
