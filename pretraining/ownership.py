"""One run to one output directory: a lock that the kernel releases when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO

from pretraining.interruption import start_time

LOCK_NAME = "run.lock"
# A killed owner's data workers inherit its lock and notice its death a few seconds later.
ORPHAN_SECONDS = 15.0


class Ownership:
    """Hold `directory/run.lock` for as long as this process lives; a dead owner's lock is free at once."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK_NAME
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Raises ValueError that names the owner when another run holds the directory."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+", encoding="utf-8")
        deadline = time.monotonic() + ORPHAN_SECONDS
        while not try_lock(file):
            file.seek(0)
            owner = file.read().strip() or "another process"
            if not is_dead(owner) or time.monotonic() > deadline:
                file.close()
                raise ValueError(
                    f"{self.path.parent} belongs to a running job ({owner}): wait for it, stop it, or use another "
                    "--output_dir"
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_dead(owner: str) -> bool:
    """Whether the process that wrote itself down is known to be gone: one of this machine, without a pid any more."""
    words = owner.split()
    if len(words) < 4 or words[3] != socket.gethostname() or not words[1].isdigit():
        return False
    return start_time(int(words[1])) is None
