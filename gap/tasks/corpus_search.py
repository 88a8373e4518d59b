"""Search of a pretraining corpus for runs of tokens: one pass over its shards, on all cores, in bounded memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.machine import usable_cores
from shards.storage.location import ShardLocation
from shards.storage.reader import ShardReader

RUN_TOKENS = 13  # a shared run of this many tokens is not a coincidence (Brown et al. 2020, appendix C, with words)
FACTOR = 0x9E3779B97F4A7C15
TABLE_BITS = 4, 16, 26  # of a table: how many more than the hashes have, minimum, maximum (64 MB)
Hashes = NDArray[np.uint64]
Tokens = NDArray[np.int64]


def run_hashes(tokens: NDArray[Any]) -> Hashes:
    """Hash of every run of 13 tokens, [N] -> [N - 12]; empty for shorter texts.

    It is the polynomial in FACTOR, modulo 2^64, whose coefficients are the run's tokens plus 1.
    """
    if len(tokens) < RUN_TOKENS:
        return np.zeros(0, dtype=np.uint64)
    single = np.asarray(tokens).astype(np.uint64) + np.uint64(1)
    double = _joined(single, 1, single, 1)
    four = _joined(double, 2, double, 2)
    eight = _joined(four, 4, four, 4)
    hashes = _joined(_joined(eight, 8, four, 4), 12, single, 1)
    return hashes ^ (hashes >> np.uint64(29))


def _joined(first: Hashes, first_length: int, second: Hashes, second_length: int) -> Hashes:
    """Hashes of runs of the two lengths joined, from those of each length at every position."""
    behind = second[first_length:]
    return first[: len(behind)] * np.uint64(pow(FACTOR, second_length, 1 << 64)) + behind


class WantedRuns:
    """Sorted hashes that are searched for, and which of them were found."""

    def __init__(self, hashes: Hashes) -> None:
        spare, fewest, most = TABLE_BITS
        bits = min(most, max(fewest, len(hashes).bit_length() + spare))
        self.hashes, self.hits = hashes, np.zeros(len(hashes), dtype=bool)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)  # of the leading bits: one look rules out nearly all others
        self._table[hashes >> self._shift] = True

    def look(self, tokens: NDArray[Any]) -> None:
        """Mark the hashes of the runs in a stretch of the corpus; threads may do so at once."""
        hashes = run_hashes(tokens)
        hashes = hashes[self._table[hashes >> self._shift]]
        places = np.searchsorted(self.hashes, hashes)
        places[places == len(self.hashes)] = 0
        self.hits[places[self.hashes[places] == hashes]] = True


def corpus_hits(shards: ShardLocation, wanted: Hashes, threads: int | None = None) -> NDArray[np.bool_]:
    """Which of the sorted hashes (one or more) occur in the training split, also across the ends of its shards.

    Every thread (one per core) holds one block. Threads suffice because numpy and hashlib release the interpreter lock;
    decoding a block, which does not, is a tenth of the work. A process would have to import torch and copy the hashes.
    """
    threads = threads or usable_cores()
    runs, readers = WantedRuns(wanted), SimpleQueue[ShardReader]()
    for _ in range(threads):
        readers.put(ShardReader(shards.directory, shards.manifest, "train", capacity=1, fetch=shards.fetch))
    ends = np.cumsum(shards.manifest.split("train").blocks_per_shard()).tolist()

    def search(start: int, end: int) -> tuple[Tokens, Tokens]:
        reader = readers.get()
        try:
            return _search_blocks(reader, start, end, runs)
        finally:
            readers.put(reader)

    before = np.zeros(0, dtype=np.int64)
    with ThreadPoolExecutor(threads) as pool:
        for first, last in pool.map(search, [0, *ends], ends):
            runs.look(np.concatenate([before, first]))
            before = np.concatenate([before, last])[-(RUN_TOKENS - 1) :]
    return runs.hits


def _search_blocks(reader: ShardReader, start: int, end: int, runs: WantedRuns) -> tuple[Tokens, Tokens]:
    """Search consecutive blocks; returns their first and last 12 tokens, for the runs that reach beyond them."""
    first = last = np.zeros(0, dtype=np.int64)
    for number in range(start, end):
        tokens = np.concatenate([last, reader.block(number).tokens.astype(np.int64)])
        runs.look(tokens)
        if len(first) < RUN_TOKENS - 1:
            first = np.concatenate([first, tokens[len(last) :]])[: RUN_TOKENS - 1]
        last = tokens[-(RUN_TOKENS - 1) :]
    return first, last
