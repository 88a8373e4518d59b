"""The journal: one JSON line per update, in order, truncated to the checkpoint when a run is resumed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.files.json_lines import as_line, cut_back, sound_lines
from runtime.files.schemas import Count, Schema
from runtime.files.whole_files import sync_file


class PretrainingJournalLine(Schema):
    """What every line must hold."""

    serial: Count = 0  # updates actually done, branches included


class Journal:
    """Appends to `journal.jsonl`; only the main rank has one. A number that is not finite is null: JSON has none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, serial: int) -> str | None:
        """Drop the lines after the checkpoint that is resumed, and damaged lines.

        Returns a warning about updates up to `serial` whose lines are missing; None when all have one.
        """
        return cut_back(
            self.path,
            PretrainingJournalLine,
            serial,
            is_kept=lambda line: line.get("serial", 0) <= serial,
            update_of=lambda line: int(line.get("serial", 0)),
        )

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(as_line(line) for line in lines)

    def sync(self) -> None:
        """Force it to the disk: a checkpoint must not be durable before the journal lines up to it."""
        if self.path.exists():
            sync_file(self.path)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a journal, without those torn by a killed run or a lost block."""
    return [line for line in sound_lines(path, PretrainingJournalLine) if line is not None]
