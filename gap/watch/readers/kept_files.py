"""What was read of a run's files, kept until a file changes; what cannot be read is a problem to show, not an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gap.watch.owners import stamp_of
from runtime.files.foreign import printable

LONGEST_PROBLEM = 400
MOST_ENTRIES = 10_000  # of a folder that is listed

Read = TypeVar("Read")
Stamp = tuple[int, int, int]


class KeptFiles:
    """The values of files by what reads them, and in `problems` what is wrong with those read since `begin`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._kept: dict[tuple[Path, str], tuple[Stamp, Any, str]] = {}

    def begin(self) -> None:
        """Forget the problems of the last look."""
        self.problems = []

    def read(self, path: Path, read: Callable[[], Read], what: str = "") -> Read | None:
        """`read()` if the file changed since it was read last, else the value from then.

        None without the file, and where it cannot be read. `what` tells several readers of one file apart.
        """
        stamp = stamp_of(path)
        if stamp is None:
            self._kept.pop((path, what), None)
            return None
        kept = self._kept.get((path, what))
        if kept is None or kept[0] != stamp:
            kept = (stamp, *self._attempt(read))
            self._kept[path, what] = kept
        if kept[2]:
            self.problems.append(kept[2])
        return kept[1]

    def try_now(self, read: Callable[[], Read]) -> Read | None:
        """`read()` without keeping its value."""
        value, problem = self._attempt(read)
        if problem:
            self.problems.append(problem)
        return value

    def _attempt(self, read: Callable[[], Read]) -> tuple[Read | None, str]:
        try:
            return read(), ""
        except FileNotFoundError:  # between the look at it and the reading
            return None, ""
        except (OSError, ValueError) as error:
            text = printable(" ".join(str(error).split())) or type(error).__name__
            return None, text if len(text) <= LONGEST_PROBLEM else f"{text[:LONGEST_PROBLEM]} ..."

    def folder_bytes(self, folder: Path) -> int | None:
        """The size of the files in a folder and in the folders in it; None without it."""
        return self.read(folder, lambda: _bytes_in(folder, 1), "bytes")


def _bytes_in(folder: Path, deeper: int) -> int:
    total = 0
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= MOST_ENTRIES:
                break
            if entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
            elif deeper and entry.is_dir(follow_symlinks=False):
                total += _bytes_in(Path(entry.path), deeper - 1)
    return total
