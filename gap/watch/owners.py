"""Whose a run's folder is, and whether that process lives: locks are read and never taken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gap.watch.view import LiveState
from gap.watch.wording import ago, duration
from runtime.files.foreign import printable
from runtime.files.lock import LOCK_NAME, owner_lives
from runtime.files.schemas import Name, Schema, read_file
from runtime.processes.interruption import MARKER_NAME

LOCK_BYTES = 4096
QUIET_SECONDS = 900.0  # a process elsewhere that wrote nothing for so long is taken to be gone
HELD_LOCKS = Path("/proc/locks")  # of this machine: "1: FLOCK ADVISORY WRITE pid device:inode 0 EOF"
REMEDY = "remove it"


class _MarkerFile(Schema):
    """INTERRUPTED.json."""

    reason: Name


@dataclass(frozen=True)
class Owner:
    """The record in a lock. `lives` is None where that cannot be known from here."""

    record: str
    lives: bool | None

    @property
    def words(self) -> str:
        """`pid 12 on host since 2026-11-30 10:00:00`."""
        return printable(self.record.split("\n", 1)[0].strip()) or "unknown process"


def read_owner(directory: Path, lock: str = LOCK_NAME) -> Owner | None:
    """The process that took the folder last; None without a lock."""
    try:
        descriptor = os.open(directory / lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        record = os.read(descriptor, LOCK_BYTES).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return Owner(record, owner_lives(record))


def state_of_unfinished(directory: Path, owner: Owner | None, changed: float) -> tuple[LiveState, str]:
    """How a run that has not finished stands, and why. `changed` is when it last wrote.

    ValueError for a damaged INTERRUPTED.json.
    """
    if owner is not None and owner.lives:
        return LiveState.RUNNING, ""
    if (directory / MARKER_NAME).is_file():
        reason = read_file(directory / MARKER_NAME, _MarkerFile, REMEDY).reason
        return LiveState.INTERRUPTED, f"{reason}: saved; run the same command again to continue"
    quiet = time.time() - changed
    if owner is None:
        if quiet < QUIET_SECONDS:
            return LiveState.RUNNING, "no process is on record; its files have changed in the last minutes"
        return LiveState.STALE, f"no process is on record, and nothing was written for {duration(quiet)}"
    if owner.lives is None and quiet < QUIET_SECONDS:
        return LiveState.RUNNING, f"{owner.words}: another machine or container; its files change"
    if owner.lives is None:
        return LiveState.STALE, f"{owner.words}: not visible from here, and it last wrote {ago(quiet)}"
    return LiveState.STALE, f"its process is gone ({owner.words}): run the same command again to continue"


def held_inodes() -> frozenset[int] | None:
    """Inodes of all files that some process of this machine holds locked; None where the kernel does not say."""
    try:
        lines = HELD_LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines]
    waiting = "->"  # of a process that waits for the lock
    places = [part[5].rpartition(":")[2] for part in fields if len(part) > 5 and part[1] != waiting]
    return frozenset(int(inode) for inode in places if inode.isdigit())


def newest(paths: Iterable[Path]) -> float:
    """When one of these files was last written; 0 if none is there."""
    return max((stamp[0] / 1e9 for stamp in map(stamp_of, paths) if stamp is not None), default=0.0)


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Time of the last change in nanoseconds, size and inode: equal while a file is the same; None without it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
