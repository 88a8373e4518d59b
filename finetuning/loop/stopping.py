"""Requests to stop a fine-tuning: recorded by signal handlers, and shared with all ranks at the same call."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.processes.collectives import broadcast_json, gather_json
from runtime.processes.interruption import Interrupted, Interruption, may_handle_signals

LONGEST_INTERVAL = 50  # calls
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Asked = Callable[[], str | None]  # why this process was asked to stop, None if it was not


def never() -> None:
    """Never stop: for fine-tunings inside a process that its owner ends."""


@contextmanager
def noting_signals() -> Iterator[Asked]:
    """Record signals and the launcher's death instead of ending at once; earlier handlers are restored afterwards."""
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in SIGNALS} if may_handle_signals() else {}
    interruption.install()
    try:
        yield lambda: interruption.reason if interruption.requested() else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class FinetuningInterrupted(Interrupted):
    """A fine-tuning was asked to stop after `updates` of `total_updates`, and has saved."""

    def __init__(self, reason: str, updates: int, total_updates: int) -> None:
        super().__init__(reason, {"updates": updates, "total_updates": total_updates})
        self.updates, self.total_updates = updates, total_updates


class Stopping:
    """Shares a request to stop on any rank with all ranks. Every rank makes the same calls.

    The ranks communicate about once a second by the main rank's clock, not in every call.
    """

    def __init__(self, asked: Asked = never) -> None:
        self.asked = asked
        self.restart()

    def restart(self) -> None:
        """Start another kind of work, whose calls may take longer: communicate in its first call."""
        self._calls, self._interval, self._since = 0, 1, time.monotonic()

    def reason(self) -> str | None:
        """Why to stop now, the same on every rank; None to go on."""
        self._calls += 1
        if self._calls < self._interval:
            return None
        seconds = (time.monotonic() - self._since) / self._calls
        interval = max(1, min(LONGEST_INTERVAL, round(1.0 / seconds))) if seconds > 0 else 1
        self._calls, self._since = 0, time.monotonic()
        self._interval = int(broadcast_json(interval))
        reasons = gather_json(self.asked())
        named = next(((rank, reason) for rank, reason in enumerate(reasons) if reason), None)
        return None if named is None else named[1] + (f" at rank {named[0]}" if len(reasons) > 1 else "")

    def check(self) -> None:
        """Raise Interrupted on every rank when it is time to stop."""
        reason = self.reason()
        if reason is not None:
            raise Interrupted(reason)
