"""Plain text and WikiExtractor output: a byte stream becomes documents, line by line and in bounded memory."""

from __future__ import annotations

import io
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
    """How bytes become texts, and what happened on the way (`changed`); errors name the two remedies."""

    document: DocumentRule = "file"
    text_column: str = "text"
    max_document_bytes: int = 16_000_000
    on_bad_text: BadText = "stop"
    unix_line_ends: bool = True  # \r\n becomes \n
    utf8_remedy: str = "write it as UTF-8 (iconv), or give --on_bad_text replace"
    size_remedy: str = "raise --max_document_mb"
    changed: Counter[str] = field(default_factory=Counter)
    replaced_characters: int = 0

    def decode(self, data: bytes, name: str, offset: int) -> str:
        """UTF-8 bytes that begin at `offset` of stream `name` -> text with \\n line ends and no byte-order mark.

        Raises ValueError naming the stream and the offset of the first bad byte, unless bad bytes are replaced.
        """
        text = self.characters(data, name, offset)
        if offset == 0:
            text = text.removeprefix("\ufeff")
        return text.replace("\r\n", "\n") if self.unix_line_ends and "\r" in text else text

    def characters(self, data: bytes, place: str, offset: int = 0) -> str:
        """UTF-8 bytes -> text, character by character; errors and replacement as in `decode`.

        Raises ValueError for a long run of zero bytes, which are valid UTF-8 but not text.
        """
        if (zeros := data.find(ZEROS)) >= 0:
            raise ValueError(
                f"{place}: {len(ZEROS):,} zero bytes from byte {offset + zeros} on are not text: is the file binary, "
                "or was it damaged? Repair it, or leave it out"
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.on_bad_text == "stop":
                raise ValueError(
                    f"{place}: byte {offset + error.start} is not UTF-8 ({error.reason}): {self.utf8_remedy}"
                ) from error
            self.changed["invalid_utf8_replaced"] += 1
            text = data.decode("utf-8", errors="replace")
            self.replaced_characters += text.count("\ufffd")
            return text


def plain_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """Documents of plain text: the file, its lines, or the lines between blank ones."""
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


class PendingDocument:
    """Lines of a document that is not complete yet; cut if it outgrows the bound."""

    def __init__(self, rules: TextRules, name: str) -> None:
        self.rules, self.name = rules, name
        self.lines: list[bytes] = []
        self.offset = 0
        self.size_bytes = 0

    def add(self, offset: int, line: bytes) -> Iterator[str]:
        """Append a line; yields the lines held so far if the line does not fit."""
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
                f"{name}: line {number} is longer than {rules.max_document_bytes:,} bytes: {rules.size_remedy}"
            )
        yield number, offset, line


def bounded_lines(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """Lines with their offset; one longer than `limit` bytes comes in several pieces, marked by the last item."""
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
