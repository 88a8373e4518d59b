"""File locks that end with their owner, even if its child processes live on; they give an output directory to one
run at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import time
import weakref
from pathlib import Path

from runtime.processes.liveness import pid_space, start_time

# Processes that a dead owner left behind may hold its lock: they have this long to end, then the file is replaced.
ORPHAN_SECONDS = 2.0
POLL_SECONDS = 0.1
RECORD_BYTES = 4096
LOCK_NAME = "run.lock"

logger = logging.getLogger(__name__)


class LockFile:
    """A lock held by one object of one process at a time; the file names its owner.

    The kernel frees the lock when the process ends. A process forked from the owner closes its copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> str | None:
        """Try to take the lock: None if it is now ours, else the description of its holder, on this or another machine.

        Raises ValueError if the path is not a regular file, or is a file that is not a lock.
        """
        seen, deadline = b"", 0.0
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _open(self.path)
            try:
                if _lock(descriptor):
                    _write_owner(descriptor)
                    if _is_at(self.path, descriptor):
                        self._keep(descriptor)
                        descriptor = -1
                        return None
                    continue  # replaced meanwhile by another process
                record = os.pread(descriptor, RECORD_BYTES, 0)
                if not is_dead(record.decode(errors="replace")):
                    return _first_line(record) or "another process"
                if record != seen:
                    seen, deadline = record, time.monotonic() + ORPHAN_SECONDS
                elif time.monotonic() > deadline:
                    self._replace(descriptor, record)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            time.sleep(POLL_SECONDS)

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _keep(self, descriptor: int) -> None:
        self._descriptor = descriptor
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _release(me()))

    def _replace(self, descriptor: int, record: bytes) -> None:
        """Remove the file of a dead owner whose orphans hold it; only one process at a time does so.

        Record locks, unlike those of `flock`, are not inherited, so no orphan can hold this one.
        """
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process is doing it, or the file system does not distinguish the two kinds of lock
            return
        if _is_at(self.path, descriptor) and os.pread(descriptor, RECORD_BYTES, 0) == record:
            self.path.unlink()
            logger.warning(
                "%s: its owner (%s) is dead; processes that it left behind still held the lock, which is taken over",
                self.path,
                _first_line(record),
            )


class Ownership:
    """Hold `directory/run.lock` for as long as this process lives; a dead owner's lock is free at once."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK_NAME
        self._lock = LockFile(self.path)

    def take(self) -> None:
        """Raises ValueError that names the owner if another run holds the directory; does nothing if it is ours."""
        owner = None if self._lock.is_held else self._lock.take()
        if owner is not None:
            raise ValueError(
                f"{self.path.parent} belongs to a running job ({owner}): wait for it, stop it, or use another "
                "--output_dir"
            )

    def release(self) -> None:
        self._lock.release()


def is_dead(record: str) -> bool:
    """Whether the process that wrote a lock's record, on this machine and in this container, is known to be gone."""
    return owner_lives(record) is False


def owner_lives(record: str) -> bool | None:
    """Whether the process that wrote a lock's record still runs; None where that cannot be known from here."""
    lines = record.splitlines()
    words = lines[0].split() if lines else []
    where = lines[1].split() if len(lines) > 1 else []
    if len(words) < 2 or not words[1].isdigit() or len(where) != 2 or where[0] != pid_space():
        return None
    pid, start = int(words[1]), where[1]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, which /proc may hide
        return None
    return start_time(pid) == start


def _release(lock: LockFile | None) -> None:
    if lock is not None:
        lock.release()


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise ValueError(f"{path} is not a regular file, as a lock must be: move it away") from error
    head = b"?" if not stat.S_ISREG(os.fstat(descriptor).st_mode) else os.pread(descriptor, 4, 0)
    if head and head != b"pid " and not head.strip().isdigit():
        os.close(descriptor)
        raise ValueError(f"{path} is not a lock file and would be overwritten: move it away")
    return descriptor


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_owner(descriptor: int) -> None:
    """Write the owner of the lock, as text, and a line by which others check whether it is alive."""
    words = f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    space, start = pid_space(), start_time(os.getpid())
    record = words + (f"{space} {start}\n" if space and start else "")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, record.encode(), 0)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _first_line(record: bytes) -> str:
    return record.decode(errors="replace").split("\n", 1)[0].strip()
