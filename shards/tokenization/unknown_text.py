"""Unknown text: the characters that a tokenizer turns into its unknown token, counted and located."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

MUCH_UNKNOWN = 0.02  # the share of the characters above which to warn
BLANKS = " \n\t\r\u00a0\u3000"  # not counted: tokenizers drop them or join them to a word
FIRST_STAND_IN = 1 << 32  # beyond every token id
REMEDY = (
    "the model never sees them; train a byte-level vocabulary, which covers every character (--vocabulary "
    "byte_bpe, without --tokenizer), or give a --tokenizer that was made for this language"
)


def count_characters(text: str) -> int:
    """The number of characters of a text, except blanks."""
    return len(text) - sum(map(text.count, BLANKS))


def comparable_tokens(tokens: np.ndarray, places: np.ndarray, parts: Sequence[str]) -> np.ndarray:
    """Tokens [N] with unknown ones (at `places` [U]) distinguished by the text behind them: uint64 [N].

    Without this, documents in an unknown script would all be alike. Known text keeps its ids.
    """
    if not len(places):
        return tokens
    wide = tokens.astype(np.uint64)
    wide[places] = [FIRST_STAND_IN + zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in parts]
    return wide


def unknown_text(characters: int, unknown: int) -> dict[str, float]:
    """The manifest's record of characters that became unknown tokens: their number, the total, and the share."""
    share = unknown / characters if characters else 0.0
    return {"characters": characters, "unknown_characters": unknown, "share": round(share, 6)}


def unknown_warning(record: Mapping[str, float]) -> str | None:
    """A warning about a large share, with its remedy; None if the share is small."""
    share = record["share"]
    return f"{share:.1%} of the characters become [UNK]: {REMEDY}" if share >= MUCH_UNKNOWN else None
