"""Exact and near duplicates: the first in input order stays; the index lies on disk, so memory stays bounded."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import rensa

PERMUTATIONS = 128
BANDS = 16  # of 8 values each: a pair of similarity 0.8 meets in some band with probability 0.95, one of 0.9 always
SHINGLE_TOKENS = 5
MINHASH_SEED = 20_211
MOST_CANDIDATES = 64
DIGEST_BYTES = 16

SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signatures (document INTEGER PRIMARY KEY, held_out INTEGER, signature BLOB);
CREATE TABLE IF NOT EXISTS bands (band INTEGER, document INTEGER, PRIMARY KEY (band, document)) WITHOUT ROWID;
"""
FIND_BANDS = f"""
SELECT DISTINCT signatures.held_out, signatures.signature FROM bands JOIN signatures USING (document)
WHERE band IN ({",".join("?" * BANDS)}) ORDER BY document LIMIT {MOST_CANDIDATES}
"""  # noqa: S608 (a constant number of placeholders)


def text_digest(text: str) -> bytes:
    """What identifies a document: the first 16 bytes of its BLAKE2b hash."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


def is_held_out(digest: bytes, validation_fraction: float) -> bool:
    """Whether a document belongs to the validation split: a function of its text alone, so order cannot change it."""
    return int.from_bytes(digest[:8], "big") < validation_fraction * 2.0**64


def minhash_signatures(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """MinHash signatures of documents laid end to end.

    tokens [sum(lengths)], lengths int64 [D] -> uint32 [D, 128]. Shingles are 5 consecutive tokens of one document
    (Broder 1997); a document of fewer tokens has a signature of zeros, which stands for "cannot be told".
    """
    signatures = np.zeros((len(lengths), PERMUTATIONS), dtype=np.uint32)
    if len(tokens) < SHINGLE_TOKENS or not len(lengths):
        return signatures
    shingles = hashed_shingles(tokens)
    ends = np.cumsum(lengths)
    long = np.flatnonzero(lengths >= SHINGLE_TOKENS)
    if not len(long):
        return signatures
    parts = [shingles[ends[i] - lengths[i] : ends[i] - SHINGLE_TOKENS + 1] for i in long]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(parts), offsets.astype(np.uint64), PERMUTATIONS, MINHASH_SEED
    )
    signatures[long] = np.array(matrix.to_rows(), dtype=np.uint32)
    return signatures


def hashed_shingles(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every 5 consecutive tokens: [N] -> uint64 [N - 4] (mixed as in SplitMix64)."""
    last = len(tokens) - SHINGLE_TOKENS + 1
    wide = tokens.astype(np.uint64)
    value = wide[:last].copy()
    for shift in range(1, SHINGLE_TOKENS):
        value = value * np.uint64(0x9E3779B97F4A7C15) + wide[shift : shift + last]
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Keys under which similar documents meet: uint32 [D, 128] -> int64 [D, 16], the band's number mixed in."""
    rows = signatures.reshape(len(signatures), BANDS, PERMUTATIONS // BANDS).astype(np.uint64)
    key = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), rows.shape[:2]).copy()
    for row in range(rows.shape[2]):
        key = (key ^ rows[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return np.asarray(key.view(np.int64))


@dataclass
class DuplicateIndex:
    """Documents kept so far, in the tables of an open database; the caller commits.

    `near` says what happens to near duplicates: "drop" all but the first, "separate" drops only what would lie on
    the other side of the held-out split than one that was kept, "ignore" does not look.
    """

    database: sqlite3.Connection
    exact: bool
    near: Literal["drop", "separate", "ignore"]
    threshold: float

    def __post_init__(self) -> None:
        self.database.executescript(SCHEMA)
        row = self.database.execute("SELECT MAX(document) FROM signatures").fetchone()
        self.documents = 0 if row[0] is None else int(row[0]) + 1

    def admit(self, digest: bytes, held_out: bool, signature: np.ndarray | None, bands: Sequence[int]) -> str | None:
        """Take a document in and return None, or return why it is dropped ("duplicate", "near_duplicate", ...)."""
        look = self.near != "ignore" and signature is not None and bool(signature.any())
        if self.exact and self.database.execute("SELECT 1 FROM digests WHERE digest = ?", (digest,)).fetchone():
            return "duplicate"
        if look and signature is not None:
            for other_side, other in self.database.execute(FIND_BANDS, bands):
                if self.near == "separate" and bool(other_side) == held_out:
                    continue
                if np.mean(np.frombuffer(other, dtype=np.uint32) == signature) >= self.threshold:
                    return "near_duplicate" if self.near == "drop" else "near_duplicate_across_split"
        if self.exact:
            self.database.execute("INSERT INTO digests VALUES (?)", (digest,))
        if look and signature is not None:
            number = self.documents
            self.documents += 1
            self.database.execute("INSERT INTO signatures VALUES (?, ?, ?)", (number, held_out, signature.tobytes()))
            self.database.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, number) for band in bands])
        return None
