"""The stream of a rank's masked micro-batches; its whole state is one integer, the number of rows consumed."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from runtime.processes.liveness import end_or_watch
from shards.storage.check import Verify
from shards.storage.location import ShardLocation, open_location
from shards.storage.manifest import Manifest, check_tokenizer
from shards.storage.reader import ShardReader
from shards.streaming.masking import Vocabulary, read_vocabulary
from shards.streaming.micro_batch import Assembler, MicroBatch
from shards.streaming.options import StreamOptions
from shards.streaming.order import WINDOW_ROWS, Order, lanes_for, lanes_of, rows_per_rank
from shards.streaming.splitmix import key
from shards.tokenization.vocabulary import fingerprint, load_tokenizer, special_ids

__all__ = ["MaskedStream", "MicroBatch", "StreamOptions", "load_vocabulary", "validation_batches"]

CHUNK_TOKENS = 1 << 16
COUNTED_ROWS = 1 << 18
_TRAIN, _VALIDATION = 1, 2


def load_vocabulary(directory: Path, manifest: Manifest) -> Vocabulary:
    """The vocabulary of the tokenizer stored with the shards; ValueError if the shards were made with another."""
    path = directory / manifest.tokenizer.path
    if not path.is_dir():
        raise ValueError(f"{path} is missing: restore the tokenizer that the shards were built with")
    tokenizer = load_tokenizer(str(path))
    vocabulary = read_vocabulary(tokenizer)
    check_tokenizer(manifest, fingerprint(tokenizer), vocabulary.vocab_size, special_ids(tokenizer))
    return vocabulary


class MaskedStream:
    """This rank's micro-batches of a shard directory, from any row on, forever.

    Which tokens and masks row g has depends on the options' seed and g only; ranks, workers and `micro_batch_rows` only
    decide which process makes it, and in which batch.
    """

    def __init__(
        self,
        directory: Path | str | ShardLocation,
        options: StreamOptions,
        rank: int,
        world_size: int,
        *,
        vocabulary: Vocabulary | None = None,
        cache_directory: Path | None = None,
        verify: Verify = "sizes",
        check_share: tuple[int, int] = (0, 1),
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:
        """Check all shards against the manifest first; `vocabulary` comes from the tokenizer's folder if not given.

        `directory` may be an address (https, s3, gs); its shards are then fetched into `cache_directory` as they are
        opened.
        `check_share` (number, of how many) leaves most of the check to other processes, see `check_shards`.
        `chunk_tokens` is how many stored tokens are made in one go, for speed; it changes no batch.
        """
        location = open_location(directory, cache_directory)
        manifest = location.manifest
        location.check(verify, check_share)
        split = manifest.split("train")
        self.options = options
        self.vocabulary = vocabulary or load_vocabulary(location.directory, manifest)
        self._chunk_tokens = chunk_tokens
        self._block_tokens = split.block_tokens()
        self._bytes_per_token = split.text_bytes / max(1, split.tokens) if split.text_bytes is not None else None
        row_tokens = options.tokens_per_row
        self._num_lanes = lanes_for(options.global_batch_rows)
        self._lanes = lanes_of(rank, world_size, self._num_lanes)
        window = min(WINDOW_ROWS, max(1, 2 * manifest.block_tokens // row_tokens))
        self._order = Order(
            -(-self._block_tokens // row_tokens),
            options.seed,
            self._num_lanes,
            blocks_per_shard=split.blocks_per_shard(),
            window_rows=window,
        )
        self._rank_rows = rows_per_rank(world_size, self._num_lanes, options.global_batch_rows)
        self._assembler = Assembler(
            ShardReader(location.directory, manifest, "train", capacity=3 * len(self._lanes) + 2, fetch=location.fetch),
            options,
            self.vocabulary,
            key(options.seed, _TRAIN),
            manifest.token_dtype,
        )

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the training split, the short last rows of blocks included."""
        return self._order.rows_per_epoch

    @property
    def micro_batches_per_update(self) -> int:
        """Micro-batches that each rank makes for one update, the same on every rank."""
        return -(-self._rank_rows // self.options.micro_batch_rows)

    def lengths_at(self, row: int) -> int:
        """The scheduled sequence length of the update that global row `row` belongs to."""
        return self.options.length_at(row)

    def batches(self, first_row: int, num_workers: int = 0, *, start_method: str | None = None) -> Iterator[MicroBatch]:
        """Micro-batches from global row `first_row` on (a multiple of the global batch), forever.

        The same for any number of workers. `start_method` is multiprocessing's ("fork", "spawn", "forkserver").
        A worker that dies raises RuntimeError here; workers end with this process, even if it is killed.
        """
        if first_row < 0 or first_row % self.options.global_batch_rows:
            raise ValueError(
                f"first_row {first_row}: an update starts at a multiple of {self.options.global_batch_rows} rows; "
                "resume with the global_batch_rows of the run"
            )
        if num_workers == 0:
            for chunk in self._chunks(first_row, 0, 1):
                yield from chunk
            return
        loader: DataLoader[list[MicroBatch] | ValueError | OSError] = DataLoader(
            _Chunks(self, first_row),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            multiprocessing_context=start_method,
            worker_init_fn=partial(
                _end_with_owner, os.getpid(), threading.current_thread() is not threading.main_thread()
            ),
        )
        for made in loader:
            if isinstance(made, ValueError | OSError):
                raise made
            yield from made

    def tokens_between(self, first_row: int, last_row: int) -> int:
        """Tokens of global rows [first_row, last_row) of all ranks, padding left out, as `num_tokens` counts them."""
        return self._sum_over_rows(first_row, last_row, self.options.overhead)

    def text_bytes_between(self, first_row: int, last_row: int) -> int | None:
        """Bytes of text (UTF-8) of global rows [first_row, last_row) of all ranks; None if the shards do not count it.

        The stored tokens of the rows, special tokens left out, times the mean bytes of a stored token of the split:
        exact for whole epochs, in between as far as the text is alike. Shards do not keep where a token's text ends.
        """
        if self._bytes_per_token is None:
            return None
        return round(self._sum_over_rows(first_row, last_row, 0) * self._bytes_per_token)

    def _sum_over_rows(self, first_row: int, last_row: int, overhead: int) -> int:
        """Stored tokens of rows, and `overhead` tokens more for each of their sequences."""
        total, position, epoch_rows = 0, first_row, self.rows_per_epoch
        while position < last_row:
            end = min(position - position % epoch_rows + epoch_rows, last_row)
            phase = self.options.phase_at(position)
            if end - position == epoch_rows and phase == self.options.phase_at(end - 1):
                total += self._tokens_of_epoch(self.options.lengths[phase][1], overhead)
            else:
                end = min(end, position + COUNTED_ROWS)
                total += self._tokens_of_rows(position, end, overhead)
            position = end
        return total

    def _tokens_of_epoch(self, length: int, overhead: int) -> int:
        whole, rest = np.divmod(self._block_tokens, self.options.tokens_per_row)
        row = int(self._tokens_of(np.array([self.options.tokens_per_row]), length, overhead)[0])
        return int(whole.sum()) * row + int(self._tokens_of(rest, length, overhead).sum())

    def _tokens_of_rows(self, first_row: int, last_row: int, overhead: int) -> int:
        rows, total = np.arange(first_row, last_row), 0
        blocks, places = self._order.places(rows)
        row_tokens = self.options.tokens_per_row
        sizes = np.minimum(self._block_tokens[blocks] - places * row_tokens, row_tokens)
        for part, length in self._by_length(rows // self.options.global_batch_rows):
            total += int(self._tokens_of(sizes[part], length, overhead).sum())
        return total

    def _tokens_of(self, sizes: np.ndarray, length: int, overhead: int) -> np.ndarray:
        _, width = self.options.sequence_shape(length)
        return sizes + overhead * -(-sizes // width)

    def _chunks(self, first_row: int, worker: int, num_workers: int) -> Iterator[list[MicroBatch]]:
        """Every `num_workers`-th run of micro-batches; a run is long enough to be made with few numpy calls."""
        per_update = self.micro_batches_per_update
        size = max(1, self._chunk_tokens // (self.options.micro_batch_rows * self.options.tokens_per_row))
        first = first_row // self.options.global_batch_rows * per_update
        while True:
            yield list(self._micro_batches(first + worker * size, size))
            worker += num_workers

    def _micro_batches(self, first: int, count: int) -> Iterator[MicroBatch]:
        options = self.options
        updates, parts = np.divmod(np.arange(first, first + count), self.micro_batches_per_update)
        inside = parts[:, None] * options.micro_batch_rows + np.arange(options.micro_batch_rows)
        turn, lane = np.divmod(inside, len(self._lanes))
        rows = updates[:, None] * options.global_batch_rows + turn * self._num_lanes + self._lanes.start + lane
        is_real = turn < options.global_batch_rows // self._num_lanes
        blocks, places = np.zeros_like(rows), np.zeros_like(rows)
        blocks[is_real], places[is_real] = self._order.places(rows[is_real])
        rows[~is_real] = -1
        for part, length in self._by_length(updates):
            yield from self._assembler.assemble(
                rows[part].reshape(-1),
                blocks[part].reshape(-1),
                places[part].reshape(-1),
                length,
                options.micro_batch_rows,
            )

    def _by_length(self, updates: np.ndarray) -> Iterator[tuple[slice, int]]:
        """Runs of equal sequence length in ascending update numbers."""
        firsts = updates * self.options.global_batch_rows
        phases = np.searchsorted([first for first, _ in self.options.lengths], firsts, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(phases)) + 1).tolist(), len(phases)]
        for begin, end in pairwise(edges):
            yield slice(begin, end), self.options.lengths[int(phases[begin])][1]


def validation_batches(
    directory: Path | str | ShardLocation,
    options: StreamOptions,
    rank: int,
    world_size: int,
    max_rows: int,
    *,
    length: int | None = None,
    vocabulary: Vocabulary | None = None,
    cache_directory: Path | None = None,
) -> Iterator[MicroBatch]:
    """The first `max_rows` rows of the validation split, each once over all ranks, with masks that no option changes.

    Rank r makes rows r, r + world_size, ...; padding rows give every rank the same number of micro-batches. `length` is
    the sequence length, by default the schedule's shortest: one that every checkpoint has been trained on.
    """
    location = open_location(directory, cache_directory)
    manifest = location.manifest
    block_tokens = manifest.split("validation").block_tokens()
    row_tokens = options.tokens_per_row
    ends = np.cumsum(-(-block_tokens // row_tokens))
    num_rows = min(max_rows, int(ends[-1]) if len(ends) else 0)
    if num_rows < 1:
        raise ValueError(f"{directory}: no validation rows (max_rows {max_rows}): build shards with a held-out share")
    assembler = Assembler(
        ShardReader(location.directory, manifest, "validation", fetch=location.fetch),
        options,
        vocabulary or load_vocabulary(location.directory, manifest),
        key(0, _VALIDATION),
        manifest.token_dtype,
    )
    length = length or min(scheduled for _, scheduled in options.lengths)
    per_rank = -(-num_rows // world_size)
    micro = options.micro_batch_rows
    for first in range(0, per_rank, micro):
        rows = rank + world_size * np.arange(first, first + micro)
        is_real = (rows < num_rows) & (np.arange(first, first + micro) < per_rank)
        blocks = np.searchsorted(ends, np.where(is_real, rows, 0), side="right")
        places = np.where(is_real, rows, 0) - np.where(blocks > 0, ends[blocks - 1], 0)
        yield from assembler.assemble(np.where(is_real, rows, -1), blocks, places, length, micro)


class _Chunks(IterableDataset[list[MicroBatch] | ValueError | OSError]):
    """The items of a data worker; a faulty shard's error is an item: torch would wrap a raised one in a traceback."""

    def __init__(self, stream: MaskedStream, first_row: int) -> None:
        self._stream = stream
        self._first_row = first_row

    def __iter__(self) -> Iterator[list[MicroBatch] | ValueError | OSError]:
        worker = get_worker_info()
        number, total = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            yield from self._stream._chunks(self._first_row, number, total)
        except (ValueError, OSError) as error:
            yield error


def _unchanged(chunk: Any) -> Any:
    return chunk


def _end_with_owner(owner: int, started_by_thread: bool, worker: int) -> None:
    """End a data worker with its rank: if it lived on, it would hold the sockets that a fork copied."""
    end_or_watch(owner, started_by_thread=started_by_thread)
