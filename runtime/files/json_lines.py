"""JSON-lines files: durable appends from several processes, incremental reads, recovery of a torn last line.

`JsonLines` is for records that must all be kept: a damaged line is an error. `sound_lines` is for journals: a
damaged line is skipped, and counted by the reader.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from runtime.files.schemas import Schema, checked, shown
from runtime.files.whole_files import parse_bounded, require_plain_file, write_text

LONGEST_LINE_BYTES = 1 << 20
LARGEST_FILE_BYTES = 1 << 31
MOST_NESTED = 16  # levels in a line
REMEDY = "fix or remove the line"

Item = TypeVar("Item")


class JsonLines(Generic[Item]):
    """Objects, one per line, that are only ever appended; each whole line is parsed once, however often it is read.

    A torn last line (after a crash while writing) is skipped, and cut off before the next append. `as_item` turns an
    object into what `read` returns, or raises ValueError; no two objects may share a value of the field `unique`.
    """

    def __init__(
        self, path: Path, schema: type[Schema], *, as_item: Callable[[dict[str, Any]], Item], unique: str | None = None
    ) -> None:
        self.path, self.schema, self.as_item, self.unique = path, schema, as_item, unique
        self._forget()

    def _forget(self) -> None:
        self._items: list[Item] = []
        self._taken: set[str] = set()
        self._offset = self._lines = 0
        self._digest = hashlib.sha256()  # of what was parsed: an edited file is parsed again

    def read(self) -> list[Item]:
        """All items in file order; an empty list if there is no file.

        Raises ValueError, with the line number, for a line that is damaged or does not match the schema.
        """
        if not self.path.exists():
            self._forget()
            return []
        require_plain_file(self.path)
        with self.path.open("rb") as file:
            self._go_on(file)
        return list(self._items)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one line and sync it. ValueError if the file is damaged or already holds the same `unique` value.

        Several processes may append to one file: it is locked while it is read and written.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            require_plain_file(self.path)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._go_on(file)
            if self.unique and str(record[self.unique]) in self._taken:
                name = f"the {self.unique} {record[self.unique]}"
                raise ValueError(f"{self.path} already holds {name}: finished work is never run again")
            file.truncate(self._offset)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _go_on(self, file: BinaryIO) -> None:
        """Parse what was appended since the last read; everything if the file was edited or replaced."""
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE_BYTES:
            raise ValueError(f"{self.path} has {size} bytes: at most {LARGEST_FILE_BYTES} are read")
        file.seek(0)
        content = file.read()
        if hashlib.sha256(content[: self._offset]).digest() != self._digest.digest():
            self._forget()
        whole = content[self._offset : content.rfind(b"\n") + 1]
        lines = whole.split(b"\n")[:-1]
        added, names = [], set(self._taken)
        for number, line in enumerate(lines, start=self._lines + 1):
            if line.strip():
                added.append(self._parsed(line, f"{self.path}, line {number}", names))
        self._items, self._taken = [*self._items, *added] if added else self._items, names
        self._offset, self._lines = self._offset + len(whole), self._lines + len(lines)
        self._digest.update(whole)

    def _parsed(self, line: bytes, place: str, names: set[str]) -> Item:
        if len(line) > LONGEST_LINE_BYTES:
            raise ValueError(f"{place}: {len(line)} bytes, a record may have {LONGEST_LINE_BYTES}: {REMEDY}")
        try:
            content = parse_bounded(line, deepest=MOST_NESTED, finite=True)
        except ValueError as error:
            raise ValueError(f"{place} is not readable as JSON ({error}): {REMEDY}") from error
        checked(content, self.schema, place, REMEDY)
        if self.unique:
            name = str(content[self.unique])
            if name in names:
                raise ValueError(f"{place}: {self.unique} {shown(name)} appears twice: remove one of the two lines")
            names.add(name)
        try:
            return self.as_item(content)
        except ValueError as error:
            raise ValueError(f"{place}: {error}: {REMEDY}") from error


def sound_lines(path: Path, schema: type[Schema]) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a journal; None for each line that is torn, damaged or does not match the schema.

    Numbers that are not finite, which earlier versions wrote, become None.
    """
    require_plain_file(path)
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            if line.strip():
                yield sound_line(line, schema)


def cut_back(
    journal: Path,
    schema: type[Schema],
    updates: int,
    *,
    is_kept: Callable[[Mapping[str, Any]], bool],
    update_of: Callable[[Mapping[str, Any]], int],
) -> str | None:
    """Keep the lines of a journal that a run continued after `updates` updates does not write again; drop damaged ones.

    `update_of` numbers the update that a line is about, 0 for a line about none. Returns a warning about updates whose
    lines are missing; None when all have one.
    """
    if not journal.exists():
        return f"{journal} is missing: the new one starts after update {updates}" if updates else None
    numbers, damaged = set(), 0

    def kept() -> Iterator[str]:
        nonlocal damaged
        for line in sound_lines(journal, schema):
            damaged += line is None
            if line is not None and is_kept(line):
                numbers.add(update_of(line))
                yield as_line(line)

    write_text(journal, kept())
    lacking = updates - len(numbers - {0})
    if lacking <= 0:
        return None
    return f"{journal} has no lines for {lacking} of {updates} updates ({damaged} damaged lines were removed)"


def sound_line(line: bytes, schema: type[Schema]) -> dict[str, Any] | None:
    """The object of a journal's line; None if the line is torn, damaged or does not match the schema."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = parse_bounded(line, deepest=MOST_NESTED)
        checked(content, schema, "", "")
    except ValueError:
        return None
    return dict(_without_nan(content))


def as_line(values: Mapping[str, Any]) -> str:
    """One line of a journal; a number that is not finite becomes null, since JSON has no such numbers."""
    return json.dumps(_without_nan(values), allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
