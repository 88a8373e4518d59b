"""Packing of documents into blocks and blocks into shards; the unwritten part can be saved and restored."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime.files.schemas import Count, Schema, checked
from shards.storage.shard_file import write_shard


class _Counts(Schema):
    """A split's counts in the state of an unfinished build."""

    blocks: Count
    documents: Count
    tokens: Count
    text_bytes: Count
    pending: Count
    shards: Count


class SplitPacker:
    """One split being written: an open block, whole blocks that wait for their shard, and the shards written.

    A document continues across blocks and shards; `documents` of a block are the positions where one begins.
    """

    def __init__(
        self, split: str, directory: Path, *, block_tokens: int, blocks_per_shard: int, token_dtype: str, words: bool
    ) -> None:
        self.split, self.directory = split, directory
        self.block_tokens, self.blocks_per_shard, self.words = block_tokens, blocks_per_shard, words
        self.block = np.zeros(block_tokens, dtype=token_dtype)
        self.word_starts = np.zeros(block_tokens, dtype=bool)
        self.filled = 0
        self.starts: list[int] = []
        self.pending: list[tuple[str, dict[str, np.ndarray]]] = []
        self.written: list[dict[str, Any]] = []  # manifest entries not yet taken by `take_written`
        self.num_shards = self.blocks = self.documents = self.tokens = self.text_bytes = 0

    def add(self, tokens: np.ndarray, word_starts: np.ndarray | None = None, text_bytes: int = 0) -> None:
        """Append a document: tokens [N] with its separator, word starts bool [N]; writes shards that become full.

        `text_bytes` is the size of its text in UTF-8, which is only counted.
        """
        self.text_bytes += text_bytes
        self.starts.append(self.filled)
        self.documents += 1
        self.tokens += len(tokens)
        position = 0
        while position < len(tokens):
            count = min(self.block_tokens - self.filled, len(tokens) - position)
            self.block[self.filled : self.filled + count] = tokens[position : position + count]
            if word_starts is not None:
                self.word_starts[self.filled : self.filled + count] = word_starts[position : position + count]
            self.filled += count
            position += count
            if self.filled == self.block_tokens:
                self.close_block()

    def close_block(self) -> None:
        """Queue the open block; write the shard when it is full."""
        fields = {
            "tokens": self.block[: self.filled].copy(),
            "documents": np.array(self.starts, dtype=np.uint32),
        }
        if self.words:
            fields["words"] = np.packbits(self.word_starts[: self.filled])
        self.pending.append((f"{self.split}-{self.blocks:08d}", fields))
        self.blocks += 1
        self.filled, self.starts = 0, []
        if len(self.pending) == self.blocks_per_shard:
            self.write_pending()

    def write_pending(self) -> None:
        """Write the waiting blocks as the next shard."""
        path = self.directory / f"{self.split}-{self.num_shards:06d}.tar"
        self.written.append(write_shard(path, self.pending))
        self.num_shards += 1
        self.pending = []

    def take_written(self) -> list[dict[str, Any]]:
        """The manifest entries of the shards written since the last call."""
        taken, self.written = self.written, []
        return taken

    def finish(self) -> dict[str, int]:
        """Write what is left and return the counts of the split."""
        if self.filled:
            self.close_block()
        if self.pending:
            self.write_pending()
        return {"documents": self.documents, "tokens": self.tokens, "text_bytes": self.text_bytes}

    def saved(self) -> tuple[str, bytes]:
        """The state for a restart, besides the entries of written shards: counts as JSON, unwritten tokens as npz."""
        arrays = {f"block.{name}": value for name, value in self.open_fields().items()}
        for index, (_, fields) in enumerate(self.pending):
            arrays |= {f"pending{index:06d}.{name}": value for name, value in fields.items()}
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        counts = {
            "blocks": self.blocks,
            "documents": self.documents,
            "tokens": self.tokens,
            "text_bytes": self.text_bytes,
            "pending": len(self.pending),
            "shards": self.num_shards,
        }
        return json.dumps(counts), stream.getvalue()

    def open_fields(self) -> dict[str, np.ndarray]:
        """The open block's content, words unpacked."""
        fields = {"tokens": self.block[: self.filled], "documents": np.array(self.starts, dtype=np.uint32)}
        return fields | {"words": self.word_starts[: self.filled]}

    def restore(self, text: str, arrays: bytes) -> None:
        """Restore what `saved` returned; ValueError, KeyError or any error of numpy's if it was changed."""
        counts = checked(json.loads(text), _Counts, f"the counts of {self.split}", "they were changed")
        self.num_shards = counts.shards
        self.blocks, self.documents, self.tokens = counts.blocks, counts.documents, counts.tokens
        self.text_bytes = counts.text_bytes
        with np.load(io.BytesIO(arrays), allow_pickle=False) as saved:
            tokens = saved["block.tokens"]
            self.filled = len(tokens)
            self.block[: self.filled] = tokens
            self.word_starts[: self.filled] = saved["block.words"]
            self.starts = [int(start) for start in saved["block.documents"]]
            first = self.blocks - counts.pending
            self.pending = [
                (f"{self.split}-{first + index:08d}", dict(self.pending_fields(saved, index)))
                for index in range(counts.pending)
            ]

    def pending_fields(self, saved: Any, index: int) -> Iterator[tuple[str, np.ndarray]]:
        """Fields of a waiting block, in the order in which they are written."""
        for name in ("tokens", "documents", "words") if self.words else ("tokens", "documents"):
            yield name, saved[f"pending{index:06d}.{name}"]
