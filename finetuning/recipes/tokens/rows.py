"""Sentences as rows of token ids: a label on the first token of each word, overlapping windows over long sentences."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import CONTENT_BATCH
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.texts.rows import SpecialTokens, special_tokens
from finetuning.recipes.tokens.sentences import TaggedSentence

IGNORED = -100  # the label of a token that is not the first of its word, or whose word has no known tag


@dataclass(frozen=True)
class RowCounts:
    """Counts of what was encoded and what was left out."""

    sentences: int = 0
    words: int = 0
    rows: int = 0
    long_sentences: int = 0  # sentences of several windows
    without_words: int = 0  # sentences
    without_tokens: int = 0  # words that the tokenizer turns into nothing
    untagged_words: int = 0  # words without a tag in sentences that have others
    unseen_tags: int = 0  # words whose tag is not among the labels
    dropped: int = 0  # training rows without a label to learn


def encode_sentences(
    sentences: Sequence[TaggedSentence],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    windows: Windows,
    *,
    training: bool,
) -> tuple[list[dict[str, Any]], RowCounts]:
    """Rows of all sentences, and their counts; a word belongs to the one row in which it has most context.

    A row: example_id, window, input_ids, token_type_ids, labels (one per token), places (row positions of the first
    tokens of its words), words (their numbers in the sentence), weight (the number of labels). In training, rows
    without a label are left out; else every sentence has a row.
    """
    special, class_of = special_tokens(tokenizer), {label: number for number, label in enumerate(labels)}
    counts = dict.fromkeys(RowCounts.__dataclass_fields__, 0)
    rows: list[dict[str, Any]] = []
    for sentence, (ids, first_tokens) in zip(sentences, token_ids_of_words(tokenizer, sentences), strict=True):
        classes = [IGNORED if tag is None else class_of.get(tag, IGNORED) for tag in sentence.tags]
        own = _rows_of(sentence.id, ids, first_tokens, classes, special, windows)
        taught = [row for row in own if row["weight"]] if training else own
        counts["sentences"] += 1
        counts["words"] += len(sentence.words)
        counts["long_sentences"] += len(own) > 1
        counts["without_words"] += not sentence.words
        counts["without_tokens"] += len(sentence.words) - len(first_tokens)
        counts["untagged_words"] += sum(tag is None for tag in sentence.tags) if sentence.label is not None else 0
        counts["unseen_tags"] += sum(tag is not None and tag not in class_of for tag in sentence.tags)
        counts["dropped"] += len(own) - len(taught)
        rows.extend(taught)
    counts["rows"] = len(rows)
    return rows, RowCounts(**counts)


def token_ids_of_words(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[TaggedSentence]
) -> list[tuple[list[int], dict[int, int]]]:
    """Token ids of each sentence, and word number -> position of its first token; words without tokens are absent."""
    words_of_sentences: list[tuple[list[int], dict[int, int]]] = []
    for start in range(0, len(sentences), CONTENT_BATCH):
        batch = [list(sentence.words) for sentence in sentences[start : start + CONTENT_BATCH]]
        encoded = tokenizer(batch, is_split_into_words=True, add_special_tokens=False, verbose=False)
        for number, ids in enumerate(encoded["input_ids"]):
            first: dict[int, int] = {}
            for place, word in enumerate(encoded.word_ids(number)):
                if word is not None:
                    first.setdefault(word, place)
            words_of_sentences.append((ids, first))
    return words_of_sentences


def for_words(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that encodes a word as it stands within a text: byte-level tokenizers keep the blank before it."""
    tokenizer = copy.deepcopy(tokenizer)
    first: Any = tokenizer.backend_tokenizer.pre_tokenizer
    for step in (first, *_steps(first)):
        if getattr(step, "add_prefix_space", None) is False:
            step.add_prefix_space = True
    return tokenizer


def best_window(spans: Sequence[tuple[int, int]], place: int) -> int:
    """The span [start, end) in which a token has most context on its poorer side; of equal ones the first."""
    inside = [number for number, (start, end) in enumerate(spans) if start <= place < end]
    return max(inside, key=lambda number: min(place - spans[number][0], spans[number][1] - 1 - place))


def _steps(pre_tokenizer: Any) -> list[Any]:
    """The parts of a sequence of pre-tokenizers; none of any other."""
    steps: list[Any] = []
    try:
        while True:
            steps.append(pre_tokenizer[len(steps)])
    except (IndexError, TypeError):
        return steps


def _rows_of(
    name: str,
    ids: Sequence[int],
    first_tokens: Mapping[int, int],
    classes: Sequence[int],
    special: SpecialTokens,
    windows: Windows,
) -> list[dict[str, Any]]:
    front = len(special.pair.prefix)
    spans = list(windows.spans(len(ids), windows.max_seq_length - special.num_single))
    words: list[list[int]] = [[] for _ in spans]
    for word, place in first_tokens.items():
        words[0 if len(spans) == 1 else best_window(spans, place)].append(word)
    rows = []
    for window, ((start, end), own) in enumerate(zip(spans, words, strict=True)):
        input_ids = [*special.pair.prefix, *ids[start:end], *special.after_single]
        places = [front + first_tokens[word] - start for word in own]
        labels = [IGNORED] * len(input_ids)
        for word, place in zip(own, places, strict=True):
            labels[place] = classes[word]
        rows.append(
            {
                "example_id": name,
                "window": window,
                "input_ids": input_ids,
                "token_type_ids": [0] * len(input_ids),
                "labels": labels,
                "places": places,
                "words": own,
                "weight": sum(label != IGNORED for label in labels),
            }
        )
    return rows
