"""Formats: told by the suffix of a name and by first bytes; what is text only to a careless reader is refused."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

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


def name_suffix(name: str) -> str:
    """The suffix that shows the format: of `a.jsonl.gz` it is `.jsonl`."""
    path = PurePosixPath(name.lower())
    if path.suffix in SHORT_SUFFIXES:
        return SHORT_SUFFIXES[path.suffix]
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSION_SUFFIXES else path.suffix


def detect_format(name: str, head: bytes) -> Format:
    """The format of a stream from its name and first bytes (at least 262 of them where there are that many).

    Raises ValueError for a stream that has no known suffix and is not text.
    """
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
    if start.startswith(b"<doc "):
        return "wikiextractor"
    if start.startswith(b'{"') and suffix not in TEXT_SUFFIXES:  # as WikiExtractor --json names and writes them
        return "json_lines"
    if by_name is None and b"\0" in head:
        raise ValueError(
            f"{name} has a suffix without a reader and is not text: name it {', '.join(SUFFIX_FORMATS)[2:]}"
        )
    return "text"
