"""Pseudo-log-likelihoods of sentences: the sum of the log-probabilities of their tokens, each masked in turn.

The plain one masks one token at a time (Salazar et al. 2020, arXiv:1910.14659). In a word of several tokens the others
then give the masked one away, which makes rare words likely; so that of a word also masks its later tokens, as if the
word were read from left to right (PLL-word-l2r, Kauf and Ivanova 2023, arXiv:2305.10588).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pretraining.model.families import family_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class EncodedSentence:
    """A sentence as the model reads it."""

    ids: tuple[int, ...]  # with special tokens
    words: tuple[int | None, ...]  # of each token; None: a special one

    @property
    def scored(self) -> list[int]:
        """The positions whose tokens are predicted."""
        return [position for position, word in enumerate(self.words) if word is not None]

    def masked(self, position: int, *, within_word: bool) -> list[int]:
        """The positions that are masked while the token at `position` is predicted."""
        if not within_word:
            return [position]
        return [later for later in self.scored if later >= position and self.words[later] == self.words[position]]


def encode_sentences(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int) -> list[EncodedSentence]:
    """The sentences with the words of the tokenizer; ValueError for one without a token or with more than `longest`."""
    sentences: list[EncodedSentence] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        encoded: Any = tokenizer(list(texts[start : start + TEXTS_AT_ONCE]), verbose=False)
        for number, ids in enumerate(encoded["input_ids"]):
            sentences.append(EncodedSentence(tuple(ids), tuple(encoded.word_ids(number))))
    for text, sentence in zip(texts, sentences, strict=True):
        if not sentence.scored:
            raise ValueError(f"the sentence {text[:80]!r} has no token for this tokenizer: leave the pair out")
        if len(sentence.ids) > longest:
            raise ValueError(
                f"the sentence {text[:80]!r} has {len(sentence.ids)} tokens, more than the {longest} of a row "
                "(--max_seq_length, and the positions of the model): leave the pair out, or allow longer rows"
            )
    return sentences


@dataclass
class MaskedRows:
    """The different masked rows of some sentences, and what is predicted in each: equal ones are computed once."""

    mask_id: int
    rows: list[Ints] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # of each row, where its token is predicted
    targets: dict[tuple[int, int], int] = field(default_factory=dict)  # (row, token) -> its number
    _numbers: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def add(self, sentence: EncodedSentence, *, within_word: bool) -> list[int]:
        """The numbers of the targets whose log-probabilities are the sentence's, in the order of its tokens."""
        ids, found = np.array(sentence.ids, dtype=np.int64), []
        for position in sentence.scored:
            row = ids.copy()
            row[sentence.masked(position, within_word=within_word)] = self.mask_id
            number = self._numbers.setdefault((row.tobytes(), position), len(self.rows))
            if number == len(self.rows):
                self.rows.append(row)
                self.positions.append(position)
            found.append(self.targets.setdefault((number, sentence.ids[position]), len(self.targets)))
        return found

    def batches(self, most: int) -> Iterator[list[int]]:
        """Numbers of at most so many rows of one length: no row is padded, so no mask is needed either."""
        order = sorted(range(len(self.rows)), key=lambda number: len(self.rows[number]))
        batch: list[int] = []
        for number in order:
            if batch and (len(batch) == most or len(self.rows[batch[0]]) != len(self.rows[number])):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


def pseudo_log_likelihoods(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, longest: int, batch_rows: int
) -> dict[str, Floats]:
    """Of each text, `within_word` and `plain`: [N] each. Texts with the same tokens get the same numbers exactly.

    `model` has a masked-language head and is in evaluation mode; rows have at most `longest` tokens. Raises ValueError
    as `encode_sentences`, and for a tokenizer without a mask.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("the tokenizer has no mask token: a pseudo-log-likelihood needs a masked language model")
    rows = MaskedRows(int(tokenizer.mask_token_id))
    sentences = encode_sentences(tokenizer, texts, longest)
    targets: dict[str, dict[EncodedSentence, list[int]]] = {"within_word": {}, "plain": {}}
    for sentence in dict.fromkeys(sentences):
        for name, own in targets.items():
            own[sentence] = rows.add(sentence, within_word=name == "within_word")
    log_probabilities = target_log_probabilities(model, rows, batch_rows)
    return {
        name: np.array([log_probabilities[own[sentence]].sum() for sentence in sentences])
        for name, own in targets.items()
    }


@torch.inference_mode()
def target_log_probabilities(model: Any, rows: MaskedRows, batch_rows: int) -> Floats:
    """The log-probability of every target [T]; the softmax is computed in fp32, the head at one position of a row."""
    run, device = family_of(model.config).logits, next(model.parameters()).device
    values = np.empty(len(rows.targets))
    of_row: dict[int, list[tuple[int, int]]] = {}
    for (row, token), target in rows.targets.items():
        of_row.setdefault(row, []).append((token, target))
    for batch in rows.batches(batch_rows):
        ids = torch.from_numpy(np.stack([rows.rows[number] for number in batch])).to(device)
        positions = torch.tensor([[rows.positions[number]] for number in batch], device=device)
        logits = run(model, {"input_ids": ids}, positions)[0][:, 0].float()  # [B, V]
        wanted = [(place, *own) for place, number in enumerate(batch) for own in of_row[number]]
        places, tokens, targets = torch.tensor(wanted).unbind(1)
        chosen = logits.log_softmax(-1)[places.to(device), tokens.to(device)]
        values[targets.numpy()] = chosen.double().cpu().numpy()
    return values
