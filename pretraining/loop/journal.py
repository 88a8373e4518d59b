"""The journal: one JSON line an update, ordered by step, cut back to the checkpoint when a run is resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runtime.files.whole_files import sync_file


class Journal:
    """Appends to `journal.jsonl`; only the main rank has one. A number that is not finite is null: JSON has none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, serial: int) -> None:
        """Drop what lies beyond the checkpoint that is resumed, and a torn last line."""
        if not self.path.exists():
            return
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(as_line(line) for line in journal_lines(self.path) if line.get("serial", 0) <= serial)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        sync_file(self.path.parent)

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(as_line(line) for line in lines)

    def sync(self) -> None:
        """Force it to the disk: a checkpoint must not outlive the lines that led to it."""
        if self.path.exists():
            sync_file(self.path)


def as_line(values: dict[str, Any]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def journal_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal, one after the other; without what a killed run or a lost block left torn."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal; a figure is None where it was not finite."""
    return list(journal_lines(path))
