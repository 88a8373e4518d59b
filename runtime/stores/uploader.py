"""Uploads in the background: one after another, each repeated until it succeeds; a failure stops nothing else."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from runtime.files.foreign import reason_of
from runtime.stores.address import without_secrets
from runtime.stores.store import NoAccess

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between attempts of one upload, doubled each time
Say = Callable[[str], None]
Work = Callable[[], None]


class Uploader:
    """A thread that does the work submitted to it, in order. It ends with the process.

    Work raises OSError to be repeated; FileNotFoundError, where a local file is gone, gives it up. Whatever it says
    goes to `say`, from the thread.
    """

    def __init__(self, say: Say, *, first_pause: float = FIRST_PAUSE) -> None:
        self._say, self._first_pause = say, first_pause
        self._waiting: OrderedDict[str, tuple[Work, str]] = OrderedDict()  # name -> work and what it replaces
        self._running: str | None = None
        self._change = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.given_up: list[str] = []

    def submit(self, name: str, work: Work, *, replacing: str = "") -> None:
        """Have the work done after what waits, also where work of this name waits, which is dropped; `replacing` drops
        waiting work whose name begins so, and takes its place."""
        with self._change:
            older = [other for other in self._waiting if replacing and other.startswith(replacing)]
            self._waiting = OrderedDict(
                (name, (work, replacing)) if other in older[:1] else (other, waiting)
                for other, waiting in self._waiting.items()
                if other not in older[1:]
            )
            if not older:
                self._waiting.pop(name, None)
            self._waiting[name] = work, replacing
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="uploading", daemon=True)
                self._thread.start()
            self._change.notify_all()

    @property
    def pending(self) -> list[str]:
        """What is being uploaded or waits for it."""
        with self._change:
            return [*([self._running] if self._running else []), *self._waiting]

    @property
    def unfinished(self) -> list[str]:
        """What is not uploaded: given up and not replaced by a later one that was, running, or waiting."""
        with self._change:
            return [*self.given_up, *self.pending]

    def close(self, seconds: float) -> list[str]:
        """Wait for all work, for so long; returns what is left undone, which is not begun any more."""
        deadline = time.monotonic() + seconds
        with self._change:
            while (self._running or self._waiting) and (left := deadline - time.monotonic()) > 0:
                self._change.wait(min(left, 1.0))  # in turns: so that a signal's handler runs
        self._closed.set()
        return self.unfinished

    def _run(self) -> None:
        while True:
            with self._change:
                self._running = None
                self._change.notify_all()
                while not self._waiting and not self._closed.is_set():
                    self._change.wait(1.0)
                if self._closed.is_set():
                    return
                self._running, (work, replacing) = self._waiting.popitem(last=False)
            self._until_done(self._running, work, replacing)

    def _until_done(self, name: str, work: Work, replacing: str) -> None:
        pause = self._first_pause
        while not self._closed.is_set():
            try:
                work()
            except FileNotFoundError as error:
                self._give_up(name, replacing, f"a file is gone ({error})")
            except ValueError as error:
                self._give_up(name, replacing, str(error))
            except OSError as error:
                pause = LONGEST_PAUSE if isinstance(error, NoAccess) else pause
                self._say(f"warning: {name} is not uploaded yet ({error}); again in {pause:g} s")
                self._closed.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            except Exception as error:  # of a library: this thread must live on, for what comes next
                self._give_up(name, replacing, without_secrets(reason_of(error)))
            else:
                with self._change:
                    self.given_up = [other for other in self.given_up if not _replaces(name, replacing, other)]
            return

    def _give_up(self, name: str, replacing: str, reason: str) -> None:
        """A later one that waits and would have replaced it takes the place of one that is gone."""
        with self._change:
            if any(_replaces(other, replacing, name) for other in self._waiting):
                return
            self.given_up.append(name)
        self._say(f"warning: {name} is not uploaded: {reason}")


def _replaces(later: str, replacing: str, earlier: str) -> bool:
    return later == earlier or (bool(replacing) and all(name.startswith(replacing) for name in (later, earlier)))
