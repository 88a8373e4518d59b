"""Whether a process of this machine is alive, and ending this process together with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec of a process with threads, loading could deadlock
POLL_SECONDS = 0.5


def start_time(pid: int) -> str | None:
    """The start time of a process in clock ticks, which identifies a reused pid; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def is_alive(pid: int, start: str) -> bool:
    """Whether the process with this pid and start time is still running."""
    return start_time(pid) == start


def pid_space() -> str:
    """An id of this boot and this container, within which a pid is unambiguous; "" if the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def end_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> bool:
    """Have the kernel send this process a signal once `parent`, which started it, ends for any reason.

    If it has already ended, this process ends here. False if the kernel cannot (not Linux), or if another
    process is in between. The kernel counts threads: the signal also comes when the thread that started us ends.
    """
    is_ours = sys.platform.startswith("linux") and os.getppid() == parent
    is_ours = is_ours and LIBC.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) == 0
    if not _runs(parent) or (is_ours and os.getppid() != parent):
        os._exit(128 + signal_number)  # no signal, which a handler of the parent's could catch between fork and exec
    return is_ours


@contextmanager
def ending_with(parent: int) -> Iterator[None]:
    """End this process at once if `parent` has ended or ends inside the block: for work that only waits for others.

    A parent outside this process' container (0) and the system's first process (1) are not watched.
    """
    is_watched = parent > 1 and end_with_parent(parent)
    try:
        yield
    finally:
        if is_watched:
            LIBC.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def end_or_watch(parent: int, *, started_by_thread: bool = False) -> None:
    """End this process with `parent`: by the kernel where it can, else by a thread that checks twice a second."""
    if started_by_thread or not end_with_parent(parent):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    is_child = os.getppid() == parent
    while _runs(parent) and (not is_child or os.getppid() == parent):
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not sys.platform.startswith("linux") or start_time(pid) is not None
