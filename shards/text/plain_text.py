"""Plain text, JSON lines, CSV and WikiExtractor output: a byte stream becomes documents, line by line."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from runtime.options.declaration import BadText

UTF8_MARK = b"\xef\xbb\xbf"
ZEROS = bytes(4096)  # a block of a disk that was never written


DocumentRule = Literal["file", "line", "paragraph"]
DOCUMENTS: tuple[DocumentRule, ...] = get_args(DocumentRule)


@dataclass
class TextRules:
    """How bytes become documents, and what happened on the way (`changed`)."""

    document: DocumentRule = "file"
    text_column: str = "text"
    max_document_bytes: int = 16_000_000
    on_bad_text: BadText = "stop"
    changed: Counter[str] = field(default_factory=Counter)

    def decode(self, data: bytes, name: str, offset: int) -> str:
        """UTF-8 bytes that begin at `offset` of stream `name` -> text with \\n line ends and no byte-order mark.

        Raises ValueError naming the stream and the offset of the first bad byte, unless bad bytes are replaced.
        """
        text = self.characters(data, name, offset)
        if offset == 0:
            text = text.removeprefix("\ufeff")
        return text.replace("\r\n", "\n") if "\r" in text else text

    def characters(self, data: bytes, place: str, offset: int = 0) -> str:
        """UTF-8 bytes -> text, character by character; errors and replacement as in `decode`.

        Raises ValueError for a long run of zero bytes, which are UTF-8 and yet no text.
        """
        if (zeros := data.find(ZEROS)) >= 0:
            raise ValueError(
                f"{place}: {len(ZEROS):,} zero bytes from byte {offset + zeros} on are no text: is the file binary, or "
                "was it damaged? Mend it, or leave it out"
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.on_bad_text == "stop":
                raise ValueError(
                    f"{place}: byte {offset + error.start} is not UTF-8 ({error.reason}): "
                    "write it as UTF-8 (iconv), or give --on_bad_text replace"
                ) from error
            self.changed["invalid_utf8_replaced"] += 1
            return data.decode("utf-8", errors="replace")


def plain_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """Documents of plain text: the file, its lines, or what stands between blank lines."""
    if rules.document == "file":
        for offset, data, cut in bounded_pieces(stream, rules.max_document_bytes):
            rules.changed["long_documents_cut"] += cut
            yield rules.decode(data, name, offset)
        return
    pending = PendingDocument(rules, name)
    for offset, line, cut in bounded_lines(stream, rules.max_document_bytes):
        rules.changed["long_documents_cut"] += cut
        if rules.document == "line":
            yield rules.decode(line, name, offset)
        elif line.strip():
            yield from pending.add(offset, line)
        else:
            yield from pending.close()
    yield from pending.close()


def wikiextractor_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """Documents between `<doc ...>` and `</doc>`; one with nothing but its title is empty."""
    pending = PendingDocument(rules, name)
    for offset, line, _ in bounded_lines(stream, rules.max_document_bytes):
        if line.startswith((b"<doc ", UTF8_MARK + b"<doc ")):
            yield from map(without_bare_title, pending.close())
        elif line.startswith(b"</doc>"):
            yield from map(without_bare_title, pending.close(even_if_empty=True))
        else:
            yield from pending.add(offset, line)
    yield from map(without_bare_title, pending.close())


def without_bare_title(text: str) -> str:
    """A document's text, or nothing when it is one line only: WikiExtractor repeats the title there."""
    text = text.strip()
    return text if "\n" in text else ""


def json_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """The text column of JSON lines.

    Raises ValueError naming the line that is too long, too deeply nested, no object, or lacks the column.
    """
    for number, offset, line in whole_lines(stream, name, rules):
        if not line.strip():
            continue
        text = rules.decode(line, name, offset)
        try:
            record = json.loads(text)
        except RecursionError as error:
            raise ValueError(f"{name}: line {number} is too deeply nested: give one flat object a line") from error
        except ValueError as error:
            raise ValueError(f"{name}: line {number} is no JSON ({error}): give one object a line") from error
        yield json_text(record, f"{name}: line {number}", rules)


def json_text(record: object, place: str, rules: TextRules) -> str:
    """The text column of one parsed line; null is no text."""
    if not isinstance(record, dict):
        raise ValueError(f"{place} is a {type(record).__name__}: give one object a line, as jq -c '.[]' does of a list")
    if rules.text_column not in record:
        keys = sorted(map(str, record))[:10]
        raise ValueError(f"{place} has no column {rules.text_column!r}: name one of {keys} with --text_column")
    text = record[rules.text_column]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: column {rules.text_column!r} holds a {type(text).__name__}: name a column of text")
    return valid_unicode(text or "", place, rules)


def valid_unicode(text: str, place: str, rules: TextRules) -> str:
    """Text without half surrogates, which JSON can escape and UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if rules.on_bad_text == "stop":
            raise ValueError(f"{place}: a lone surrogate is no character: give --on_bad_text replace") from error
        rules.changed["invalid_utf8_replaced"] += 1
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def table_documents(
    stream: io.BufferedReader, name: str, rules: TextRules, *, delimiter: Literal[",", "\t"]
) -> Iterator[str]:
    """The text column of CSV (quoted) or TSV (not quoted); a number as column means a table without a header.

    Raises ValueError naming the line of a row that lacks the column or is too long: after a quote that is never closed
    all the rest is one.
    """
    csv.field_size_limit(rules.max_document_bytes)
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    lines = RowLines(stream, name, rules)
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    try:
        if rules.text_column.isdigit():
            column = int(rules.text_column)
        else:
            header = next(rows, [rules.text_column])
            if rules.text_column not in header:
                titles = [title[:40] for title in header[:20]]  # without a header these are texts
                raise ValueError(
                    f"{name} has no column {rules.text_column!r}: name one of {titles} with --text_column, "
                    "or a column's number (from 0) where there is no header"
                )
            column = header.index(rules.text_column)
        for row in lines.counted(rows):
            if row and len(row) <= column:
                raise ValueError(f"{name}: line {rows.line_num} has {len(row)} columns: column {column} is missing")
            yield row[column] if row else ""
    except csv.Error as error:
        raise ValueError(
            f"{name}: line {rows.line_num}: {error}: is a quote left open, or a field too long?"
        ) from error


class RowLines:
    """The lines of a table as its parser takes them, never more of one row than a document may have."""

    def __init__(self, stream: io.BufferedReader, name: str, rules: TextRules) -> None:
        self.lines, self.name, self.rules = whole_lines(stream, name, rules), name, rules
        self.row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for number, offset, line in self.lines:
            self.row_bytes += len(line)
            if self.row_bytes > self.rules.max_document_bytes:
                raise ValueError(
                    f"{self.name}: the row that holds line {number} is longer than {self.rules.max_document_bytes:,} "
                    "bytes: is a quote left open? Otherwise raise --max_document_mb"
                )
            yield self.rules.decode(line, self.name, offset)

    def counted(self, rows: Iterator[list[str]]) -> Iterator[list[str]]:
        """The rows that a parser makes of these lines; each one begins the count anew."""
        while True:
            self.row_bytes = 0
            row = next(rows, None)
            if row is None:
                return
            yield row


class PendingDocument:
    """Lines of a document that is not complete yet; cut where it outgrows the bound."""

    def __init__(self, rules: TextRules, name: str) -> None:
        self.rules, self.name = rules, name
        self.lines: list[bytes] = []
        self.offset = 0
        self.size_bytes = 0

    def add(self, offset: int, line: bytes) -> Iterator[str]:
        """Append a line; yields what is held when the line does not fit any more."""
        if self.size_bytes + len(line) > self.rules.max_document_bytes and self.lines:
            self.rules.changed["long_documents_cut"] += 1
            yield from self.close()
        if not self.lines:
            self.offset = offset
        self.lines.append(line)
        self.size_bytes += len(line)

    def close(self, *, even_if_empty: bool = False) -> Iterator[str]:
        """Yield the document held, if any."""
        if self.lines or even_if_empty:
            data = b"".join(self.lines)
            self.lines, self.size_bytes = [], 0
            yield self.rules.decode(data, self.name, self.offset)


def whole_lines(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[tuple[int, int, bytes]]:
    """Lines with their number (from 1) and offset; ValueError names one that is longer than a document may be."""
    for number, (offset, line, cut) in enumerate(bounded_lines(stream, rules.max_document_bytes), start=1):
        if cut:
            raise ValueError(
                f"{name}: line {number} is longer than {rules.max_document_bytes:,} bytes: raise --max_document_mb"
            )
        yield number, offset, line


def bounded_lines(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """Lines with their offset; one longer than `limit` bytes comes in several, the last argument says so."""
    offset, rest = 0, b""
    while line := rest + stream.readline(limit):
        rest, cut = b"", False
        if len(line) >= limit and not line.endswith(b"\n"):
            cut = bool(stream.peek(1))
            whole = len(line) - (unfinished_bytes(line) if cut else 0)
            line, rest = line[:whole], line[whole:]
        yield offset, line, cut
        offset += len(line)


def bounded_pieces(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """A stream as pieces of at most `limit` bytes, cut after a line or at least after a character."""
    offset, rest = 0, b""
    while True:
        data = rest + stream.read(limit - len(rest))
        cut = len(data) >= limit and bool(stream.peek(1))
        whole = len(data)
        if cut:
            newline = data.rfind(b"\n", limit // 2)
            whole = newline + 1 if newline >= 0 else len(data) - unfinished_bytes(data)
        data, rest = data[:whole], data[whole:]
        if data or offset == 0:
            yield offset, data, cut
        offset += len(data)
        if not cut:
            return


def unfinished_bytes(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not complete (0 to 3)."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0
