"""Web archives: a document from each record of a WET file, and from each page of text in a WARC file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, cast

import zstandard
from warcio.bufferedreaders import ChunkedDataReader
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

from runtime.files.schemas import shown
from shards.text.dumps.markup import HtmlPage, require_package
from shards.text.plain_text import TextRules, bounded_pieces

LONGEST_HEAD = 1 << 20  # bytes of a record's headers; links of a page, as crawlers note them, take kilobytes
VERSION = b"WARC/"
HTML_TYPES = ("text/html", "application/xhtml+xml")
TEXT_TYPES = ("text/plain",)
READ_TYPES = (*HTML_TYPES, *TEXT_TYPES)
WITH_CONTENT = ("conversion", "response", "resource")  # other records are about the crawl
PARSER = StatusAndHeadersParser(["WARC/", "HTTP/"], verify=False)
REMEDY = "fetch or write it again"


def web_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """Documents of a WARC or WET file, in its order: plain text, and HTML pages as `HtmlPage`.

    Read are `conversion` records, successful HTTP `response`s and `resource`s, where they are text or HTML; others of
    these three are counted. Raises ValueError naming the record where the file is cut off or a length is wrong.
    """
    for headers, block, place in records(stream, name):
        kind = header(headers, "WARC-Type").lower()
        if kind == "conversion" and media_type(header(headers, "Content-Type")) in ("", *TEXT_TYPES):
            for offset, data, cut in bounded_pieces(io.BufferedReader(block), rules.max_document_bytes):
                rules.changed["long_documents_cut"] += cut
                yield rules.decode(data, place, offset)
        elif kind in WITH_CONTENT:
            document = fetched_document(kind, headers, block, place, rules)
            rules.changed["archive_records_skipped"] += document is None
            if document is not None:
                yield document
        block.skip(place)


def records(stream: io.BufferedReader, name: str) -> Iterator[tuple[StatusAndHeaders, RecordContent, str]]:
    """Headers, content and place of every record; what its reader leaves of a content must be skipped."""
    number = 0
    while True:
        line = stream.readline(LONGEST_HEAD)
        while line in (b"\r\n", b"\n"):
            line = stream.readline(LONGEST_HEAD)
        if not line:
            return
        number += 1
        place = f"{name}: record {number}"
        if not line.startswith(VERSION):
            raise ValueError(
                f"{place} begins with {shown(line[:40])}, not with WARC/: the Content-Length of the record before is "
                f"wrong, or the file is damaged; {REMEDY}"
            )
        headers = PARSER.parse(io.BytesIO(line + head_lines(stream, place, len(line))))
        length = header(headers, "Content-Length")
        if not (length.isascii() and length.isdigit()) or len(length) > 15:
            raise ValueError(f"{place} has the Content-Length {shown(length)}, which is no number of bytes: {REMEDY}")
        address = header(headers, "WARC-Target-URI").strip("<>")
        yield headers, RecordContent(stream, int(length)), f"{place} ({shown(address)})" if address else place


def head_lines(stream: io.BufferedReader, place: str, size: int) -> bytes:
    """The header lines of a record after its first, up to the blank line."""
    lines: list[bytes] = []
    while True:
        line = stream.readline(LONGEST_HEAD - size)
        size += len(line)
        lines.append(line)
        if line in (b"\r\n", b"\n"):
            return b"".join(lines)
        if size >= LONGEST_HEAD:
            raise ValueError(f"{place} has headers of more than {LONGEST_HEAD:,} bytes: {REMEDY}")
        if not line.endswith(b"\n"):
            raise ValueError(f"{place} is cut off in its headers: {REMEDY}")


class RecordContent(io.RawIOBase):
    """The content of a record: the next `left` bytes of the archive."""

    def __init__(self, stream: io.BufferedReader, length: int) -> None:
        self.stream, self.left = stream, length

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, at most to the end of the content."""
        data = self.stream.read(min(len(buffer), self.left))
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)

    def skip(self, place: str) -> None:
        """Pass over what was not read; ValueError where the archive ends before the content."""
        while self.left:
            data = self.stream.read(min(self.left, 1 << 20))
            if not data:
                raise ValueError(f"{place} is cut off {self.left:,} bytes before its end: {REMEDY}")
            self.left -= len(data)


def fetched_document(
    kind: str, headers: StatusAndHeaders, block: RecordContent, place: str, rules: TextRules
) -> str | None:
    """The text or HTML that a server sent, in at most `max_document_bytes`; None for anything else."""
    content_type, encoding = header(headers, "Content-Type"), ""
    limit, cut = rules.max_document_bytes, False
    if kind == "response":
        if media_type(content_type) != "application/http":
            return None
        head = first_bytes(block, LONGEST_HEAD)
        stream = io.BytesIO(head)
        sent = PARSER.parse(stream) if head.strip() else StatusAndHeaders("", [])
        content_type, encoding = header(sent, "Content-Type"), header(sent, "Content-Encoding").lower()
        if not sent.get_statuscode().startswith("2") or found_type(content_type, headers) not in READ_TYPES:
            return None
        data = head[stream.tell() :] + first_bytes(block, limit)
        if "chunked" in header(sent, "Transfer-Encoding").lower():
            data = ChunkedDataReader(io.BytesIO(data)).read()
        data, cut = unpacked_body(data, encoding, limit)
    elif found_type(content_type, headers) in READ_TYPES:
        data = first_bytes(block, limit)
    else:
        return None
    rules.changed["long_documents_cut"] += cut or len(data) > limit or bool(block.left)
    is_html = found_type(content_type, headers) in HTML_TYPES
    if is_html:
        require_package("resiliparse", "html", f"{place} is HTML: to take its text out")
    text = decoded(data[:limit], content_type, rules, html=is_html)
    return HtmlPage(text) if is_html else text


def first_bytes(block: RecordContent, size: int) -> bytes:
    """At most `size` bytes of a content."""
    parts = []
    while size and block.left and (data := block.stream.read(min(size, block.left, 1 << 20))):
        block.left -= len(data)
        size -= len(data)
        parts.append(data)
    return b"".join(parts)


def found_type(content_type: str, headers: StatusAndHeaders) -> str:
    """The media type of a content, as the crawler identified it or, where it did not look, as its server said."""
    return media_type(header(headers, "WARC-Identified-Payload-Type")) or media_type(content_type)


def unpacked_body(data: bytes, encoding: str, limit: int) -> tuple[bytes, bool]:
    """A body without its Content-Encoding, at most `limit` bytes, and whether it was cut there.

    Archives often hold bodies that were unpacked when they were written, with the header left as it was: what does not
    unpack is as it is.
    """
    try:
        if encoding in ("gzip", "x-gzip", "deflate"):
            bits = 47 if data[:1] in (b"\x1f", b"\x78") else -15  # gzip or zlib by their heads, else bare deflate
            body = zlib.decompressobj(bits).decompress(data, limit + 1)
        elif encoding == "br":
            body = brotli_body(data, limit + 1)
        elif encoding == "zstd":
            body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(limit + 1)
        else:
            body = data
    except (zlib.error, zstandard.ZstdError):
        body = data
    return body[:limit], len(body) > limit


def brotli_body(data: bytes, limit: int) -> bytes:
    """At most about `limit` bytes of a body in Brotli; the data themselves where they do not unpack."""
    require_package("brotli", "html", "a page packed with Brotli")
    import brotli

    try:
        return cast(bytes, brotli.Decompressor().process(data, output_buffer_limit=limit))
    except brotli.error:
        return data


def decoded(data: bytes, content_type: str, rules: TextRules, *, html: bool) -> str:
    """The characters of a body, in the first charset that is known of: its mark, the server's, the page's, a guess.

    Charsets are often wrong on the web, so characters that are not of it are replaced and counted, as browsers do.
    """
    charset = "utf-8" if data.startswith(b"\xef\xbb\xbf") else known_charset(charset_of(content_type))
    if not charset and html:
        charset = charset_in(data)
    if not charset:
        charset = "utf-8" if is_utf8(data) else "cp1252"
    try:
        text = data.decode(charset)
    except UnicodeDecodeError:
        text = data.decode(charset, errors="replace")
        rules.changed["characters_replaced"] += 1
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\0", "\ufffd")


def charset_in(data: bytes) -> str:
    """The charset that a page names in its head, or that its bytes look like; "" where neither helps."""
    from resiliparse.parse.encoding import detect_encoding

    return known_charset(detect_encoding(data, from_html_meta=True) or "")


def known_charset(name: str) -> str:
    """The codec for a charset as browsers understand its name (latin1 is cp1252); "" for unknown ones."""
    try:
        from resiliparse.parse.encoding import map_encoding_to_html5
    except ImportError:  # without HTML, Python's own names do
        mapped: str | None = name
    else:
        mapped = map_encoding_to_html5(name, False) if name else None
    try:
        "".encode(mapped or "")
    except (LookupError, ValueError):
        return ""
    return mapped or ""


def is_utf8(data: bytes) -> bool:
    """Whether bytes are valid UTF-8, a last character that is cut aside."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4
    return True


def header(headers: StatusAndHeaders, name: str) -> str:
    """A header's value, "" where it is missing."""
    value: Any = headers.get_header(name)
    return str(value).strip() if value is not None else ""


def media_type(content_type: str) -> str:
    """`text/html; charset=utf-8` -> `text/html`."""
    return content_type.partition(";")[0].strip().lower()


def charset_of(content_type: str) -> str:
    """`text/html; charset="UTF-8"` -> `UTF-8`; "" where none is named."""
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == "charset":
            return value.strip().strip("\"'")[:40]
    return ""
