"""Detection of equal and similar documents: text digests, and MinHash signatures compared in bands."""

from __future__ import annotations

import hashlib

import numpy as np
import rensa

PERMUTATIONS = 128
BANDS = 16  # of 8 values each: a pair of similarity 0.8 meets in some band with probability 0.95, one of 0.9 always
SHINGLE_TOKENS = 5
SLICE_TOKENS = 1 << 18  # hashed at once
MINHASH_SEED = 20_211
DIGEST_BYTES = 16


def document_digest(text: str) -> bytes:
    """The digest that identifies a document: the first 16 bytes of its BLAKE2b hash."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


def is_held_out(digest: bytes, validation_fraction: float) -> bool:
    """Whether a document belongs to the validation split: a function of its text alone, so order cannot change it."""
    return int.from_bytes(digest[:8], "big") < validation_fraction * 2.0**64


def minhash_signatures(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """MinHash signatures of documents laid end to end.

    tokens [sum(lengths)], lengths int64 [D] -> uint32 [D, 128]. Shingles are 5 consecutive tokens of one document
    (Broder 1997); a document of fewer tokens has a signature of zeros, which means "unknown".
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
        parts[0] if len(parts) == 1 else np.concatenate(parts), offsets.astype(np.uint64), PERMUTATIONS, MINHASH_SEED
    )
    signatures[long] = np.array(matrix.to_rows(), dtype=np.uint32)
    return signatures


def hashed_shingles(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every 5 consecutive tokens: [N] -> uint64 [N - 4] (mixed as in SplitMix64)."""
    hashed = np.empty(len(tokens) - SHINGLE_TOKENS + 1, dtype=np.uint64)
    for first in range(0, len(hashed), SLICE_TOKENS):  # a long document's intermediate values would take gigabytes
        part = tokens[first : first + SLICE_TOKENS + SHINGLE_TOKENS - 1]
        hashed[first : first + SLICE_TOKENS] = hashed_slice(part)
    return hashed


def hashed_slice(tokens: np.ndarray) -> np.ndarray:
    """The same of a few tokens, all at once."""
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
