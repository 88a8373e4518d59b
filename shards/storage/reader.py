"""Verified access to the blocks of a split: the sha256 of a shard is checked before its first token is read."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from runtime.files.whole_files import sha256_of
from runtime.stores.cache import hold, note_use
from shards.storage.manifest import REBUILD, Manifest, Shard
from shards.storage.shard_file import read_block

FETCHES = 5  # of one shard that other processes remove from a full cache before it is held


@dataclass(frozen=True)
class Block:
    """One sample: `tokens` [N], `document_starts` int64 (ascending, with 0), `word_starts` bool [N] or None."""

    tokens: np.ndarray
    document_starts: np.ndarray
    word_starts: np.ndarray | None


class ShardReader:
    """Blocks by number; keeps the latest `capacity`. A shard is hashed once per process, and again if it changes."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        split: str,
        *,
        capacity: int = 8,
        fetch: Callable[[Shard], bool] | None = None,
    ) -> None:
        """`fetch` is called with a shard before it is first opened, and brings it into `directory`.

        It returns whether that is a cache: then the shard is held there as long as its blocks are being read.
        """
        self._directory = Path(directory)
        self._manifest = manifest
        self._shards = manifest.split(split).shards
        self._first_blocks = np.cumsum([0, *(len(shard.keys) for shard in self._shards)])
        self._capacity = capacity
        self._fetch = fetch
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._verified: dict[int, tuple[int, int, int]] = {}
        self._held: OrderedDict[int, BinaryIO] = OrderedDict()
        self._is_cache = False

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which holds its own files."""
        return {**self.__dict__, "_held": OrderedDict()}

    def block(self, number: int) -> Block:
        """Block `number` of the split, in manifest order; ValueError names the shard when it is not what was built."""
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        index = int(np.searchsorted(self._first_blocks, number, side="right")) - 1
        block = self._read(index, number - int(self._first_blocks[index]))
        self._blocks[number] = block
        if len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return block

    def _read(self, index: int, place: int) -> Block:
        shard = self._shards[index]
        path = self._directory / shard.name
        self._verify(index, path)
        sample = read_block(path, int(shard.offsets[place]), int(shard.sizes[place]))
        tokens, documents = sample.get("tokens"), sample.get("documents")
        block_key = shard.keys[place].decode("ascii")
        if sample["__key__"] != block_key or tokens is None or documents is None:
            raise ValueError(f"{path}: block {block_key!r} is not where the manifest says: {REBUILD}")
        if str(tokens.dtype) != self._manifest.token_dtype or len(tokens) != shard.tokens[place]:
            raise ValueError(
                f"{path}: block {block_key!r} holds {len(tokens)} {tokens.dtype} tokens, but the manifest says "
                f"{shard.tokens[place]} {self._manifest.token_dtype}: {REBUILD}"
            )
        if tokens.max() >= self._manifest.tokenizer.vocab_size:
            raise ValueError(
                f"{path}: token id {tokens.max()}, but the manifest says that the vocabulary has "
                f"{self._manifest.tokenizer.vocab_size}: {REBUILD}"
            )
        starts = documents.astype(np.int64)
        if (np.diff(starts) <= 0).any() or (len(starts) and starts[-1] >= len(tokens)):
            raise ValueError(f"{path}: document starts of block {block_key!r} are not in order: {REBUILD}")
        if not len(starts) or starts[0] != 0:
            starts = np.insert(starts, 0, 0)
        return Block(tokens, starts, _word_starts(sample.get("words"), len(tokens), path))

    def _verify(self, index: int, path: Path) -> None:
        shard = self._shards[index]
        self._hold(index, path)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing: {REBUILD}") from error
        identity = status.st_ino, status.st_mtime_ns, status.st_size
        if self._verified.get(index) == identity:
            return
        if status.st_size != shard.num_bytes:
            raise ValueError(f"{path}: {status.st_size} bytes, but the manifest says {shard.num_bytes}: {REBUILD}")
        if sha256_of(path) != shard.sha256:
            raise ValueError(f"{path}: its sha256 is not the manifest's, so its content is damaged: {REBUILD}")
        self._verified[index] = identity

    def _hold(self, index: int, path: Path) -> None:
        """Have the shard in the folder and, if that is a cache, keep it from being removed."""
        if index in self._held:
            self._held.move_to_end(index)
            note_use(path)
            return
        for _ in range(FETCHES if self._fetch is not None else 0):
            assert self._fetch is not None
            is_there = index in self._verified and path.exists()
            if not is_there and not self._fetch(self._shards[index]):
                return
            if is_there and not self._is_cache:
                return
            self._is_cache = True
            if held := hold(path):
                self._held[index] = held
                # Those of the blocks at hand: a lane has three blocks, of one shard or two.
                if len(self._held) > 1 + self._capacity // 2:
                    self._held.popitem(last=False)[1].close()
                return


def _word_starts(words: np.ndarray | None, num_tokens: int, path: Path) -> np.ndarray | None:
    if words is None:
        return None
    if words.dtype != np.uint8 or len(words) != -(-num_tokens // 8):
        raise ValueError(f"{path}: {len(words)} bytes of word starts for {num_tokens} tokens: {REBUILD}")
    return np.unpackbits(words, count=num_tokens).astype(bool)
