"""The journal: one JSON line an update, ordered by step, cut back to the checkpoint when a run is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Journal:
    """Appends to `journal.jsonl`; only the main rank has one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, serial: int) -> None:
        """Drop what lies beyond the checkpoint that is resumed, and a torn last line."""
        if not self.path.exists():
            return
        kept = [line for line in read_journal(self.path) if line.get("serial", 0) <= serial]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal; a torn last line, which a killed run leaves, is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
