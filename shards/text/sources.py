"""Where text comes from: files, folders, globs and datasets, in a fixed order, with their formats."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import logging
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

import pyarrow

from runtime.files.foreign import reason_of
from shards.text.expansion import CountedStream, Expansion

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
SAVED_DATASET_FILES = ("dataset_dict.json", "state.json")
HEAD_BYTES = 512
READ_BUFFER_BYTES = 1 << 18
DECOMPRESSION_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One input: a file, a saved dataset or the name of one. `bytes` is its size on disk, 0 where unknown."""

    name: str
    path: str
    bytes: int
    modified_nanoseconds: int = 0
    dataset: bool = False


def find_sources(inputs: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Resolve inputs to sources: in the order given, a folder or glob sorted by path, without what is in `leave_out`.

    Raises ValueError for an input that matches nothing.
    """
    sources: list[Source] = []
    for name in inputs:
        matches = [source for source in resolve(name) if source.dataset or not lies_in(Path(source.path), leave_out)]
        if not matches:
            raise ValueError(f"--input {name} matches no readable file: check the path and the file names")
        sources.extend(matches)
    return sources


def lies_in(path: Path, folder: Path | None) -> bool:
    """Whether a path is in a folder, at any depth; symbolic links are followed."""
    return folder is not None and folder.resolve() in path.resolve().parents


def resolve(name: str) -> Iterator[Source]:
    """The sources of one input."""
    path = Path(name)
    if name.startswith("datasets:"):
        yield Source(name=name, path=name.removeprefix("datasets:"), bytes=0, dataset=True)
    elif path.is_file():
        yield file_source(path, path.name)
    elif path.is_dir():
        yield from folder_sources(path)
    elif glob.has_magic(name):
        yield from glob_sources(name)
    elif path.exists() or "://" in name or name.startswith("pipe:"):
        raise ValueError(
            f"--input {name} is neither a file nor a folder: write its content to a file, and name that file"
        )
    else:
        raise ValueError(f"--input {name}: no such file or folder; for a dataset on the hub, write datasets:{name}")


def glob_sources(pattern: str) -> Iterator[Source]:
    """What a glob matches: files, and folders whole unless the glob matches files in them too, as `**` does."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    around = {folder for match in matches if match.is_file() for folder in match.parents}
    read: set[Path] = set()
    for match in matches:
        if match.is_file():
            yield file_source(match, match.name)
        elif match.is_dir() and match not in around and not read.intersection(match.parents):
            read.add(match)
            yield from folder_sources(match)


def folder_sources(folder: Path) -> Iterator[Source]:
    """All files of a folder whose names have a known format; hidden ones are skipped, others with a warning."""
    if any((folder / file).is_file() for file in SAVED_DATASET_FILES):
        size = sum(file.stat().st_size for file in folder.rglob("*.arrow"))
        yield Source(name=folder.name, path=str(folder), bytes=size, dataset=True)
        return
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if name_suffix(path.name) in SUFFIX_FORMATS:
            yield file_source(path, relative.as_posix())
        else:
            logger.warning("%s is skipped: its suffix has no reader", path)


def file_source(path: Path, name: str) -> Source:
    """A file as a source."""
    status = path.stat()
    return Source(name=name, path=str(path), bytes=status.st_size, modified_nanoseconds=status.st_mtime_ns)


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


@contextmanager
def unpacked(path: str | Path) -> Iterator[tuple[BinaryIO, io.BufferedReader]]:
    """A file as it is on disk, and its content, decompressed if it is compressed.

    Raises ValueError naming the file when it is torn, cannot be read, or unpacks to more than any text does.
    """
    try:
        with Path(path).open("rb") as raw:
            yield raw, decompressed(raw, Expansion(str(path), raw.tell))
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read ({reason_of(error)}): is the file whole and readable?") from error


def decompressed(raw: io.BufferedReader, expansion: Expansion) -> io.BufferedReader:
    """The stream behind gzip, xz, bzip2 or zstandard, recognised by its first bytes; any other stream as it is.

    Reading one that is cut off raises one of DECOMPRESSION_ERRORS, whatever the compression; one that unpacks to more
    than any text does, ValueError.
    """
    head = raw.peek(6)
    stream: BinaryIO
    if head.startswith(b"\x1f\x8b"):
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    elif head.startswith(b"\xfd7zXZ\0"):
        stream = cast(BinaryIO, lzma.LZMAFile(raw))  # noqa: SIM115
    elif head.startswith(b"BZh"):
        stream = cast(BinaryIO, bz2.BZ2File(raw))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        # The reader of the package zstandard takes a frame that is cut off for one that ends there.
        stream = cast(BinaryIO, pyarrow.CompressedInputStream(raw, "zstd"))
    else:
        return io.BufferedReader(cast(io.RawIOBase, raw), READ_BUFFER_BYTES)
    return io.BufferedReader(CountedStream(stream, expansion), READ_BUFFER_BYTES)
