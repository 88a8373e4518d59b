"""Assembly of micro-batches: rows of stored tokens into masked sequences."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shards.storage.reader import Block, ShardReader
from shards.streaming.masking import Masker, Vocabulary, mask_slots
from shards.streaming.options import StreamOptions
from shards.streaming.sentence_pairs import SentencePairs, draw_pairs
from shards.streaming.splitmix import keys


@dataclass(frozen=True)
class MicroBatch:
    """R rows as S sequences of T tokens with K mask slots each, as numpy arrays.

    rows int64 [R] (global row numbers, -1 for padding); input_ids int64 [S, T]; attention_mask int64 [S, T], None when
    nothing is padded; token_type_ids int64 [S, T] or None; mask_positions, mask_labels int64 [S, K]; mask_weights
    float32 [S, K]; next_sentence_labels int64 [S] (1: false pair) and next_sentence_weights float32 [S], or None;
    num_tokens: tokens that are not padding, [CLS] and [SEP] included.
    """

    rows: np.ndarray
    input_ids: np.ndarray
    attention_mask: np.ndarray | None
    token_type_ids: np.ndarray | None
    mask_positions: np.ndarray
    mask_labels: np.ndarray
    mask_weights: np.ndarray
    next_sentence_labels: np.ndarray | None
    next_sentence_weights: np.ndarray | None
    num_tokens: int


class Assembler:
    """Makes micro-batches from located rows; the rows around a row do not affect its sequences."""

    def __init__(
        self, reader: ShardReader, options: StreamOptions, vocabulary: Vocabulary, row_key: np.uint64, token_dtype: str
    ) -> None:
        self._reader = reader
        self._options = options
        self._vocabulary = vocabulary
        self._masker = Masker(vocabulary, options.mask_options())
        self._row_key = row_key
        self._token_dtype = token_dtype

    def assemble(
        self, rows: np.ndarray, blocks: np.ndarray, places: np.ndarray, length: int, micro_rows: int
    ) -> Iterator[MicroBatch]:
        """Micro-batches of `micro_rows` rows; rows (-1: padding), blocks and places in them are int64 [num_rows]."""
        sequences, width = self._options.sequence_shape(length)
        held = {number: self._reader.block(number) for number in np.unique(blocks[rows >= 0]).tolist()}
        stored, words, sizes = self._gather(rows, blocks, places, held, sequences * width)
        content = stored.reshape(-1, width)
        lengths = np.clip(sizes[:, None] - np.arange(sequences) * width, 0, width).reshape(-1)
        sequence_keys = keys(keys(self._row_key, rows)[:, None], np.arange(sequences)).reshape(-1)
        word_starts = None if words is None else words.reshape(-1, width)
        pairs = None
        if self._options.has_pairs and held:
            starts = places[:, None] * self._options.tokens_per_row + np.arange(sequences) * width
            blocks_of = np.repeat(np.where(rows >= 0, blocks, -1), sequences)
            pairs = self._pair(sequence_keys, lengths, starts.reshape(-1), blocks_of, held, content, word_starts)
        elif self._options.has_pairs:
            nothing = np.zeros(len(lengths), dtype=np.int64)
            pairs = SentencePairs(nothing, nothing - 1, nothing, nothing.astype(np.float32))
        junctions = None if pairs is None else pairs.junctions
        ids = self._frame(content, lengths, junctions)
        flags = None if word_starts is None else _place(word_starts, junctions, True)
        slots = mask_slots(width, self._options.mask_rate)
        masks = self._masker.hide(ids, sequence_keys, slots, flags)
        per_batch = micro_rows * sequences
        for first in range(0, len(ids), per_batch):
            part = slice(first, first + per_batch)
            yield self._micro_batch(part, rows[first // sequences :][:micro_rows], ids, lengths, masks, pairs)

    def _gather(
        self, rows: np.ndarray, blocks: np.ndarray, places: np.ndarray, held: dict[int, Block], width: int
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        row_tokens = self._options.tokens_per_row
        stored = np.full((len(rows), width), self._vocabulary.pad, dtype=self._token_dtype)
        wants_words = self._options.whole_word and any(block.word_starts is not None for block in held.values())
        words = np.ones((len(rows), width), dtype=bool) if wants_words else None
        sizes = [0] * len(rows)
        for index, (row, number, place) in enumerate(zip(rows.tolist(), blocks.tolist(), places.tolist(), strict=True)):
            if row < 0:
                continue
            block = held[number]
            tokens = block.tokens[place * row_tokens : (place + 1) * row_tokens]
            sizes[index] = size = len(tokens)
            stored[index, :size] = tokens
            if words is not None:
                if block.word_starts is None:
                    raise ValueError(
                        f"block {number} has no word starts while others have them: build the shards again"
                    )
                words[index, :size] = block.word_starts[place * row_tokens : place * row_tokens + size]
        return stored, words, np.array(sizes, dtype=np.int64)

    def _pair(
        self,
        sequence_keys: np.ndarray,
        lengths: np.ndarray,
        starts: np.ndarray,
        blocks: np.ndarray,
        held: dict[int, Block],
        content: np.ndarray,
        word_starts: np.ndarray | None,
    ) -> SentencePairs:
        """Draw the pairs and write the second halves of the false ones into `content` (and `word_starts`)."""
        listed = list(held.values())
        which = np.searchsorted(np.fromiter(held, dtype=np.int64), np.maximum(blocks, min(held)))
        sizes = np.array([len(block.tokens) for block in listed], dtype=np.int64)
        starts = np.minimum(starts, sizes[which])
        pairs = draw_pairs(sequence_keys, lengths, starts, which, [block.document_starts for block in listed], sizes)
        false = np.flatnonzero(pairs.sources >= 0)
        columns = (array[false].tolist() for array in (which, pairs.junctions, lengths, pairs.sources))
        for index, number, junction, length, source in zip(false.tolist(), *columns, strict=True):
            taken = slice(source, source + length - junction)
            content[index, junction:length] = listed[number].tokens[taken]
            block_words = listed[number].word_starts
            if word_starts is not None and block_words is not None:
                word_starts[index, junction:length] = block_words[taken]
        return pairs

    def _frame(self, content: np.ndarray, lengths: np.ndarray, junctions: np.ndarray | None) -> np.ndarray:
        """Put [CLS] and [SEP] around and, at `junctions`, between the stored tokens: int64 [S, T]."""
        ids = _place(content, junctions, self._vocabulary.pad, np.int64)
        every = np.arange(len(ids))
        ids[:, 0] = self._vocabulary.cls
        if junctions is not None:
            ids[every, junctions + 1] = self._vocabulary.sep
        ids[every, lengths + self._options.overhead - 1] = self._vocabulary.sep
        return ids

    def _micro_batch(
        self,
        part: slice,
        rows: np.ndarray,
        ids: np.ndarray,
        lengths: np.ndarray,
        masks: tuple[np.ndarray, np.ndarray, np.ndarray],
        pairs: SentencePairs | None,
    ) -> MicroBatch:
        overhead = self._options.overhead
        columns = np.arange(ids.shape[1])
        used = lengths[part, None] + overhead
        is_padded = bool((used < ids.shape[1]).any())
        types = None
        if pairs is not None:
            types = ((columns > pairs.junctions[part, None] + 1) & (columns < used)).astype(np.int64)
        return MicroBatch(
            rows=rows,
            input_ids=ids[part],
            attention_mask=(columns < used).astype(np.int64) if is_padded else None,
            token_type_ids=types,
            mask_positions=masks[0][part],
            mask_labels=masks[1][part],
            mask_weights=masks[2][part],
            next_sentence_labels=None if pairs is None else pairs.labels[part],
            next_sentence_weights=None if pairs is None else pairs.weights[part],
            num_tokens=int((lengths[part] + overhead * (lengths[part] > 0)).sum()),
        )


def _place(
    content: np.ndarray, junctions: np.ndarray | None, fill: int | bool, dtype: type | None = None
) -> np.ndarray:
    """Shift [S, width] content past [CLS] and, behind its junction, past the inner [SEP]; free places get `fill`."""
    count, width = content.shape
    if junctions is None:
        placed = np.full((count, width + 2), fill, dtype=dtype or content.dtype)
        placed[:, 1:-1] = content
        return placed
    first = np.full((count, width + 3), fill, dtype=dtype or content.dtype)
    second = first.copy()
    first[:, 1:-2] = content
    second[:, 2:-1] = content
    return np.where(np.arange(width + 3) <= junctions[:, None], first, second)
