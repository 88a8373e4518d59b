"""One run to one output directory: a lock that is free again when its owner dies."""

from __future__ import annotations

from pathlib import Path

from runtime.files.lock_file import LockFile

LOCK_NAME = "run.lock"


class Ownership:
    """Hold `directory/run.lock` for as long as this process lives; a dead owner's lock is free at once."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK_NAME
        self._lock = LockFile(self.path)

    def take(self) -> None:
        """Raises ValueError that names the owner when another run holds the directory."""
        owner = self._lock.take()
        if owner is not None:
            raise ValueError(
                f"{self.path.parent} belongs to a running job ({owner}): wait for it, stop it, or use another "
                "--output_dir"
            )

    def release(self) -> None:
        self._lock.release()
