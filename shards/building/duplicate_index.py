"""The on-disk index of kept documents, for duplicate search; new keys wait in memory and are inserted sorted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from shards.building.minhash import band_keys

MOST_CANDIDATES = 64
DOCUMENTS_PER_KEY = 64
NUMBER_BYTES = 5
PENDING_KEY_BYTES = 144  # approximate memory of one queued key
SMALLEST_CACHE_KIB = 2_048

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (document INTEGER PRIMARY KEY, held_out INTEGER, digest BLOB, signature BLOB);
CREATE TABLE IF NOT EXISTS keys (key INTEGER PRIMARY KEY, documents BLOB);
CREATE TABLE IF NOT EXISTS keys_put_in (documents INTEGER);
"""
PUT = """
INSERT INTO keys VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE
SET documents = substr(CAST(documents || excluded.documents AS BLOB), 1, ?3)
"""


@dataclass
class DuplicateIndex:
    """Documents kept so far, in the tables of an open database; the caller opens transactions and commits.

    `near` is the treatment of near duplicates: "drop" drops all but the first, "separate" only those that
    would be across the held-out split from a kept one, "ignore" does not look. An exact copy is dropped if
    `exact`, and otherwise kept, whatever the value of `near`.

    A document is found by 17 keys: its digest and its 16 bands. A random key costs a page of the database, read and
    written, so new ones wait in memory (half of `memory_mb`, the other half is the database's cache) and are added by
    the thousands, in order. The documents themselves are appended at once: after a restart the waiting keys are
    those of the latest documents. A key keeps its first 64 documents, so that a phrase on a million pages costs no
    more than on 64; a document is still found by its other keys, and `met_full_key` says whether the last one that was
    admitted was looked for under such a key. Of all that share a key with a new document, those that share
    the most and rarest keys are compared.
    """

    database: sqlite3.Connection
    exact: bool
    near: Literal["drop", "separate", "ignore"]
    threshold: float
    memory_mb: int = 64
    waiting: dict[int, bytes] = field(default_factory=dict, init=False)
    met_full_key: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.database.executescript(SCHEMA)
        half = self.memory_mb * 500_000
        self.database.execute(f"PRAGMA cache_size = -{max(half // 1024, SMALLEST_CACHE_KIB)}")
        self.most_waiting = half // PENDING_KEY_BYTES
        row = self.database.execute("SELECT MAX(document) FROM documents").fetchone()
        self.documents = 0 if row[0] is None else int(row[0]) + 1
        row = self.database.execute("SELECT MAX(documents) FROM keys_put_in").fetchone()
        after = self.database.execute("SELECT * FROM documents WHERE document >= ?", (row[0] or 0,))
        for document, held_out, digest, signature in after:
            bands = [] if signature is None else band_keys(np.frombuffer(signature, np.uint32)[None])[0].tolist()
            self.wait(document, self.own_keys(digest, bool(held_out), bands))

    def admit(self, digest: bytes, held_out: bool, signature: np.ndarray | None, bands: Sequence[int]) -> str | None:
        """Add a document and return None, or return why it is dropped ("duplicate", "near_duplicate", ...).

        `signature` uint32 [128], None or zeros where none could be made; `bands` are its 16 keys.
        """
        self.met_full_key = False
        look = self.near != "ignore" and signature is not None and bool(signature.any())
        if not look and not self.exact:
            return None
        if not look:
            bands = ()
        name = digest_key(digest)
        candidates = self.look_up([name, *self.sought_keys(held_out, bands)])
        same_name = candidates.pop(name, None)
        if same_name and self.has_copy(digest, same_name):
            return "duplicate" if self.exact else None
        self.met_full_key = any(len(documents) == DOCUMENTS_PER_KEY for documents in candidates.values())
        if signature is not None and candidates and self.has_similar(signature, candidates):
            return "near_duplicate" if self.near == "drop" else "near_duplicate_across_split"
        stored = signature.tobytes() if look and signature is not None else None
        self.database.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", (self.documents, held_out, digest, stored))
        self.wait(self.documents, self.own_keys(digest, held_out, bands))
        self.documents += 1
        if len(self.waiting) >= self.most_waiting:
            self.put_in()
        return None

    def own_keys(self, digest: bytes, held_out: bool, bands: Sequence[int]) -> list[int]:
        """The keys that a document is stored under."""
        side = int(self.near == "separate" and held_out)
        return [digest_key(digest), *(band ^ side for band in bands)]

    def sought_keys(self, held_out: bool, bands: Sequence[int]) -> list[int]:
        """The keys under which similar documents are looked for: if only the other side matters, that side's."""
        side = int(self.near == "separate" and not held_out)
        return [band ^ side for band in bands]

    def look_up(self, keys: Sequence[int]) -> dict[int, list[int]]:
        """The documents stored under each of these keys, in order; keys without documents are left out."""
        places = ",".join("?" * len(keys))
        rows = self.database.execute(f"SELECT key, documents FROM keys WHERE key IN ({places})", keys)  # noqa: S608
        by_key = dict(rows)
        for key in keys:
            if key in self.waiting:
                by_key[key] = (by_key.get(key, b"") + self.waiting[key])[: DOCUMENTS_PER_KEY * NUMBER_BYTES]
        return {key: numbers(packed) for key, packed in by_key.items()}

    def has_copy(self, digest: bytes, documents: Sequence[int]) -> bool:
        """Whether one of these documents has this digest."""
        return any(other == digest for (other,) in self.read("digest", documents))

    def has_similar(self, signature: np.ndarray, candidates: dict[int, list[int]]) -> bool:
        """Whether a document found by bands reaches the similarity threshold; the most promising are compared."""
        worth: Counter[int] = Counter()
        for documents in candidates.values():
            for document in documents:
                worth[document] += DOCUMENTS_PER_KEY // len(documents)
        chosen = sorted(worth, key=lambda document: (-worth[document], document))[:MOST_CANDIDATES]
        others = b"".join(other for (other,) in self.read("signature", chosen) if other is not None)
        same = np.frombuffer(others, dtype=np.uint32).reshape(-1, len(signature)) == signature
        return bool((same.mean(axis=1) >= self.threshold).any())

    def read(self, column: str, documents: Sequence[int]) -> sqlite3.Cursor:
        """A column of these documents."""
        places = ",".join("?" * len(documents))
        return self.database.execute(f"SELECT {column} FROM documents WHERE document IN ({places})", documents)  # noqa: S608

    def wait(self, document: int, keys: Sequence[int]) -> None:
        """Queue the keys of a document for insertion."""
        packed = document.to_bytes(NUMBER_BYTES, "big")
        for key in dict.fromkeys(keys):
            before = self.waiting.get(key, b"")
            if len(before) < DOCUMENTS_PER_KEY * NUMBER_BYTES:
                self.waiting[key] = before + packed if before else packed

    def put_in(self) -> None:
        """Insert the queued keys into the database, in order."""
        most = DOCUMENTS_PER_KEY * NUMBER_BYTES
        self.database.executemany(PUT, ((key, self.waiting[key], most) for key in sorted(self.waiting)))
        self.waiting.clear()
        self.database.execute("DELETE FROM keys_put_in")
        self.database.execute("INSERT INTO keys_put_in VALUES (?)", (self.documents,))


def digest_key(digest: bytes) -> int:
    """The key of a digest: its last 8 bytes, as the first decide the split."""
    return int.from_bytes(digest[-8:], "big", signed=True)


def numbers(packed: bytes) -> list[int]:
    """Document numbers of a key."""
    return [int.from_bytes(packed[at : at + NUMBER_BYTES], "big") for at in range(0, len(packed), NUMBER_BYTES)]
