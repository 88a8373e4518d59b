"""Masking: the choice of a sequence's masked tokens, as a pure function of the sequence's key."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.streaming.splitmix import keys, mix

_POSITION_BITS = 16
_POSITION = np.uint64((1 << _POSITION_BITS) - 1)
_LAST = np.uint64(np.iinfo(np.uint64).max)
_REPLACE = np.uint64(0x5DEECE66D)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tables for masking: sizes, special ids, and which ids continue a word (bool [V], or None).

    Ids without a token are special: no text holds them, and none is drawn as a random token.
    """

    vocab_size: int
    special_ids: tuple[int, ...]
    pad: int
    cls: int
    sep: int
    mask: int
    continues_word: np.ndarray | None = None


@dataclass(frozen=True)
class MaskOptions:
    """`rate` of the maskable tokens are predicted; `mask_share` of these become [MASK], `random_share` any token."""

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_word: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"mask_rate {self.rate}: use a value between 0 and 1, such as 0.15, 0.30 or 0.40")
        shares = (self.mask_share, self.random_share)
        if not all(share >= 0 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share}: each must be 0 or more, and their "
                "sum at most 1, such as 0.8 and 0.1"
            )


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """The `Vocabulary` of a fast `transformers` tokenizer that has a mask and a padding token."""
    from shards.tokenization.vocabulary import special_ids, vocabulary_length  # loads the library `tokenizers`

    ids = special_ids(tokenizer)
    vocab_size = vocabulary_length(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(vocab_size)))
    without_token = [number for number, token in enumerate(tokens) if token is None]
    return Vocabulary(
        vocab_size=vocab_size,
        special_ids=tuple(sorted({*tokenizer.all_special_ids, *ids.values(), *without_token})),
        pad=ids["pad"],
        cls=ids["cls"],
        sep=ids["sep"],
        mask=ids["mask"],
        continues_word=continues_word([token or "" for token in tokens]),
    )


def continues_word(tokens: list[str]) -> np.ndarray:
    """Which tokens of a vocabulary continue the word before them, bool [V].

    WordPiece marks them with '##'; byte-level BPE marks a word's start with 'Ġ' and Metaspace with '▁'. There a token
    without the mark still starts a word if its first byte is not a letter or digit (punctuation), or begins a character
    of three or four bytes (Chinese, Japanese, Korean), as otherwise a whole Chinese clause would be one word.
    """
    starts = {mark: sum(token.startswith(mark) and token != mark for token in tokens) for mark in ("##", "Ġ", "▁")}
    mark = max(starts, key=lambda name: starts[name])
    if not starts[mark]:
        return np.zeros(len(tokens), dtype=bool)
    if mark == "##":
        return np.array([token.startswith("##") and len(token) > 2 for token in tokens])
    return np.array([not token.startswith(mark) and _continues(token, mark == "Ġ") for token in tokens])


def _continues(token: str, is_byte_level: bool) -> bool:
    if not token:
        return True
    byte = _BYTE_OF.get(token[0], 0x20) if is_byte_level else token[0].encode("utf-8", "replace")[0]
    if byte < 0x80:
        return chr(byte).isalnum()
    return byte < 0xE2


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of GPT-2's byte-level alphabet: printable Latin-1 stands for itself, the rest from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def mask_slots(content_tokens: int, rate: float) -> int:
    """The number of mask slots of a sequence of up to `content_tokens` stored tokens: a share `rate`, at least one."""
    return max(1, int(content_tokens * rate + 0.5))


class Masker:
    """Masks the tokens of whole batches; its only state are tables over the vocabulary."""

    def __init__(self, vocabulary: Vocabulary, options: MaskOptions) -> None:
        special = np.zeros(vocabulary.vocab_size, dtype=bool)
        special[list(vocabulary.special_ids)] = True
        special[[vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask]] = True
        self._special = special
        self._ordinary_ids = np.flatnonzero(~special)
        if not len(self._ordinary_ids):
            raise ValueError("the vocabulary holds special tokens only: train the tokenizer on more text")
        self._vocabulary = vocabulary
        self._options = options

    def hide(
        self, ids: np.ndarray, sequence_keys: np.ndarray, slots: int, word_starts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replace tokens of `ids` int64 [S, T] in place; return positions, labels int64, weights float32 [S, K].

        `sequence_keys` uint64 [S] decide everything; `slots` is K; `word_starts` bool [S, T] is needed for whole words
        unless the vocabulary has a table. Unused slots point at position 0 with weight zero. Special tokens are never
        hidden, and at least one token is whenever any can be.
        """
        special = self._special[ids]
        width = ids.shape[1]
        columns = np.arange(width, dtype=np.uint64)
        order = mix(columns * np.uint64(0x9E3779B97F4A7C15) + sequence_keys[:, None])
        wanted = np.minimum(self._wanted(width - special.sum(axis=1)), slots)
        if self._options.whole_word:
            positions, used = self._choose_words(order, columns, special, self._starts(ids, word_starts), wanted, slots)
        else:
            order &= ~_POSITION
            order |= columns
            order[special] = _LAST
            first = np.sort(_smallest(order, slots), axis=1)
            positions, used = (first & _POSITION).astype(np.int64), np.arange(slots) < wanted[:, None]
        positions = np.sort(np.where(used, positions, width), axis=1)
        used = positions < width
        positions[~used] = 0
        labels = np.take_along_axis(ids, positions, axis=1)
        np.put_along_axis(ids, positions, self._replace(labels, positions, used, sequence_keys), axis=1)
        return positions, labels, used.astype(np.float32)

    def _wanted(self, maskable: np.ndarray) -> np.ndarray:
        rounded = (maskable * self._options.rate + 0.5).astype(np.int64)
        return np.where(maskable > 0, np.maximum(rounded, 1), 0)

    def _replace(
        self, labels: np.ndarray, positions: np.ndarray, used: np.ndarray, sequence_keys: np.ndarray
    ) -> np.ndarray:
        bits = keys((sequence_keys ^ _REPLACE)[:, None], positions)
        share = (bits >> np.uint64(40)).astype(np.float64) / (1 << 24)
        drawn = (bits & np.uint64(0xFFFFFFFF)) * np.uint64(len(self._ordinary_ids)) >> np.uint64(32)
        random_ids = self._ordinary_ids[drawn.astype(np.int64)]
        options = self._options
        replaced = np.where(share < options.mask_share, self._vocabulary.mask, random_ids)
        return np.where(used & (share < options.mask_share + options.random_share), replaced, labels)

    def _starts(self, ids: np.ndarray, word_starts: np.ndarray | None) -> np.ndarray:
        if word_starts is not None:
            return word_starts
        if self._vocabulary.continues_word is None:
            raise ValueError("whole-word masking needs word boundaries: give a tokenizer, or build shards with words")
        return ~self._vocabulary.continues_word[ids]

    def _choose_words(
        self,
        order: np.ndarray,
        columns: np.ndarray,
        special: np.ndarray,
        starts: np.ndarray,
        wanted: np.ndarray,
        slots: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whole words in random order while they fit; a word shares its first token's draw, so it stays together."""
        starts = starts | special
        starts[:, 1:] |= special[:, :-1]
        word = np.maximum.accumulate(np.where(starts, columns.astype(np.int64), 0), axis=1)
        ranked = np.take_along_axis(order, word, axis=1)
        ranked &= ~_POSITION
        ranked |= columns
        ranked[special] = _LAST
        ranked = np.concatenate([ranked, np.full((len(ranked), 1), _LAST)], axis=1)
        first = np.sort(_smallest(ranked, slots + 1), axis=1)
        positions = np.minimum((first & _POSITION).astype(np.int64), word.shape[1] - 1)
        words = np.where(first == _LAST, -1, np.take_along_axis(word, positions, axis=1))
        rank = np.arange(positions.shape[1])
        used = rank < wanted[:, None]
        last = np.take_along_axis(words, np.maximum(wanted - 1, 0)[:, None], axis=1)
        is_cut = np.take_along_axis(words, np.minimum(wanted, len(rank) - 1)[:, None], axis=1) == last
        used &= ~(is_cut & (words == last))
        for row in np.flatnonzero((wanted > 0) & ~used.any(axis=1)).tolist():
            self._choose_one_word(ranked[row], word[row], int(wanted[row]), positions[row], used[row])
        return positions[:, :slots], used[:, :slots]

    def _choose_one_word(
        self, ranked: np.ndarray, word: np.ndarray, wanted: int, positions: np.ndarray, used: np.ndarray
    ) -> None:
        """The first word drawn was too long: take the first that fits, or cut the first when none does."""
        drawn = (np.sort(ranked[ranked != _LAST]) & _POSITION).astype(np.int64)
        sizes = np.bincount(word[drawn], minlength=len(word))
        fitting = drawn[sizes[word[drawn]] <= wanted]
        chosen = fitting[word[fitting] == word[fitting[0]]] if len(fitting) else drawn[:wanted]
        positions[: len(chosen)] = chosen
        used[: len(chosen)] = True


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The `count` smallest of each row, in any order; fewer columns are filled with the largest value."""
    if values.shape[1] > count:
        return np.partition(values, count - 1, axis=1)[:, :count]
    missing = np.full((len(values), count - values.shape[1]), _LAST)
    return np.concatenate([values, missing], axis=1)
