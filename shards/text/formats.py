"""Formats: detected from the suffix of a name and the first bytes; markup and web archives are refused."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from runtime.files.foreign import refuse_pointer_head

Format = Literal[
    "text", "wikiextractor", "json_lines", "csv", "tsv", "parquet", "tar", "zip", "saved_dataset", "dataset"
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
}
TEXT_SUFFIXES = (".txt", ".text", ".md")
HEAD_BYTES = 512
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
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSION_SUFFIXES else path.suffix


def detect_format(name: str, head: bytes) -> Format:
    """The format of a stream from its name and first bytes (at least 262 of them where there are that many).

    Raises ValueError for a stream that has no known suffix and is not text, for markup and web archives, whose text has
    to be taken out first, and for a Git LFS pointer.
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
    if by_name is not None and by_name != "text":
        return by_name
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    refuse_markup(name, start, named_as_text=suffix in TEXT_SUFFIXES)
    if start.startswith(b"<doc "):
        return "wikiextractor"
    if start.startswith(b'{"') and suffix not in TEXT_SUFFIXES:  # as WikiExtractor --json names and writes them
        return "json_lines"
    if by_name is None and b"\0" in head:
        raise ValueError(f"{name} has an unknown suffix and is not text: name it {', '.join(SUFFIX_FORMATS)[2:]}")
    return "text"


def refuse_markup(name: str, start: bytes, *, named_as_text: bool) -> None:
    """ValueError, with the missing step, where a stream of no known format begins with markup or a web archive's head.

    HTML, XML and the like are read as they are from a file that is named as text.
    """
    if start.startswith(b"WARC/"):
        raise ValueError(
            f"{name} is a web archive (WARC or WET), whose records have headers: write the text of each record as a "
            "JSON line (the package warcio reads them, trafilatura takes the text out of HTML), and give that file"
        )
    if start.startswith(b"<mediawiki") or (start.startswith(b"<?xml") and b"<mediawiki" in start):
        raise ValueError(
            f"{name} is a MediaWiki dump, which is markup: run WikiExtractor on it "
            "(python -m wikiextractor.WikiExtractor DUMP), and give the folder that it writes"
        )
    kind = next((kind for mark, kind in MARKUP.items() if start[: len(mark)].lower() == mark), None)
    if kind is not None and not named_as_text:
        raise ValueError(
            f"{name} is {kind}, not plain text: take the text out of it first; to read it with its markup, name it .txt"
        )
