"""A lock on a folder of a store: best effort, since a store has no locks that end with their owner.

The owner writes its record again every RENEW_SECONDS. Another run that finds a record watches it: one that changes
belongs to a running job, one that does not, to a dead one. Clocks are not compared.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from runtime.files.foreign import printable
from runtime.files.lock import LOCK_NAME, is_dead
from runtime.processes.liveness import pid_space, start_time
from runtime.stores.store import Store

RENEW_SECONDS = 20.0
WATCHED = 2.5  # periods in which a living owner writes at least once
LARGEST_RECORD = 4096


class StoreLock:
    """Held by one process; `lost` once another one has taken it over, which it may if this one fell silent."""

    def __init__(self, store: Store, say: Callable[[str], None] = print, *, seconds: float = RENEW_SECONDS) -> None:
        self.store, self._say, self._seconds = store, say, seconds
        self._token, self._count = secrets.token_hex(8), 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def take(self) -> None:
        """ValueError, with its owner, if a running job holds the lock; watches a silent one for `WATCHED` periods."""
        record = self._read()
        if record and not is_dead(record):
            self._say(f"{self.store} was last used by another job ({_owner(record)}): waiting to see whether it runs")
            deadline = time.monotonic() + WATCHED * self._seconds
            while time.monotonic() < deadline:
                time.sleep(min(1.0, self._seconds / 4))
                latest = self._read()
                if not latest:
                    break
                if latest != record:
                    raise ValueError(
                        f"{self.store} belongs to a running job ({_owner(latest)}): wait for it, stop it, or name "
                        "another --upload"
                    )
        self._write()
        self._thread = threading.Thread(target=self._renew, name="store lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """ValueError once another job has taken the store over."""
        if self.lost:
            raise ValueError(
                f"another job has taken over {self.store}: end one of the two, or name another --upload for this one"
            )

    def release(self) -> None:
        """Remove the record unless it is another's; a store that does not answer keeps it, to no harm."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join(2 * self._seconds)
        self._thread = None
        with suppress(OSError, ValueError):
            if self._token in self._read():
                self.store.remove([LOCK_NAME])

    def _read(self) -> str:
        return (self.store.read(LOCK_NAME, LARGEST_RECORD) or b"").decode(errors="replace")

    def _write(self) -> None:
        self._count += 1
        space, start = pid_space(), start_time(os.getpid())
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = [f"pid {os.getpid()} on {socket.gethostname()}, {since}", f"{space} {start}"]
        self.store.write(LOCK_NAME, "\n".join([*lines, f"{self._token} {self._count}", ""]).encode())

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds):
            with suppress(OSError, ValueError):  # the uploads say that the store does not answer
                record = self._read()
                if record and self._token not in record:
                    self.lost = True
                    self._say(
                        f"warning: another job ({_owner(record)}) has taken over {self.store}: nothing more is "
                        "uploaded; this run goes on in its own folder"
                    )
                    return
                self._write()


def _owner(record: str) -> str:
    return printable(record.split("\n", 1)[0])[:200]
