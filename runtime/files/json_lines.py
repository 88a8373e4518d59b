"""Files of JSON lines: appended to durably by several processes, read as they grow, whatever a crash left at their end.

`JsonLines` is for records of which none may be lost: a damaged line is an error. `sound_lines` is for journals: a
damaged line is left out, and counted by whoever reads.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from runtime.files.schemas import Schema, checked
from runtime.files.whole_files import parse_bounded, require_plain_file

LONGEST_LINE_BYTES = 1 << 20
LARGEST_FILE_BYTES = 1 << 31
MOST_NESTED = 16  # levels in a line
COMPARED_BYTES = 256  # before the place to go on from: are they those that were read?


class JsonLines:
    """Objects, one a line, that are only ever added to; each whole line is parsed once, however often it is read.

    A torn last line (a crash while writing) is left out, and cut off before the next is added.
    """

    def __init__(self, path: Path, schema: type[Schema], remedy: str = "mend or remove the line") -> None:
        self.path, self.schema, self.remedy = path, schema, remedy
        self._forget()

    def _forget(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._offset = self._lines = 0
        self._file: tuple[int, int] | None = None
        self._end = b""

    def read(self) -> list[dict[str, Any]]:
        """All objects in the order of the file, as they stand there; none where there is no file.

        Raises ValueError, with the number of the line, for one that is damaged or not as the schema has it.
        """
        if not self.path.exists():
            self._forget()
            return []
        require_plain_file(self.path)
        with self.path.open("rb") as file:
            self._go_on(file)
        return self._records

    def append(self, record: Mapping[str, Any], *, unique: str | None = None) -> None:
        """Add one line and sync it. ValueError where the file is damaged, or holds a record of the same `unique` field.

        Several processes may append to one file: it is locked while it is looked at and written.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            require_plain_file(self.path)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._go_on(file)
            if unique and any(one.get(unique) == record[unique] for one in self._records):
                raise ValueError(f"{self.path} holds the {unique} {record[unique]} already: it is never written twice")
            file.truncate(self._offset)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _go_on(self, file: BinaryIO) -> None:
        """Parse what was added since the last time; all of it when the file is another one."""
        facts = os.fstat(file.fileno())
        if facts.st_size > LARGEST_FILE_BYTES:
            raise ValueError(f"{self.path} has {facts.st_size} bytes: at most {LARGEST_FILE_BYTES} are read")
        file.seek(max(0, self._offset - COMPARED_BYTES))
        if self._file != (facts.st_dev, facts.st_ino) or file.read(min(self._offset, COMPARED_BYTES)) != self._end:
            self._forget()
        file.seek(self._offset)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.split(b"\n")[:-1]
        added = [self._parsed(line, self._lines + number) for number, line in enumerate(lines, start=1) if line.strip()]
        self._records = [*self._records, *added] if added else self._records
        self._offset, self._lines = self._offset + len(whole), self._lines + len(lines)
        self._file = (facts.st_dev, facts.st_ino)
        self._end = (self._end + whole)[-COMPARED_BYTES:]

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        place = f"{self.path}, line {number}"
        if len(line) > LONGEST_LINE_BYTES:
            raise ValueError(f"{place}: {len(line)} bytes, a record has at most {LONGEST_LINE_BYTES}; {self.remedy}")
        try:
            content = parse_bounded(line, deepest=MOST_NESTED, finite=True)
        except ValueError as error:
            raise ValueError(f"{place}: {error}; {self.remedy}") from error
        checked(content, self.schema, place, self.remedy)
        return dict(content)


def sound_lines(path: Path, schema: type[Schema]) -> Iterator[dict[str, Any] | None]:
    """The objects of a journal, one after the other; None for each line that is torn, damaged or of another kind.

    Bare NaN and Infinity, which earlier versions wrote, come as they are.
    """
    require_plain_file(path)
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            if line.strip():
                yield _sound(line, schema)


def _sound(line: bytes, schema: type[Schema]) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        content = parse_bounded(line, deepest=MOST_NESTED)
        checked(content, schema, "", "")
    except ValueError:
        return None
    return dict(content)


def as_line(values: Mapping[str, Any]) -> str:
    """One line of a journal; a number that is not finite is null: JSON has none."""
    return json.dumps(_without_nan(values), allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
