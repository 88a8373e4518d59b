"""Building rows from the token ids of one text or a pair, with special tokens as the tokenizer places them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from pretraining.model.families import usable_positions

CONTENT_BATCH = 1000


@dataclass(frozen=True)
class PairTemplate:
    """The special ids before, between and after two texts, and the token types of both parts."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    second_type: int  # token type of the second text and of the suffix

    @property
    def overhead(self) -> int:
        """Special tokens of a row."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def second_start(self, first_length: int) -> int:
        """The position at which the second text begins in a row."""
        return len(self.prefix) + first_length + len(self.middle)

    def row(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """input_ids and token_type_ids."""
        front = [*self.prefix, *first, *self.middle]
        back = [*second, *self.suffix]
        return front + back, [0] * len(front) + [self.second_type] * len(back)


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate:
    """Read the layout off an encoded pair; ValueError for a tokenizer that adds nothing in front, or cannot pad."""
    encoded = tokenizer("a", "a", return_token_type_ids=True)
    places = encoded.sequence_ids(0)
    ids, types = encoded["input_ids"], encoded["token_type_ids"]
    first = [i for i, place in enumerate(places) if place == 0]
    second = [i for i, place in enumerate(places) if place == 1]
    if not first or not second or first[0] == 0:
        raise ValueError(
            "the tokenizer adds no token in front of a pair of texts, and recipes classify by that token: "
            "use an encoder's tokenizer ([CLS] A [SEP] B [SEP])"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "the tokenizer has no padding token, and rows of a batch are padded to one length: use an encoder's "
            "tokenizer, or set pad_token in its tokenizer_config.json"
        )
    return PairTemplate(
        tuple(ids[: first[0]]),
        tuple(ids[first[-1] + 1 : second[0]]),
        tuple(ids[second[-1] + 1 :]),
        int(types[second[0]]),
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens and without a limit."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), CONTENT_BATCH):
        encoded = tokenizer(list(texts[start : start + CONTENT_BATCH]), add_special_tokens=False, verbose=False)
        ids.extend(encoded["input_ids"])
    return ids


def token_ids_with_offsets(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[tuple[list[int], np.ndarray]]:
    """Ids of each text and the characters [n, 2] that each token covers."""
    encoded_texts: list[tuple[list[int], np.ndarray]] = []
    for start in range(0, len(texts), CONTENT_BATCH):
        encoded = tokenizer(
            list(texts[start : start + CONTENT_BATCH]),
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            encoded_texts.append((ids, np.array(offsets, dtype=np.int64).reshape(-1, 2)))
    return encoded_texts


@cache
def pad_multiple() -> int:
    """8 on an accelerator, whose matrix units need it; 1 on the CPU, where padding only costs time."""
    return 8 if torch.accelerator.is_available() else 1


def padded_length(longest: int) -> int:
    """The next multiple of `pad_multiple`."""
    return -(-longest // pad_multiple()) * pad_multiple()


def padded_rows(
    input_ids: Sequence[Sequence[int]], token_type_ids: Sequence[Sequence[int]], *, pad_id: int
) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask, token_type_ids [R, T], T the longest row's length, rounded up by `padded_length`."""
    shape = (len(input_ids), padded_length(max(len(row) for row in input_ids)))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, (row, row_types) in enumerate(zip(input_ids, token_type_ids, strict=True)):
        ids[i, : len(row)], mask[i, : len(row)], types[i, : len(row)] = row, 1, row_types
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "token_type_ids": torch.from_numpy(types),
    }


def row_limit(max_seq_length: int, config: PretrainedConfig | None) -> int:
    """The longest row that both the option and the model's positions allow, its padding to `padded_length` included."""
    positions = None if config is None else usable_positions(config)
    if positions is None or padded_length(max_seq_length) <= positions:
        return max_seq_length
    return positions // pad_multiple() * pad_multiple()
