"""Readers: every source becomes a sequence of documents, in bounded memory and a fixed order."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from runtime.files.foreign import reason_of
from runtime.files.schemas import shown
from shards.text.columns import dataset_texts, json_documents, parquet_documents, table_documents
from shards.text.compression import DECOMPRESSION_ERRORS, CountedStream, Expansion, decompressed, unpacked
from shards.text.dumps.archives import tar_members
from shards.text.dumps.json_arrays import array_documents, is_wrapped
from shards.text.dumps.web_archives import web_documents
from shards.text.dumps.wiki_dumps import wiki_pages
from shards.text.formats import HEAD_BYTES, SUFFIX_FORMATS, Format, detect_format, is_wiki_dump, name_suffix
from shards.text.plain_text import TextRules, plain_documents, wikiextractor_documents
from shards.text.records import seekable
from shards.text.saved_datasets import open_dataset, rows_of
from shards.text.sources import Source

logger = logging.getLogger(__name__)


class DocumentReader:
    """Reads sources one after the other; `changed` counts what was altered, `bytes_read` gives the position on disk."""

    def __init__(self, rules: TextRules | None = None) -> None:
        self.rules = rules or TextRules()
        self.raw: BinaryIO | None = None
        self.dataset_bytes = 0

    @property
    def changed(self) -> Counter[str]:
        """Counts of documents altered while reading, and of sources and archive members left out."""
        return self.rules.changed

    @property
    def bytes_read(self) -> int:
        """Bytes read so far of the current source's file; for a saved dataset by its share of rows, 0 for others."""
        return self.raw.tell() if self.raw is not None and not self.raw.closed else self.dataset_bytes

    def read(self, source: Source) -> Iterator[str]:
        """Documents of one source, blank ones included.

        Raises ValueError naming the file, the place and the remedy for anything that cannot be read as its format says.
        """
        has_text, self.dataset_bytes = False, 0
        for text in self.read_dataset(source) if source.dataset else self.read_file(source):
            has_text = has_text or bool(text.strip())
            yield text
        if not has_text:
            logger.warning("%s holds no text", source.path)
            self.changed["blank_sources"] += 1

    def read_file(self, source: Source) -> Iterator[str]:
        """Documents of a file, compressed or not."""
        with unpacked(source.path) as (self.raw, stream):
            yield from self.read_stream(stream, source.path)

    def read_stream(self, stream: io.BufferedReader, name: str) -> Iterator[str]:
        """Documents of a decompressed stream, in the format that its name and first bytes show."""
        head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
        kind = detect_format(name, head)
        if kind in ("tar", "zip", "parquet") and not head:
            return  # an empty file holds no text, whatever its name; `read` warns and counts
        if kind == "tar":
            yield from self.read_tar(stream, name)
        elif kind == "zip":
            yield from self.read_zip(stream, name)
        elif kind == "parquet":
            yield from parquet_documents(stream, name, self.rules, self.file_bytes)
        else:
            yield from self.read_text(stream, name, kind)

    def read_text(self, stream: io.BufferedReader, name: str, kind: Format) -> Iterator[str]:
        """Documents of a stream of text."""
        if kind == "wikiextractor":
            yield from wikiextractor_documents(stream, name, self.rules)
        elif kind == "json_lines" and not (
            name_suffix(name) == ".json" and is_wrapped(stream.peek(), self.rules.text_column)
        ):
            yield from json_documents(stream, name, self.rules)
        elif kind in ("json_lines", "json_array"):
            yield from array_documents(stream, name, self.rules)
        elif kind == "web_archive":
            yield from web_documents(stream, name, self.rules)
        elif kind == "wiki_dump":
            yield from wiki_pages(stream, name, self.rules)
        elif kind == "csv":
            yield from table_documents(stream, name, self.rules, delimiter=",")
        elif kind == "tsv":
            yield from table_documents(stream, name, self.rules, delimiter="\t")
        else:
            yield from plain_documents(stream, name, self.rules)

    def read_tar(self, stream: BinaryIO, name: str) -> Iterator[str]:
        """Documents of the regular files of a tar, in its order; links and devices are left out and counted."""
        expansion = Expansion(name, lambda: self.bytes_read)
        for member, content in tar_members(stream, name):
            if member.issparse():
                raise ValueError(
                    f"{name}: member {shown(member.name)} is sparse ({member.size:,} bytes): unpack the tar"
                )
            if not member.isdir() and self.is_wanted(member.name, regular=member.isreg()) and content is not None:
                yield from self.read_member(content, f"{name}:{member.name}", expansion)

    def read_zip(self, stream: io.BufferedReader, name: str) -> Iterator[str]:
        """Documents of the files of a zip, in its order."""
        try:
            expansion = Expansion(name, self.file_bytes)
            with seekable(stream) as file, zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if member.is_dir() or not self.is_wanted(member.filename, regular=True):
                        continue
                    with archive.open(member) as content:
                        counted = io.BufferedReader(CountedStream(content, expansion))
                        yield from self.read_member(counted, f"{name}:{member.filename}", expansion)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{name} is not a readable zip ({reason_of(error)}): fetch or write it again") from error

    def is_wanted(self, member: str, *, regular: bool) -> bool:
        """Whether an archive member is a file of text; others are counted."""
        hidden = any(part.startswith(".") and part not in (".", "..") for part in member.split("/"))
        text = SUFFIX_FORMATS.get(name_suffix(member)) not in (None, "tar", "zip", "parquet")
        wanted = regular and text and not hidden
        self.changed["archive_members_skipped"] += not wanted
        return wanted

    def file_bytes(self) -> int:
        """The size of the current source's file on disk."""
        return os.fstat(self.raw.fileno()).st_size if self.raw is not None else 0

    def read_member(self, content: IO[bytes], name: str, expansion: Expansion) -> Iterator[str]:
        """Documents of one file in an archive, compressed or not; `expansion` counts what all of them unpack to."""
        try:
            stream = decompressed(io.BufferedReader(cast(io.RawIOBase, content)), name, expansion)
            head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
            if name_suffix(name) == ".xml" and not is_wiki_dump(head.removeprefix(b"\xef\xbb\xbf").lstrip()):
                self.changed["archive_members_skipped"] += 1  # settings and the like, not text
                return
            kind = detect_format(name, head)
            if kind in ("tar", "zip", "parquet"):
                raise ValueError(f"{name} is a {kind} file inside an archive: unpack it")
            yield from self.read_text(stream, name, kind)
        except DECOMPRESSION_ERRORS as error:
            raise ValueError(
                f"{name} cannot be read ({reason_of(error)}): is the archive whole and readable?"
            ) from error

    def read_dataset(self, source: Source) -> Iterator[str]:
        """The text column of a dataset: one that `save_to_disk` wrote, or a name to be streamed."""
        rows, num_rows = open_dataset(source, self.rules.text_column)
        for number, row in enumerate(rows_of(rows, source), start=1):
            self.dataset_bytes = source.bytes * number // num_rows if num_rows else 0
            yield from dataset_texts(row, source.name, self.rules.text_column)
