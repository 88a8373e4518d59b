"""Atomic, durable writes: a file under its final name is complete, or it does not exist."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from runtime.files.unique_keys import LONGEST_NUMBER, require_bounded, without_duplicates

LARGEST_JSON_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
MOST_VALUES = 1 << 40  # our own files are bounded by their number of bytes
DEEPEST_NESTING = 64


def sync_file(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file to write into, synced and renamed at the end of the block; then the directory is synced.

    A reader sees the old file or the new one. If the block raises, the old one stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove_whole(temporary)  # of a killed process that had the same number
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_file(path.parent)


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a `whole_file` in UTF-8; its text may come in pieces."""
    with whole_file(path) as file:
        file.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def remove_whole(path: Path) -> None:
    """Remove a folder with its content, or whatever else has the name; for a link, the link and not its target."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """A temporary folder to write into, synced and renamed at the end of the block; an earlier one is then removed.

    If the block raises, the new folder is removed and the earlier one stays. Only one process may call this.
    """
    temporary = directory.with_name(f".tmp-{directory.name}")
    remove_whole(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.iterdir():
            sync_file(path)
        sync_file(temporary)
        earlier = directory.with_name(f".old-{directory.name}")
        remove_whole(earlier)
        if os.path.lexists(directory):
            os.rename(directory, earlier)
        os.rename(temporary, directory)
    except BaseException:
        remove_whole(temporary)
        raise
    sync_file(directory.parent)
    remove_whole(earlier)


def require_plain_file(path: Path) -> None:
    """ValueError for a folder, a pipe or a device, which might never end; FileNotFoundError if there is nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a regular file: move it away")


def read_at_most(stream: BinaryIO, limit: int) -> bytes:
    """A stream's bytes up to its end or to `limit`, read in pieces: `read(limit)` takes that much memory at once."""
    pieces, left = [], limit
    while left > 0 and (piece := stream.read(min(left, PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_json(path: Path, *, largest: int = LARGEST_JSON_BYTES, remedy: str = "restore it or remove it") -> Any:
    """Read JSON without a schema; `runtime.files.schemas` adds the schema and the remedy.

    ValueError names the file if it has more than `largest` bytes, or is not JSON that `parse_bounded` accepts.
    """
    require_plain_file(path)
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path} has {size} bytes, the limit is {largest}: this is not the intended file")
    try:
        return parse_bounded(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): {remedy}") from error


def parse_bounded(
    content: bytes,
    *,
    deepest: int = DEEPEST_NESTING,
    finite: bool = False,
    as_object: Callable[[list[tuple[str, Any]]], Any] = without_duplicates,
) -> Any:
    """JSON in UTF-8; ValueError for a key that an object has twice, and for deep nesting.

    NaN and Infinity, which earlier versions wrote, are accepted, and a number of too many digits becomes infinite: the
    schema says where that is allowed. With `finite` all of these raise ValueError. `as_object` makes an object of its
    names and values.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=as_object,
            parse_int=finite_number if finite else _number,
            parse_float=finite_number if finite else float,
            parse_constant=finite_number if finite else float,
        )
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply: at most {deepest} levels") from error
    return require_bounded(value, most_values=MOST_VALUES, deepest=deepest)


def _number(text: str) -> float:
    """An integer, or infinity for one with more digits than any real figure."""
    return int(text) if len(text) <= LONGEST_NUMBER else float(text)


def finite_number(text: str) -> float:
    """The value of a JSON number, `NaN` or `Infinity`; ValueError where it is not finite."""
    value = _number(text) if text.removeprefix("-").isdigit() else float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:LONGEST_NUMBER]} is not a finite number")
    return value


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
