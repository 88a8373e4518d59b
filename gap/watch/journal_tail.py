"""A journal as it grows: each look reads what was added, in bounded memory, however long the file is."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from runtime.files.json_lines import LONGEST_LINE_BYTES, sound_line
from runtime.files.schemas import Schema
from runtime.files.whole_files import require_plain_file

WHOLE_BYTES = 1 << 20  # so much that is new is read to the last line
SAMPLES, SAMPLE_BYTES = 300, 3 << 10  # of more, so many places of this size
LAST_BYTES = 96 << 10  # and the end, to the last line
MOST_POINTS = 480
MOST_COURSES = 64
RECENT_LINES = 100

Line = dict[str, Any]


class ThinnedCourse:
    """Points (x, y) in bounded number: means over equally many lines; the number doubles as the course grows."""

    def __init__(self, most: int = MOST_POINTS) -> None:
        self.most, self.width = most, 1
        self._points: list[tuple[float, float, int]] = []  # sums over lines of x and y, and their number

    def add(self, x: float, y: float) -> None:
        """Add the point of one line."""
        if self._points and self._points[-1][2] < self.width:
            last_x, last_y, number = self._points[-1]
            self._points[-1] = (last_x + x, last_y + y, number + 1)
            return
        self._points.append((x, y, 1))
        if len(self._points) > self.most:
            self._points = [_merged(self._points[at : at + 2]) for at in range(0, len(self._points), 2)]
            self.width *= 2

    def points(self, most: int | None = None) -> tuple[tuple[float, float], ...]:
        """The means, in order; at most so many, each then of several neighbours."""
        step = 1 if most is None else max(1, math.ceil(len(self._points) / most))
        merged = (_merged(self._points[at : at + step]) for at in range(0, len(self._points), step))
        return tuple((x / number, y / number) for x, y, number in merged)


def _merged(points: list[tuple[float, float, int]]) -> tuple[float, float, int]:
    return sum(point[0] for point in points), sum(point[1] for point in points), sum(point[2] for point in points)


class JournalTail:
    """The courses of a journal's figures, its last lines, and how many lines are damaged.

    `place_of` gives the name of the course that a line belongs to and its x; None for a line that has none. `names` are
    the figures that are followed. What is new beyond WHOLE_BYTES is sampled at SAMPLES places.
    """

    def __init__(
        self,
        path: Path,
        schema: type[Schema],
        *,
        place_of: Callable[[Line], tuple[str, float] | None],
        names: tuple[str, ...] = ("loss", "learning_rate"),
    ) -> None:
        self.path, self.schema, self.place_of, self.names = path, schema, place_of, names
        self._forget()

    def _forget(self) -> None:
        self.courses: dict[str, dict[str, ThinnedCourse]] = {}
        self.recent: deque[Line] = deque(maxlen=RECENT_LINES)
        self.other: deque[Line] = deque(maxlen=RECENT_LINES)  # lines without a place, such as validations
        self.damaged, self.is_sampled = 0, False
        self._offset = self._inode = 0

    @property
    def last(self) -> Mapping[str, Any]:
        """The last line with a place; empty before the first."""
        return self.recent[-1] if self.recent else {}

    def read(self) -> None:
        """Read what was added since the last call; all if the file was replaced or cut. Without a file: nothing.

        ValueError if the path is not a regular file.
        """
        try:
            require_plain_file(self.path)
            file = self.path.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        with file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._inode or state.st_size < self._offset:
                self._forget()
                self._inode = state.st_ino
            for line in self._new_lines(file, state.st_size):
                self._take(line)

    def _new_lines(self, file: BinaryIO, end: int) -> Iterator[bytes]:
        """Whole lines between the offset and `end`, and the offset moved behind the last of them."""
        if end - self._offset > WHOLE_BYTES:
            self.is_sampled = True
            step = (end - LAST_BYTES - self._offset) / SAMPLES
            for number in range(SAMPLES):
                yield from _lines_at(file, self._offset + int(number * step))
            file.seek(end - LAST_BYTES - 1)
            self._offset = end - LAST_BYTES - 1 + len(file.readline(LONGEST_LINE_BYTES))
        file.seek(self._offset)
        content = file.read(max(0, end - self._offset))
        whole = content.rfind(b"\n") + 1
        if not whole and len(content) > LONGEST_LINE_BYTES:
            whole = len(content)  # no line of a journal is so long
            self.damaged += 1
            content = b"\n" * whole
        self._offset += whole
        yield from content[:whole].splitlines(keepends=True)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        content = sound_line(line, self.schema)
        if content is None:
            self.damaged += 1
            return
        place = self.place_of(content)
        if place is None:
            self.other.append(content)
            return
        self.recent.append(content)
        if place[0] not in self.courses and len(self.courses) >= MOST_COURSES:
            return
        course = self.courses.setdefault(place[0], {name: ThinnedCourse() for name in self.names})
        for name in self.names:
            value = number_in(content, name)
            if value is not None:
                course[name].add(place[1], value)


def _lines_at(file: BinaryIO, offset: int) -> Iterator[bytes]:
    """The whole lines within a few kilobytes behind `offset`, the torn first one left out."""
    file.seek(offset)
    lines = file.read(SAMPLE_BYTES).split(b"\n")
    first = 0 if offset == 0 else 1
    yield from (line + b"\n" for line in lines[first:-1])


def number_in(line: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a line; None for anything else."""
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None
