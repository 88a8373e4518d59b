"""Which part of a long text stays, and the special tokens around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import PairTemplate, pair_template

TRUNCATIONS = ("head", "tail", "head+tail")


@dataclass(frozen=True)
class SpecialTokens:
    """What a tokenizer puts around a pair of texts, and behind a single one."""

    pair: PairTemplate
    after_single: tuple[int, ...]

    @property
    def num_single(self) -> int:
        """Special tokens around one text."""
        return len(self.pair.prefix) + len(self.after_single)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Read from what the tokenizer does to short texts, so that any family's layout is right."""
    single = tokenizer("a")
    places = single.sequence_ids(0)
    end = max(number for number, place in enumerate(places) if place == 0) + 1
    return SpecialTokens(pair_template(tokenizer), tuple(single["input_ids"][end:]))


def truncate(tokens: Sequence[int], length: int, how: str) -> list[int]:
    """At most `length` tokens: the first, the last, or the first quarter and the last three (Sun et al. 2019, 5.3.1).

    Sun et al. keep 128 + 382 of the 510 tokens of a BERT input: a quarter at the head.
    """
    if length < 0:
        raise ValueError(f"{length} tokens are left beside the special tokens: raise --max_seq_length")
    if len(tokens) <= length:
        return list(tokens)
    head = {"head": length, "tail": 0, "head+tail": (length + 2) // 4}[how]
    tail = length - head
    return [*tokens[:head], *tokens[len(tokens) - tail :]]


def truncate_pair(first: Sequence[int], second: Sequence[int], length: int, how: str) -> tuple[list[int], list[int]]:
    """At most `length` tokens of both together, taken from the longer one first, as `longest_first` does."""
    excess = max(0, len(first) + len(second) - length)
    longer, shorter = max(len(first), len(second)), min(len(first), len(second))
    from_longer = min(excess, longer - shorter)
    from_both = excess - from_longer
    cut_longer, cut_shorter = from_longer + from_both - from_both // 2, from_both // 2
    cuts = (cut_longer, cut_shorter) if len(first) >= len(second) else (cut_shorter, cut_longer)
    return truncate(first, len(first) - cuts[0], how), truncate(second, len(second) - cuts[1], how)


def build_row(
    first: Sequence[int], second: Sequence[int] | None, special: SpecialTokens, *, max_seq_length: int, how: str
) -> tuple[list[int], list[int]]:
    """(input ids, token types) of at most `max_seq_length` tokens, special tokens included."""
    if second is None:
        kept = truncate(first, max_seq_length - special.num_single, how)
        ids = [*special.pair.prefix, *kept, *special.after_single]
        return ids, [0] * len(ids)
    return special.pair.row(*truncate_pair(first, second, max_seq_length - special.pair.overhead, how))
