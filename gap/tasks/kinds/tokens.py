"""A tag for every word of a sentence: the recipe of `finetuning/token_classification.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.examples.recipe import Feature
from finetuning.examples.unlabelled import labelled_only
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.tokens.metrics import entity_counts, scheme_of
from finetuning.recipes.tokens.recipe import TokenRecipe, tagged_words
from finetuning.recipes.tokens.rows import IGNORED, for_words
from finetuning.recipes.tokens.sentences import TaggedSentence, dataset_splits, has_tags, tag_names
from finetuning.recipes.tokens.tagged_files import is_tagged_file, read_tagged
from gap.tasks.kinds.certainty import finite
from gap.tasks.kinds.dataset_tasks import all_splits
from gap.tasks.kinds.reading import Splits, read_place, text_digest, training_and_scored
from gap.tasks.kinds.task_data import ReadingOptions, Record, RowOptions, TaskData, TaskSpec


@dataclass(frozen=True)
class TokenData(TaskData):
    """A `tokens` task; its examples are `finetuning.recipes.tokens.sentences.TaggedSentence`.

    It is scored by the F1 of entities where the tags mark any, else by accuracy over words; both are recomputed from
    the counts of the sentences. Documents are clusters where the file names them, else sentences with the same text.
    """

    labels: tuple[str, ...]  # the most frequent first

    windowed: ClassVar[bool] = True
    in_small_world: ClassVar[bool] = False

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """Files in any format that the recipe reads; of CoNLL-U the column upos."""

        def load() -> Splits:
            rows = all_splits(spec)
            return {**dataset_splits(rows, f"task {spec.name}: {spec.place}")}

        splits: Splits = read_place(spec, read_tagged, load, is_data=is_tagged_file)
        fields = training_and_scored(
            spec,
            labelled_only(splits, f"task {spec.name}"),
            options,
            key=lambda sentence: sentence.id,
            cluster=_cluster,
            labelled=has_tags,
        )
        labels = tuple(tag_names(fields["train"].values()))
        if len(labels) < 2:
            raise ValueError(f"task {spec.name}: its tags are {labels}; two or more are needed")
        return cls(spec, "accuracy" if scheme_of(labels) is None else "f1", labels=labels, **fields)

    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> TokenRecipe:
        """One row per window of the sentence."""
        windows = Windows(longest, options.doc_stride)
        return TokenRecipe(splits, for_words(tokenizer), windows, labels=self.labels)

    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """Counts of words and correct words; with entities also of those correct, predicted and in the reference.

        The log-probability is the sum over the rated words: those that have a token and a tag that the head knows.
        """
        gold, guessed = tagged_words(example, prediction["tags"])
        correct = sum(true == guess for true, guess in zip(gold, guessed, strict=True))
        record: Record = {"score": correct / max(1, len(gold)), "correct": correct, "words": len(gold)}
        record |= self._certainty(example, prediction)
        if self.metric != "f1":
            return record
        counts = entity_counts(gold, guessed)
        both = counts["predicted_entities"] + counts["gold_entities"]
        return {**record, **counts, "score": 2 * counts["true_positives"] / both if both else 1.0}

    def _certainty(self, example: Any, prediction: Mapping[str, Any]) -> dict[str, float]:
        """The rated words of a sentence: their number, how many are right, and what the model knew of them.

        Of a word with the probability p for the tag it gets, `overconfidence` sums p - right, `squared_error` the
        square of that.
        """
        words = zip(example.tags, prediction["tags"], prediction["probabilities"], strict=True)
        rated = [(true == guess, sure) for true, guess, sure in words if true in self.labels and sure is not None]
        return {
            "rated_words": len(rated),
            **finite(
                gold_log_probability=-math.fsum(prediction["losses"]),
                overconfidence=math.fsum(sure - right for right, sure in rated),
                squared_error=math.fsum((sure - right) ** 2 for right, sure in rated),
            ),
        }

    @property
    def grouping(self) -> str:
        """Document if every scored sentence has one."""
        return "document" if all(sentence.document is not None for sentence in self.scored.values()) else "sentence"

    def text_key(self, example: Any, cluster: str) -> str:
        """The sentence itself: documents of any names may share sentences."""
        return text_digest(example.text)

    def passage(self, example: Any) -> str:
        """The words of the sentence."""
        return example.text

    def row_texts(self, example: Any) -> list[str]:
        """The words of the sentence, in one row."""
        return [example.text]

    def shuffled(self, rows: Sequence[Feature], random: np.random.Generator) -> list[Feature]:
        """The labels of all words permuted."""
        labels = [label for row in rows for label in row["labels"] if label != IGNORED]
        drawn = iter([labels[number] for number in random.permutation(len(labels))])
        return [{**row, "labels": _replaced(row["labels"], drawn)} for row in rows]


def _replaced(labels: Iterable[int], drawn: Any) -> list[int]:
    return [label if label == IGNORED else next(drawn) for label in labels]


def _cluster(sentence: TaggedSentence) -> str:
    return text_digest(sentence.text) if sentence.document is None else text_digest(f"document\n{sentence.document}")
