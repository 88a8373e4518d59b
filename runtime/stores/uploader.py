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
        self._waiting: OrderedDict[str, Work] = OrderedDict()
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
                (name, work) if other in older[:1] else (other, waiting)
                for other, waiting in self._waiting.items()
                if other not in older[1:]
            )
            if not older:
                self._waiting.pop(name, None)
            self._waiting[name] = work
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="uploading", daemon=True)
                self._thread.start()
            self._change.notify_all()

    @property
    def unfinished(self) -> list[str]:
        """What is not uploaded: running, waiting, or given up."""
        with self._change:
            return [*self.given_up, *([self._running] if self._running else []), *self._waiting]

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
                self._running, work = self._waiting.popitem(last=False)
            self._until_done(self._running, work)

    def _until_done(self, name: str, work: Work) -> None:
        pause = self._first_pause
        while not self._closed.is_set():
            try:
                work()
            except FileNotFoundError as error:
                self._give_up(name, f"a file is gone ({error})")
            except ValueError as error:
                self._give_up(name, str(error))
            except OSError as error:
                pause = LONGEST_PAUSE if isinstance(error, NoAccess) else pause
                self._say(f"warning: {name} is not uploaded yet ({error}); again in {pause:g} s")
                self._closed.wait(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            except Exception as error:  # of a library: this thread must live on, for what comes next
                self._give_up(name, without_secrets(reason_of(error)))
            return

    def _give_up(self, name: str, reason: str) -> None:
        """A later one of its kind, by the first word of the name, takes the place of one that is gone."""
        kind = name.split(" ")[0]
        with self._change:
            if any(other.split(" ")[0] == kind for other in self._waiting):
                return
            self.given_up.append(name)
        self._say(f"warning: {name} is not uploaded: {reason}")
