"""Formats: detected from the suffix of a name and the first bytes; markup of no known dump is refused."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from runtime.files.foreign import refuse_pointer_head

Format = Literal[
    "text",
    "wikiextractor",
    "json_lines",
    "json_array",
    "csv",
    "tsv",
    "parquet",
    "tar",
    "zip",
    "web_archive",
    "wiki_dump",
    "saved_dataset",
    "dataset",
]

COMPRESSION_SUFFIXES = (".gz", ".xz", ".bz2", ".zst")
SHORT_SUFFIXES = {".tgz": ".tar", ".txz": ".tar", ".tbz2": ".tar", ".tzst": ".tar"}
SUFFIX_FORMATS: dict[str, Format] = {
    "": "text",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_lines",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".tar": "tar",
    ".zip": "zip",
    ".warc": "web_archive",
    ".wet": "web_archive",
    ".xml": "wiki_dump",
}
TEXT_SUFFIXES = (".txt", ".text", ".md")
DUMP_PART = re.compile(r"\.xml-p\d+p\d+")  # of a dump in several files, by the numbers of its pages
HEAD_BYTES = 4_096  # the root of a dump may stand behind a comment
MARKUP = {
    b"<?xml": "XML",
    b"<!doctype html": "HTML",
    b"<html": "HTML",
    b"{\\rtf": "RTF",
    b"%pdf-": "PDF",
}


def name_suffix(name: str) -> str:
    """The suffix that shows the format: of `a.jsonl.gz` it is `.jsonl`."""
    path = PurePosixPath(name.lower())
    if path.suffix in SHORT_SUFFIXES:
        return SHORT_SUFFIXES[path.suffix]
    suffix = PurePosixPath(path.stem).suffix if path.suffix in COMPRESSION_SUFFIXES else path.suffix
    return ".xml" if DUMP_PART.fullmatch(suffix) else suffix


def detect_format(name: str, head: bytes) -> Format:
    """The format of a stream from its name and first bytes (at least 262 of them where there are that many).

    Raises ValueError for a stream that has no known suffix and is not text, for markup whose text has to be taken out
    first, and for a Git LFS pointer.
    """
    refuse_pointer_head(name, head)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    suffix = name_suffix(name)
    by_name = SUFFIX_FORMATS.get(suffix)
    if by_name in ("parquet", "zip") and head:
        raise ValueError(f"{name} is not a {by_name} file: its first bytes are {head[:4]!r}; is it whole?")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"WARC/"):
        return "web_archive"
    if is_wiki_dump(start):
        return "wiki_dump"
    if by_name == "json_lines" and start.startswith(b"["):
        return "json_array"
    if by_name == "web_archive" and start:
        raise ValueError(f"{name} is not a web archive: it begins with {start[:8]!r}, not with WARC/; is it whole?")
    if by_name == "wiki_dump" and start:
        raise ValueError(
            f"{name} is XML, not plain text, and no MediaWiki dump: take the text out of it first; to read it with its "
            "markup, name it .txt"
        )
    if by_name is not None and by_name not in ("text", "wiki_dump", "web_archive"):
        return by_name
    refuse_markup(name, start, named_as_text=suffix in TEXT_SUFFIXES)
    if start.startswith(b"<doc "):
        return "wikiextractor"
    if start.startswith(b'{"') and suffix not in TEXT_SUFFIXES:  # as WikiExtractor --json names and writes them
        return "json_lines"
    if by_name is None and b"\0" in head:
        raise ValueError(f"{name} has an unknown suffix and is not text: name it {', '.join(SUFFIX_FORMATS)[2:]}")
    return "text"


def is_wiki_dump(start: bytes) -> bool:
    """Whether a stream begins as a MediaWiki export does."""
    return start.startswith(b"<mediawiki") or (
        start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE")) and b"<mediawiki" in start
    )


def refuse_markup(name: str, start: bytes, *, named_as_text: bool) -> None:
    """ValueError, with the missing step, where a stream of no known format begins with markup.

    HTML, XML and the like are read as they are from a file that is named as text.
    """
    kind = next((kind for mark, kind in MARKUP.items() if start[: len(mark)].lower() == mark), None)
    if kind is not None and not named_as_text:
        raise ValueError(
            f"{name} is {kind}, not plain text: take the text out of it first; to read it with its markup, name it .txt"
        )
