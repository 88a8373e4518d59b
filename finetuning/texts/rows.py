"""Labelled texts as rows of token ids: truncation, targets, class weights, and checks of ids and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.examples.pair_template import token_ids
from finetuning.examples.recipe import Feature
from finetuning.texts.labelled_text import LabelledText
from finetuning.texts.truncation import build_row, special_tokens


@dataclass(frozen=True)
class TextSettings:
    """How texts become rows and rows become logits."""

    max_seq_length: int = 128
    truncation: str = "head"
    pooling: str | None = None  # None: the family's own
    head_dropout: float | None = None  # None: that of the configuration
    label_smoothing: float = 0.0
    balance_classes: bool = False  # weigh every class alike in the loss, however rare


@dataclass
class EncodedText:
    """Rows of a split, and how many of its texts were too long."""

    features: list[Feature]
    num_overlong: int


def encode_split(
    source: str, examples: Sequence[LabelledText], labels: Sequence[str], tokenizer: Any, settings: TextSettings
) -> EncodedText:
    """One row an example, in order; without `labels` the targets are numbers.

    Raises ValueError, naming `source` and the example, for a label that is not among `labels`, or is no number.
    """
    special = special_tokens(tokenizer)
    weights = class_weights(examples) if settings.balance_classes and labels else {}
    class_of = {label: number for number, label in enumerate(labels)}
    features: list[Feature] = []
    num_overlong = 0
    first = token_ids(tokenizer, [example.text for example in examples])
    second = token_ids(tokenizer, [example.text_pair or "" for example in examples])
    for example, one, two in zip(examples, first, second, strict=True):
        pair = None if example.text_pair is None else two
        ids, types = build_row(one, pair, special, max_seq_length=settings.max_seq_length, how=settings.truncation)
        whole = len(one) + (special.num_single if pair is None else len(two) + special.pair.overhead)
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
    """Label -> weight, such that every class weighs the same in all and the mean weight of an example is 1."""
    counts = Counter(example.label for example in examples)
    return {label: len(examples) / (len(counts) * count) for label, count in counts.items()}


def by_id(examples: Sequence[LabelledText], source: str, remedy: str = "") -> dict[str, LabelledText]:
    """Examples by id; ValueError listing the first ids that come twice, and what else than making them unique helps."""
    twice = [key for key, count in Counter(example.example_id for example in examples).items() if count > 1]
    if twice:
        raise ValueError(
            f"{source}: {len(twice)} ids come more than once, the first: {', '.join(twice[:5])}; make them unique"
            f"{remedy}"
        )
    return {example.example_id: example for example in examples}


def is_labelled(examples: Mapping[str, LabelledText], split: str) -> bool:
    """True when all have labels, False when none has; ValueError for a mixture, whose score would mislead."""
    without = [key for key, example in examples.items() if example.label is None]
    if without and (len(without) < len(examples) or not split.startswith("test")):
        raise ValueError(
            f"{split}: {len(without)} of {len(examples)} examples have no label, the first: {without[0]}; "
            "label all (or take those out), or none of a test set"
        )
    return not without


def _target(example: LabelledText, class_of: Mapping[str, int], source: str) -> int | float:
    if example.label is None:
        return 0
    if not class_of:
        try:
            return float(example.label)
        except ValueError as error:
            raise ValueError(
                f"{source}: example {example.example_id} has the label {example.label!r}; a regression needs a number"
            ) from error
    if example.label not in class_of:
        raise ValueError(
            f"{source}: example {example.example_id} has the label {example.label!r}, which the head or the training "
            f"set has not ({', '.join(class_of)}); check the label column"
        )
    return class_of[example.label]
