"""Encoding of labelled texts into rows of token ids: truncation, targets, class weights, checks of ids and labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import PairTemplate, pair_template, token_ids
from finetuning.examples.recipe import Feature
from finetuning.recipes.texts.labelled_text import LabelledText
from runtime.files.schemas import listed, shown
from runtime.plurals import counted


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens that a tokenizer adds around a pair of texts, and after a single one."""

    pair: PairTemplate
    after_single: tuple[int, ...]

    @property
    def num_single(self) -> int:
        """Special tokens around one text."""
        return len(self.pair.prefix) + len(self.after_single)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Read the layout off encoded short texts, so that it is right for any model family."""
    single = tokenizer("a")
    places = single.sequence_ids(0)
    end = max(number for number, place in enumerate(places) if place == 0) + 1
    return SpecialTokens(pair_template(tokenizer), tuple(single["input_ids"][end:]))


def truncate(tokens: Sequence[int], length: int, how: str) -> list[int]:
    """At most `length` tokens: the first, the last, or the first quarter and the last three (Sun et al. 2019, 5.3.1).

    Sun et al. keep 128 + 382 of the 510 tokens of a BERT input: a quarter at the head.
    """
    if length < 0:
        raise ValueError(f"{length} tokens are left after the special tokens: raise --max_seq_length")
    if len(tokens) <= length:
        return list(tokens)
    head = {"head": length, "tail": 0, "head+tail": (length + 2) // 4}[how]
    tail = length - head
    return [*tokens[:head], *tokens[len(tokens) - tail :]]


def truncate_pair(first: Sequence[int], second: Sequence[int], length: int, how: str) -> tuple[list[int], list[int]]:
    """At most `length` tokens of both together, cutting the longer one first, as `longest_first` does."""
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


@dataclass(frozen=True)
class TextSettings:
    """Settings of the encoding into rows and of the head."""

    max_seq_length: int = 128
    truncation: str = "head"
    pooling: str | None = None  # None: the model family's default
    head_dropout: float | None = None  # None: the configuration's
    label_smoothing: float = 0.0
    balance_classes: bool = False  # give every class the same total weight in the loss


@dataclass
class EncodedText:
    """The rows of a split, and the number of texts that were too long."""

    features: list[Feature]
    num_overlong: int


def encode_split(
    source: str, examples: Sequence[LabelledText], labels: Sequence[str], tokenizer: Any, settings: TextSettings
) -> EncodedText:
    """One row per example, in order; without `labels` the targets are numbers.

    Raises ValueError, naming `source` and the example, for a label that is not among `labels` or is not a number.
    """
    special = special_tokens(tokenizer)
    weights = class_weights(examples) if settings.balance_classes and labels else {}
    class_of = {label: number for number, label in enumerate(labels)}
    features: list[Feature] = []
    num_overlong = 0
    first = token_ids(tokenizer, [example.text for example in examples])
    second = token_ids(tokenizer, [example.text_pair or "" for example in examples])
    for example, first_ids, second_ids in zip(examples, first, second, strict=True):
        pair = None if example.text_pair is None else second_ids
        ids, types = build_row(
            first_ids, pair, special, max_seq_length=settings.max_seq_length, how=settings.truncation
        )
        whole = len(first_ids) + (special.num_single if pair is None else len(second_ids) + special.pair.overhead)
        num_overlong += whole > len(ids)
        features.append(
            {
                "example_id": example.example_id,
                "input_ids": ids,
                "token_type_ids": types,
                "label": _target(example, class_of, source),
                "weight": weights.get(example.label, 1.0),
            }
        )
    return EncodedText(features, num_overlong)


def class_weights(examples: Sequence[LabelledText]) -> dict[str | None, float]:
    """Label -> weight, such that all classes have the same total weight and the mean weight of an example is 1."""
    counts = Counter(example.label for example in examples)
    return {label: len(examples) / (len(counts) * count) for label, count in counts.items()}


def by_id(examples: Sequence[LabelledText], source: str, remedy: str = "") -> dict[str, LabelledText]:
    """Examples by id; ValueError listing the first repeated ids, with `remedy` besides making them unique."""
    twice = [key for key, count in Counter(example.example_id for example in examples).items() if count > 1]
    if twice:
        raise ValueError(
            f"{source}: {counted(len(twice), 'id')} given more than once, the first: "
            f"{', '.join(twice[:5])}; make them unique{remedy}"
        )
    return {example.example_id: example for example in examples}


def is_labelled(examples: Mapping[str, LabelledText], split: str) -> bool:
    """True when all have labels, False when none has; ValueError for a mixture, whose score would mislead."""
    without = [key for key, example in examples.items() if example.label is None]
    if without and (len(without) < len(examples) or not split.startswith("test")):
        raise ValueError(
            f"{split}: {len(without)} of {len(examples)} examples have no label, the first: {without[0]}; "
            "label all (or remove those), or, in a test set, none"
        )
    return not without


def _target(example: LabelledText, class_of: Mapping[str, int], source: str) -> int | float:
    if example.label is None:
        return 0
    if not class_of:
        try:
            number = float(example.label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"{source}: example {shown(example.example_id)} has the label {shown(example.label)}; a regression "
                "needs a finite number"
            )
        return number
    if example.label not in class_of:
        raise ValueError(
            f"{source}: example {shown(example.example_id)} has the label {shown(example.label)}, which is not a class "
            f"of the head or of the training set ({listed(class_of)}); check the label column"
        )
    return class_of[example.label]
