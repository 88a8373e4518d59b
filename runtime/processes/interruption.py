"""Requests to stop: signals, and the death of the launcher, which `deepspeed` does not forward."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from runtime.processes.liveness import is_alive, start_time
from runtime.processes.ranks import read_ranks

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
MARKER_NAME = "INTERRUPTED.json"

LAUNCHERS = (b"deepspeed", b"torchrun", b"torch.distributed", b"torch/distributed")


# A launcher forwards a signal that the terminal or the scheduler has already sent to its ranks: both are one request.
REPEAT_SECONDS = 1.0
LONGEST_TIMEOUT = 1e9  # seconds: the timer's limit is 292 years


class Interrupted(Exception):
    """The run was asked to stop, and has saved.

    `progress` goes into the marker file. `together`: every rank raised it at the same place; else no collective may
    follow.
    """

    def __init__(self, reason: str, progress: Mapping[str, Any] | None = None, *, together: bool = True) -> None:
        super().__init__(reason)
        self.progress, self.together = dict(progress or {}), together


def forget_interruption(directory: Path | str) -> None:
    """Remove the INTERRUPTED.json that an earlier call left in its output folder; for the main rank, others do nothing.

    Whatever begins work there calls it: a job script that finds the file would queue a finished run again.
    """
    if read_ranks().is_main and Path(directory).is_dir():
        (Path(directory) / MARKER_NAME).unlink(missing_ok=True)


def may_handle_signals() -> bool:
    """Whether this is the main thread: no other may set signal handlers, so work in another one cannot be stopped."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Turn SIGTERM, SIGUSR1 and Ctrl-C into Interrupted at once: for work that survives a kill at any point.

    Code inside may install its own handlers, to stop at a place of its choice. Only the main thread handles signals.
    """
    if not may_handle_signals():
        yield
        return
    reasons = ["SIGINT"]

    def interrupt(number: int, frame: FrameType | None) -> None:
        reasons[:] = [signal.Signals(number).name]
        raise KeyboardInterrupt  # not an Exception, which a library might catch

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    except KeyboardInterrupt as interruption:
        raise Interrupted(reasons[0], together=False) from interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption:
    """Records SIGTERM, SIGINT, SIGUSR1 and the launcher's death; another signal a second later ends the process."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._first_signal: float | None = None
        self._ancestors = launchers_above(os.getpid())
        self._handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the signals; in another thread than the main one nothing changes, and `requested` stays false."""
        if not may_handle_signals():
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Restore the earlier signal handlers, once nothing polls `requested` any more."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_signal is None:
            self._first_signal = now
        elif number != signal.SIGUSR1 and now - self._first_signal > REPEAT_SECONDS:
            os._exit(128 + number)
        self.reason = self.reason or signal.Signals(number).name

    def requested(self) -> bool:
        """True once a signal came or a launcher above this process is gone."""
        if self.reason is None and any(not is_alive(pid, start) for pid, start in self._ancestors):
            self.reason = "the launcher is gone"
        return self.reason is not None


def launchers_above(pid: int) -> list[tuple[int, str]]:
    """Pids and start times of the launcher processes among the ancestors of `pid`."""
    launchers = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[1])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, IndexError, ValueError):
            break
        start = start_time(pid)
        interpreter = command.split(b"\0", 1)[0].rsplit(b"/", 1)[-1]
        if interpreter.startswith((b"bash", b"sh", b"make", b"timeout")) or start is None:
            continue
        if any(launcher in command for launcher in LAUNCHERS):
            launchers.append((pid, start))
    return launchers


def arm_watchdog(seconds: float) -> None:
    """Unless armed again within `seconds`, print every thread's stack and end the process: a guard against hangs."""
    if seconds > 0:
        faulthandler.dump_traceback_later(min(seconds, LONGEST_TIMEOUT), exit=True, file=sys.__stderr__ or 2)


def disarm_watchdog() -> None:
    faulthandler.cancel_dump_traceback_later()
