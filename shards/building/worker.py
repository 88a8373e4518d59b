"""The worker process of a build: clean and tokenize a chunk of documents."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from shards.building.languages import language_filter
from shards.building.minhash import band_keys, document_digest, minhash_signatures
from shards.streaming.masking import continues_word
from shards.text.cleaning import Cleaning
from shards.text.dumps.markup import plain_text
from shards.tokenization.unknown_text import comparable_tokens, count_characters

PIECE_CHARACTERS = 2_000
LOOKED_AT_CHARACTERS = 250  # parts of a piece in which an unknown token is looked for
PIECES_AT_ONCE = 512  # the library's encodings take some hundred bytes per token: hold few at a time
PROBE = "A first line here, and more; then\n\nanother one. It's 12 words long: is it not? " * 3


@dataclass(frozen=True)
class EncoderOptions:
    """The options of a worker: the tokenizer's folder and special ids, and the treatment of documents."""

    tokenizer_file: str
    separator_id: int
    unknown_id: int
    special_ids: tuple[int, ...]
    token_dtype: str
    cleaning: Cleaning = field(default_factory=Cleaning)
    signatures: bool = True
    jieba_words: bool = False
    language: str = "any"
    language_confidence: float = 0.0


@dataclass
class EncodedChunk:
    """Documents of a chunk that survived cleaning, laid end to end.

    tokens [N] (each document ends with the separator), lengths int64 [D], digests D x 16 bytes, signatures uint32
    [D, 128] and bands int64 [D, 16] or None, word_starts bool [N] or None; text_bytes of all documents before they
    are cleaned, document_bytes int64 [D] of the cleaned ones, in UTF-8; characters of the texts except blanks, and how
    many of them became the unknown token.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    digests: list[bytes]
    signatures: np.ndarray | None
    bands: np.ndarray | None
    word_starts: np.ndarray | None
    text_bytes: int
    changed: Counter[str]
    dropped: Counter[str]
    document_bytes: np.ndarray
    characters: int = 0
    unknown_characters: int = 0


class TextEncoder:
    """Turns texts into tokens; special tokens spelled out in the text stay text."""

    def __init__(self, options: EncoderOptions) -> None:
        self.options = options
        self.tokenizer = Tokenizer.from_file(options.tokenizer_file)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        token_of = {number: token for token, number in self.tokenizer.get_vocab(with_added_tokens=True).items()}
        largest_id = max(token_of)  # ids may have gaps
        self.continues = continues_word([token_of.get(number, "") for number in range(largest_id + 1)])
        self.is_special = np.zeros(largest_id + 1, dtype=bool)
        self.is_special[list(options.special_ids)] = True
        self.is_special[options.unknown_id] = False
        self.languages = language_filter(options.language, options.language_confidence)
        self.segmenter = chinese_segmenter() if options.jieba_words else None
        self.piece_characters = PIECE_CHARACTERS if self.pieces_are_exact() else 1 << 20

    def pieces_are_exact(self) -> bool:
        """Whether cutting between words keeps this tokenizer's output (it does not if each text gets a mark)."""
        pieces = self.tokenizer.encode_batch_fast(list(split_text(PROBE, 40)), add_special_tokens=False)
        whole = self.tokenizer.encode(PROBE, add_special_tokens=False)
        return [number for piece in pieces for number in piece.ids] == whole.ids

    def encode(self, texts: Sequence[str]) -> EncodedChunk:
        """Clean and tokenize documents."""
        changed, dropped = Counter[str](), Counter[str]()
        plain = [text for text in (plain_text(text, dropped) for text in texts) if text is not None]
        text_bytes = sum(map(_utf8_bytes, plain))
        cleaned = (self.options.cleaning.clean(text, changed, dropped) for text in plain)
        kept = [
            text
            for text in cleaned
            if text is not None and (self.languages is None or self.languages.admits(text, dropped))
        ]
        tokens, lengths, word_starts, unknown = self.tokenize(kept)
        ends = np.cumsum(lengths) - 1
        is_unknown = tokens == self.options.unknown_id
        is_unknown[ends] = False
        comparable = comparable_tokens(tokens, np.flatnonzero(is_unknown), unknown)
        special = self.is_special[tokens]
        special[ends] = False
        if special.any():
            changed["special_tokens_in_text"] += int(special.sum())
            tokens[special] = self.options.unknown_id
        signatures = bands = None
        if self.options.signatures:
            signatures = minhash_signatures(comparable, lengths)
            bands = band_keys(signatures)
        digests = [document_digest(text) for text in kept]
        return EncodedChunk(
            tokens,
            lengths,
            digests,
            signatures,
            bands,
            word_starts,
            text_bytes,
            changed,
            dropped,
            np.array([_utf8_bytes(text) for text in kept], dtype=np.int64),
            characters=sum(map(count_characters, kept)),
            unknown_characters=sum(map(count_characters, unknown)),
        )

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, list[str]]:
        """Texts -> tokens [N] with a separator after each, lengths int64 [D], word starts bool [N] or None, and the
        parts of the texts that became an unknown token, in order."""
        pieces = [
            (index, piece) for index, text in enumerate(texts) for piece in split_text(text, self.piece_characters)
        ]
        # Offsets cost time, and only words need them of every piece.
        encode = self.tokenizer.encode_batch if self.segmenter else self.tokenizer.encode_batch_fast
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        starts: list[list[np.ndarray]] = [[] for _ in texts]
        unknown: list[str] = []
        for first in range(0, len(pieces), PIECES_AT_ONCE):
            group = pieces[first : first + PIECES_AT_ONCE]
            for (index, piece), encoding in zip(
                group, encode([text for _, text in group], add_special_tokens=False), strict=True
            ):
                ids = np.array(encoding.ids, dtype=self.options.token_dtype)
                parts[index].append(ids)
                if (ids == self.options.unknown_id).any():
                    unknown.extend(self.unknown_parts(piece, ids))
                if self.segmenter:
                    continues = self.continues[parts[index][-1]]
                    starts[index].append(word_starts(piece, encoding.offsets, self.segmenter, continues))
        separator = np.array([self.options.separator_id], dtype=self.options.token_dtype)
        lengths = np.array([1 + sum(map(len, document)) for document in parts], dtype=np.int64)
        tokens = np.concatenate([separator[:0], *(part for document in parts for part in (*document, separator))])
        if not self.segmenter:
            return tokens, lengths, None, unknown
        true = np.ones(1, dtype=bool)
        word_starts_of_all = np.concatenate([true[:0], *(part for words in starts for part in (*words, true))])
        return tokens, lengths, word_starts_of_all, unknown

    def unknown_parts(self, piece: str, ids: np.ndarray) -> list[str]:
        """What became an unknown token in a piece with these ids, in order.

        If a piece has few, the parts near them are tokenized again with offsets, else all of it; also where one may
        be the rest of a longer word that was cut.
        """
        places = np.flatnonzero(ids == self.options.unknown_id)
        parts = list(split_text(piece, LOOKED_AT_CHARACTERS)) if self.piece_characters == PIECE_CHARACTERS else [piece]
        if 2 * len(places) < len(parts):
            expected = places[0] / len(ids) * len(parts) - 0.5
            parts_by_number: dict[int, list[str]] = {}
            for number in sorted(range(len(parts)), key=lambda number: abs(number - expected)):
                parts_by_number[number] = found = self.unknown_parts_of(parts[number])
                if found and (parts[number].startswith(found[0]) or parts[number].endswith(found[-1])):
                    break
                if sum(map(len, parts_by_number.values())) == len(places):
                    return [part for _, some in sorted(parts_by_number.items()) for part in some]
        return self.unknown_parts_of(piece)

    def unknown_parts_of(self, text: str) -> list[str]:
        """The part of a text behind each unknown token, in order."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [text[first:end] for number, (first, end) in pairs if number == self.options.unknown_id]


def _utf8_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def split_text(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Pieces of about `size` characters, cut where tokenizers cut anyway: between two words, else at a line's end.

    Small pieces keep the time linear and the memory bounded, and are 20 to 30 % faster than whole documents.
    """
    start = 0
    while len(text) - start > size:
        cut = cut_position(text, start + size, min(start + size * 8, len(text)))
        if cut == len(text):
            break
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def cut_position(text: str, low: int, high: int) -> int:
    """The first space between two letters in [low, high), else the first line's end, else `high`."""
    space = text.find(" ", low, high)
    while space >= 0:
        if text[space - 1].isalpha() and text[space + 1 : space + 2].isalpha():
            return space
        space = text.find(" ", space + 1, high)
    newline = text.find("\n", low, high)
    return newline if newline >= 0 else high


def word_starts(text: str, offsets: Sequence[tuple[int, int]], segmenter: Any, continues: np.ndarray) -> np.ndarray:
    """Which tokens begin a word: T tokens' offsets in characters, and which continue a word (bool [T]) -> bool [T].

    For Chinese, the segmenter's words are used. jieba cuts all but Chinese and ASCII into characters, so a token that
    continues a word by the vocabulary does not begin one, unless it follows a Chinese character (byte-level BPE marks
    a word's start by the space before it, which is missing there). White space belongs to the next word, as in "Ġword".
    """
    word_of_character = np.zeros(len(text) + 1, dtype=np.int64)
    position, number = 0, 1
    for word in segmenter.cut(text):
        word_of_character[position : position + len(word)] = number
        position += len(word)
        number += not word.isspace()
    words = word_of_character[np.array([start for start, _ in offsets], dtype=np.int64)]
    starts = np.ones(len(words), dtype=bool)
    starts[1:] = words[1:] != words[:-1]
    for index in (np.flatnonzero(starts[1:] & continues[1:]) + 1).tolist():
        starts[index] = is_ideograph(text[offsets[index][0] - 1])
    return starts


def is_ideograph(character: str) -> bool:
    """Whether a character is an ideograph, of those that BERT's tokenizer sets apart (Unicode's CJK blocks)."""
    return "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or character >= "\U00020000"


def chinese_segmenter() -> Any:
    """A jieba tokenizer of our own; its cache, which it would otherwise read from a shared folder, is private."""
    import jieba

    segmenter = jieba.Tokenizer()
    jieba.setLogLevel(40)
    with tempfile.TemporaryDirectory() as folder:
        segmenter.tmp_dir = folder
        segmenter.initialize()
    return segmenter


class Worker:
    """The encoder of this process; set once by `start`, which the process pool calls."""

    encoder: TextEncoder | None = None


def start(options: EncoderOptions) -> None:
    """Prepare a worker process: one thread, an encoder, and an end when its parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent handles it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    Worker.encoder = TextEncoder(options)


def end_with(parent: BaseProcess) -> None:
    """Wait until the parent ends, for whatever reason, and end too."""
    parent.join()
    os._exit(1)


def encode(texts: Sequence[str]) -> EncodedChunk:
    """Encode a chunk in a worker process."""
    assert Worker.encoder is not None, "the pool calls start() first"
    return Worker.encoder.encode(texts)


def tokenizer_file(directory: Path) -> Path:
    """The file of a saved tokenizer that the encoder reads.

    Raises ValueError if there is none, as for a tokenizer written only in Python.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{directory} has no tokenizer.json: use a tokenizer with a fast (Rust) implementation")
    return path
