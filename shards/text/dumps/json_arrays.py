"""JSON arrays: the elements of one list, read one by one and not as a whole; also of a list in an object."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

from runtime.files.schemas import shown
from shards.text.columns import json_text, valid_unicode
from shards.text.plain_text import UTF8_MARK, TextRules
from shards.text.records import parse_line

READ_BYTES = 1 << 18
BLANKS = re.compile(rb"[ \t\r\n]*+")
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+([\[\]{}])', re.DOTALL)
SCALAR = re.compile(rb"[^,\]\s]++")
VALUE = rb'(?:"(?:[^"\\]++|\\.)*+"|[^\s\[\]{},":]++)'
WRAPPED = re.compile(rb'\s*\{\s*(?:"[^"]*"\s*:\s*' + VALUE + rb'\s*,\s*)*+"([^"]*)"\s*:\s*(?=\[\s*[{"])', re.DOTALL)
KEY_OR_BRACKET = re.compile(rb'("(?:[^"\\]++|\\.)*+")\s*+(:?)|([\[\]{}])', re.DOTALL)
ELEMENT_REMEDY = "write the file again, as one list of objects or texts"


def array_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """The text column of an array's objects, or its texts themselves.

    Raises ValueError naming the element that is longer than a document may be, or cannot be used, as JSON lines do.
    """
    for number, offset, data in array_elements(stream, name, rules):
        place = f"{name}: element {number}"
        value = parse_line(rules.decode(data, name, offset), place, remedy=ELEMENT_REMEDY)
        if not isinstance(value, dict | str):
            raise ValueError(f"{place} is a {type(value).__name__}, not an object or a text: {ELEMENT_REMEDY}")
        yield json_text(value, place, rules) if isinstance(value, dict) else valid_unicode(value, place, rules)


def is_wrapped(head: bytes, column: str) -> bool:
    """Whether a stream that begins with `head` is one object around a list, and not an object a line."""
    match = WRAPPED.match(head.removeprefix(UTF8_MARK))
    if match is None or is_part_of(match[1].decode(errors="replace"), column):
        return False
    line, _, rest = head.removeprefix(UTF8_MARK).lstrip().partition(b"\n")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # an object longer than `head`, or over several lines
        return not any(is_part_of(key, column) for key in outer_keys(head))
    return not rest.strip() and column.partition(".")[0] not in record and column not in record


def outer_keys(head: bytes) -> Iterator[str]:
    """The keys of the object that a stream begins with, as far as `head` has them."""
    depth = 0
    for text, colon, bracket in KEY_OR_BRACKET.findall(head):
        if bracket:
            depth += 1 if bracket in (b"{", b"[") else -1
            if not depth:
                return
        elif colon and depth == 1:
            try:
                yield json.loads(text)
            except ValueError:  # no JSON: what reads the file says so
                return


def is_part_of(key: str, column: str) -> bool:
    """Whether a key is that of the column, or of an object that the column is in."""
    return f"{column}.".startswith(f"{key}.")


def array_elements(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[tuple[int, int, bytes]]:
    """The elements of an array as they are written, with their number (from 1) and their offset in the stream."""
    scanner = ArrayScanner(stream, name, rules)
    wrapped = scanner.enter()
    while scanner.next_element():
        yield scanner.number, scanner.offset + scanner.start, bytes(scanner.buffer[scanner.start : scanner.position])
    rest = scanner.rest()
    if wrapped:
        refuse_other_documents(rest, name, rules.text_column)
    elif rest.strip():
        raise ValueError(
            f"{name}: after its list, of {scanner.number:,} elements, stands {shown(rest.strip()[:20])}: give one "
            "list, or one object per line"
        )


def refuse_other_documents(rest: bytes, name: str, column: str) -> None:
    """ValueError where an object does not end after its list, or holds another, or the text column itself."""
    try:
        others = json.loads(b"{" + rest.strip().removeprefix(b","))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: the object around the list does not end as JSON does: is the file whole?") from error
    if any(is_part_of(key, column) for key in others):
        raise ValueError(
            f"{name} is one object with the column {column!r}, after a long list: write it on one line and name it "
            ".jsonl, or name the column of the list's objects with --text_column"
        )
    if any(isinstance(value, list) and value for value in others.values()):
        raise ValueError(f"{name} has several lists: give the one with the documents, as jq -c '.NAME[]' writes it")


class ArrayScanner:
    """Finds the ends of an array's elements in a stream, of which it holds one element and what was read beyond it."""

    def __init__(self, stream: io.BufferedReader, name: str, rules: TextRules) -> None:
        self.stream, self.name, self.rules = stream, name, rules
        self.buffer = bytearray()
        self.offset = 0  # of the buffer in the stream
        self.start = self.position = 0  # of the element, and what was scanned, in the buffer
        self.number = 0

    def fill(self) -> bool:
        """Read as much again as is held, so that scanning anew takes no longer in all; False at the end."""
        del self.buffer[: self.start]
        self.offset += self.start
        self.position -= self.start
        self.start = 0
        if len(self.buffer) > self.rules.max_document_bytes:
            raise ValueError(
                f"{self.name}: element {self.number} is longer than {self.rules.max_document_bytes:,} bytes: "
                f"{self.rules.size_remedy}"
            )
        data = self.stream.read(max(READ_BYTES, len(self.buffer)))
        self.buffer += data
        return bool(data)

    def enter(self) -> bool:
        """Go to the first element; whether the list is inside an object."""
        while self.fill() and not self.buffer.strip():
            pass
        if self.buffer.startswith(UTF8_MARK):
            self.start = self.position = len(UTF8_MARK)
        match = WRAPPED.match(self.buffer, self.start)
        if match:
            self.position = match.end()
        self.skip_blanks()
        self.position += 1
        return match is not None

    def skip_blanks(self) -> bytes:
        """Go to the next byte that is not blank and return it; b"" at the end."""
        while True:
            match = BLANKS.match(self.buffer, self.position)
            self.start = self.position = match.end() if match else self.position
            if self.position < len(self.buffer):
                return bytes(self.buffer[self.position : self.position + 1])
            if not self.fill():
                return b""

    def next_element(self) -> bool:
        """Go to the next element and to its end; False at the end of the array."""
        byte = self.skip_blanks()
        if self.number:
            if byte == b"]":
                self.position += 1
                return False
            if byte != b",":
                raise self.damaged(byte)
            self.position += 1
            byte = self.skip_blanks()
        elif byte == b"]":
            self.position += 1
            return False
        self.number += 1
        if byte in (b"", b"]", b",", b"}", b":"):
            raise self.damaged(byte)
        if byte in (b"{", b"["):
            self.scan_brackets()
        else:
            self.scan(STRING if byte == b'"' else SCALAR)
        return True

    def scan_brackets(self) -> None:
        """Go to the end of an object or list."""
        depth = 0
        while True:
            match = BRACKET.match(self.buffer, self.position)
            if match:
                self.position = match.end()
                depth += 1 if match[1] in (b"{", b"[") else -1
                if not depth:
                    return
            elif not self.fill():
                raise self.damaged(b"")

    def scan(self, pattern: re.Pattern[bytes]) -> None:
        """Go to the end of a text, number or word, which is sure where something follows."""
        while True:
            match = pattern.match(self.buffer, self.position)
            if match and match.end() < len(self.buffer):
                self.position = match.end()
                return
            if not self.fill():
                raise self.damaged(b"")

    def rest(self) -> bytes:
        """What stands after the array, at most about a megabyte of it."""
        return bytes(self.buffer[self.position :]) + self.stream.read(1 << 20)

    def damaged(self, byte: bytes) -> ValueError:
        """What is wrong after or in the present element."""
        if not byte:
            return ValueError(f"{self.name}: the list ends in or after element {self.number}: is the file whole?")
        place = self.offset + self.position
        return ValueError(
            f"{self.name}: byte {place}, at element {self.number}, is {shown(byte)}, which JSON has not there: "
            "is the file whole?"
        )
