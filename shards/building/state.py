"""The state of an unfinished build on disk: one database, so that index and progress advance together."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.files.foreign import reading_foreign, reason_of
from runtime.files.lock import LockFile
from runtime.files.whole_files import parse_bounded

STATE_FOLDER = "building"
REMEDY = "delete the directory being built, or choose another --output_dir"

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS shards (split TEXT, number INTEGER, entry TEXT, PRIMARY KEY (split, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents_read (source INTEGER PRIMARY KEY, documents INTEGER);
"""


# Of a disk that is full or fails, or a file in use: the database itself may be whole.
DISK_CODES = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM),
)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the database was changed; otherwise its disk is full or fails, or it is used wrongly."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # what sqlite3 itself says: of text that is not UTF-8, or of a call in the wrong place
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF not in DISK_CODES


@dataclass(frozen=True)
class StoredShards:
    """Manifest entries of a split's shards, which may be iterated any number of times; one is in memory at a time."""

    state: BuildState
    split: str

    def __iter__(self) -> Iterator[dict[str, Any]]:
        select = "SELECT entry FROM shards WHERE split = ? ORDER BY number"
        with self.state.reading():
            for (entry,) in self.state.database.execute(select, (self.split,)):
                yield parse_bounded(entry.encode())


class BuildState:
    """DIR/building/: a lock that dies with its process, and the database of duplicates and progress."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / STATE_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = LockFile(self.folder / "lock")
        owner = self.lock.take()
        if owner is not None:
            raise ValueError(f"{directory} is being built ({owner}): wait for it, or choose another --output_dir")
        self.path = self.folder / "state.sqlite3"
        self.database = sqlite3.connect(self.path, isolation_level=None)
        try:
            self.database.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            self.close()
            if not is_damage(error):
                raise
            raise self.damaged(error) from error

    def damaged(self, error: sqlite3.Error) -> ValueError:
        """What to tell of a database that was changed."""
        return ValueError(f"{self.path} could not be read ({reason_of(error)}): {REMEDY}")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever stored content raises inside becomes a ValueError that names the file, unless the disk fails."""
        try:
            with reading_foreign(str(self.path), REMEDY):
                yield
        except ValueError as error:
            if isinstance(error.__cause__, sqlite3.Error) and not is_damage(error.__cause__):
                raise error.__cause__ from None
            raise

    def get(self, name: str) -> Any:
        """A stored value (JSON), or None; ValueError if it was changed."""
        with self.reading():
            value = self.blob(name)
            return None if value is None else parse_bounded(value.encode() if isinstance(value, str) else value)

    def blob(self, name: str) -> bytes | None:
        """Stored bytes, or None."""
        row = self.database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def put(self, **values: Any) -> None:
        """Store values, bytes as they are and all else as JSON, in the open transaction or at once."""
        rows = [(name, value if isinstance(value, bytes) else json.dumps(value)) for name, value in values.items()]
        self.database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)

    def add_shards(self, split: str, last: int, entries: list[dict[str, Any]]) -> None:
        """Store the manifest entries of a split's latest shards, up to number `last`."""
        first = last - len(entries)
        rows = [(split, first + index, json.dumps(entry)) for index, entry in enumerate(entries)]
        self.database.executemany("INSERT OR REPLACE INTO shards VALUES (?, ?, ?)", rows)

    def shards(self, split: str) -> StoredShards:
        """The manifest entries of a split, in order, read one by one."""
        return StoredShards(self, split)

    def put_documents_read(self, documents: dict[int, int]) -> None:
        """Store the number of documents read from these sources."""
        self.database.executemany("INSERT OR REPLACE INTO documents_read VALUES (?, ?)", documents.items())

    def documents_read(self) -> dict[int, int]:
        """Documents read of each source, by its number."""
        return dict(self.database.execute("SELECT source, documents FROM documents_read"))

    def begin(self) -> None:
        """Open a transaction; if the process dies in it, the state is that of the last commit."""
        self.database.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End the transaction."""
        self.database.execute("COMMIT")

    def close(self) -> None:
        """Release the lock; an open transaction is rolled back."""
        self.database.close()
        self.lock.release()

    def remove(self) -> None:
        """Release the lock and delete the folder: the build is done."""
        self.close()
        shutil.rmtree(self.folder)
