"""Extractive question-answering tasks, with the recipe of `finetuning/qa.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.examples.recipe import Feature
from finetuning.recipes.questions.metrics import (
    best_of,
    chinese_exact_match,
    chinese_f1_version_2,
    exact_match,
    f1_version_2,
    is_chinese,
)
from finetuning.recipes.questions.recipe import QARecipe, QASettings
from finetuning.recipes.questions.spans import SpanLimits, probabilities
from finetuning.recipes.questions.squad import (
    Question,
    check_answers,
    place_answers,
    questions_from_rows,
    read_questions,
)
from finetuning.recipes.questions.windows import Windows
from gap.tasks.kinds.certainty import finite
from gap.tasks.kinds.dataset_tasks import known_splits
from gap.tasks.kinds.reading import Splits, read_place, training_and_scored
from gap.tasks.kinds.task_data import ReadingOptions, Record, RowOptions, TaskData, TaskSpec


@dataclass(frozen=True)
class QuestionData(TaskData):
    """A `qa` task; its examples are `finetuning.recipes.questions.squad.Question`, scored by exact match.

    Articles are clusters where the file names several, else paragraphs.
    """

    version_2: bool  # questions without an answer

    windowed: ClassVar[bool] = True

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """Read SQuAD files and similar ones; a set in which some questions have no answer is of version 2."""

        def load() -> Splits:
            rows = known_splits(spec)
            return {split: questions_from_rows(rows[split], f"{spec.place} {split}") for split in rows}

        splits: Mapping[str, Sequence[Question]] = read_place(spec, read_questions, load)
        empty = {name: sum(not question.answers for question in questions) for name, questions in splits.items()}
        version_2 = any(0 < count < len(splits[name]) for name, count in empty.items())
        fields = training_and_scored(
            spec,
            {name: place_answers(questions)[0] for name, questions in splits.items()},
            options,
            key=lambda question: question.id,
            cluster=lambda question: question.group,
            labelled=lambda questions, name: check_answers(questions, version_2=version_2, where=name),
        )
        return cls(spec, "exact_match", version_2=version_2, **fields)

    @cached_property
    def chinese(self) -> bool:
        """Whether answers are compared as CMRC 2018 does."""
        return is_chinese([answer.text for question in self.scored.values() for answer in question.answers])

    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> QARecipe:
        """One row per window of the paragraph."""
        settings = QASettings(
            windows=Windows(longest, options.doc_stride),
            limits=SpanLimits(max_answer_length=options.max_answer_length),
            version_2=self.version_2,
            language="zh" if self.chinese else "en",
        )
        return QARecipe(splits, tokenizer, settings, metric=self.metric)

    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """Exact match and F1 of the answer; its share among the best spans (in version 2 "no answer" is one of them)
        is the confidence, and the gold answer's log-probability is the recipe's."""
        text = prediction["text"]
        gold = [answer.text for answer in example.answers] or [""]
        return {
            "score": best_of(chinese_exact_match if self.chinese else exact_match, text, gold),
            "f1": best_of(chinese_f1_version_2 if self.chinese else f1_version_2, text, gold),
            **finite(
                confidence=self._confidence(prediction),
                gold_log_probability=prediction["gold_log_probability"],
            ),
            "prediction": text,
        }

    def _confidence(self, prediction: Mapping[str, Any]) -> float:
        candidates = prediction["nbest"]
        if not candidates:
            return 1.0
        scores = [candidate.score for candidate in candidates]
        if not self.version_2:
            return probabilities(scores)[0]
        is_none = prediction["text"] == "" != prediction["best_text"]
        return probabilities([*scores, prediction["null_score"]])[-1 if is_none else 0]

    def metrics(self, scores: Mapping[str, float], records: Sequence[Record]) -> dict[str, float]:
        """The loss, and exact match and F1 as shares of 1, which the recipe gives in percent."""
        means = {name: float(np.mean([record[key] for record in records])) for name, key in _MEANS.items()}
        return {**({"loss": scores["loss"]} if "loss" in scores else {}), **means}

    @property
    def grouping(self) -> str:
        """Article if every scored question has one."""
        return "article" if all(question.article is not None for question in self.scored.values()) else "paragraph"

    def text_key(self, example: Any, cluster: str) -> str:
        """The paragraph: of one article others may be in training."""
        return str(example.paragraph)

    def passage(self, example: Any) -> str:
        """The paragraph."""
        return example.context

    def text_fields(self, example: Any) -> list[str]:
        """Paragraph and question."""
        return [example.context, example.question]

    def row_texts(self, example: Any) -> list[str]:
        """Question and paragraph."""
        return [f"{example.question} {example.context}"]

    def shuffled(self, rows: Sequence[Feature], random: np.random.Generator) -> list[Feature]:
        """The same rows, every answer moved to a random place in its row's part of the paragraph."""
        moved: list[Feature] = []
        for row in rows:
            length = row["end_position"] - row["start_position"]
            start = row["context_start"] + int(random.integers(max(1, len(row["offsets"]) - length)))
            placed = row["end_position"] > 0
            moved.append({**row, "start_position": start, "end_position": start + length} if placed else row)
        return moved


_MEANS = {"exact_match": "score", "f1": "f1"}  # metric -> key of a record
