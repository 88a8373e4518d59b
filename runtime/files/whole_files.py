"""Durable files: what is written is whole under its name, or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.files.unique_keys import without_duplicates

LARGEST_JSON_BYTES = 64 << 20


def sync_file(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, sync, rename, sync the directory: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_file(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name when the block ends: synced, an earlier one removed last.

    When the block raises, nothing is left of it and the earlier folder stays. For one process to call.
    """
    temporary = directory.with_name(f".tmp-{directory.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.iterdir():
            sync_file(path)
        sync_file(temporary)
        earlier = directory.with_name(f".old-{directory.name}")
        shutil.rmtree(earlier, ignore_errors=True)
        if directory.exists():
            os.rename(directory, earlier)
        os.rename(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_file(directory.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """Read a JSON file of bounded size; ValueError names the file when it is too large, too deep or malformed.

    With `unique_keys` an object that has a key twice is malformed, too.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON_BYTES:
        raise ValueError(f"{path} has {size} bytes, at most {LARGEST_JSON_BYTES} are read: this is not the file meant")
    try:
        hook = without_duplicates if unique_keys else None
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise ValueError(f"{path} is not readable as JSON ({error}): restore it or remove it") from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
