"""The local cache of files that are fetched from elsewhere: of bounded size, shared by the processes of a machine.

A file in use is locked (shared) by its readers, and is never removed; of the others the least recently used go first.
The time of last use is the file's access time, which is set here and does not depend on how the disk is mounted.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

CACHE_NAME = "pretraining-gap"
DEFAULT_GB = 100.0
GB = 10**9
PATTERN = "*.tar"  # what is removed and fetched again: shards; manifests and tokenizers are small
STEP_SECONDS = 1.0  # between two notes of the use of one file


def cache_folder() -> Path:
    """`pretraining-gap` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / CACHE_NAME


def make_room(root: Path, limit_bytes: float, num_bytes: int) -> bool:
    """Remove files below `root` until `num_bytes` more fit the limit; False if those in use leave too little room."""
    with one_at_a_time(root / "room"):
        files = sorted(_files(root))
        total = sum(size for _, size, _ in files) + num_bytes
        for _, size, path in files:
            if total <= limit_bytes:
                break
            if _remove_unused(path):
                total -= size
    return total <= limit_bytes


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, size and path of every file; what is being fetched counts as used just now."""
    for path in root.rglob(PATTERN):
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_atime, status.st_size, path


def _remove_unused(path: Path) -> bool:
    """Remove a file; False for one in use, and where that cannot be known."""
    try:
        with path.open("r+b") as file:  # a network file system locks exclusively only what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def hold(path: Path) -> BinaryIO | None:
    """Open a file and keep it in the cache until it is closed; None if it was removed meanwhile."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with suppress(OSError):  # a disk without locks: there, a file in use may be removed, and is read to its end
        fcntl.flock(file, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            note_use(path)
            return file
    file.close()
    return None


def note_use(path: Path) -> None:
    """Set the time of last use; the time of change, by which readers recognise a file, stays."""
    with suppress(OSError):
        status = path.stat()
        if time.time() - status.st_atime > STEP_SECONDS:
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Only one process of the machine fetches a file, or makes room; the others wait, and then find it."""
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the one before removed the file
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
