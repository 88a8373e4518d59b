"""Multiple-choice tasks, with the recipe of `finetuning/multiple_choice.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.examples.recipe import Feature
from finetuning.examples.unlabelled import labelled_only
from finetuning.recipes.choices.choice_files import ChoiceQuestion, choices_from_rows, has_labels, read_choices
from finetuning.recipes.choices.recipe import ChoiceRecipe
from gap.tasks.kinds.certainty import certainty
from gap.tasks.kinds.dataset_tasks import known_splits
from gap.tasks.kinds.reading import Splits, read_place, text_digest, training_and_scored
from gap.tasks.kinds.task_data import ReadingOptions, Record, RowOptions, TaskData, TaskSpec


@dataclass(frozen=True)
class ChoiceData(TaskData):
    """A `multiple_choice` task; its examples are `finetuning.recipes.choices.choice_files.ChoiceQuestion`."""

    small_world_examples: ClassVar[int | None] = 400  # extractive QA is the main task of the small world

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """Read files in any layout of the recipe."""

        def load() -> Splits:
            rows = known_splits(spec)
            return {split: choices_from_rows(rows[split], f"{spec.place} {split}") for split in rows}

        fields = training_and_scored(
            spec,
            labelled_only(read_place(spec, read_choices, load), f"task {spec.name}"),
            options,
            key=lambda question: question.id,
            cluster=_cluster,
            labelled=has_labels,
        )
        return cls(spec, "accuracy", **fields)

    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> ChoiceRecipe:
        """One row of texts per choice."""
        return ChoiceRecipe(splits, tokenizer, max_seq_length=longest)

    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """Right or wrong, with the probabilities of the model's choice and of the right one."""
        return {
            "score": float(prediction["choice"] == example.label),
            **certainty(prediction["logits"], example.label),
            "label": example.names[example.label],
            "prediction": prediction["name"],
        }

    @property
    def grouping(self) -> str:
        """Article if every scored question has one."""
        return "article" if all(question.article is not None for question in self.scored.values()) else "passage"

    def text_key(self, example: Any, cluster: str) -> str:
        """The passage: of one article others may be in training."""
        return _passage(example)

    def passage(self, example: Any) -> str:
        """The paragraph that all choices share, else the text before each choice."""
        return example.firsts[0] if len(set(example.firsts)) == 1 else "\n".join(example.firsts)

    def text_fields(self, example: Any) -> list[str]:
        """The text that all choices share, and the choices; else each choice behind the text before it."""
        if len(set(example.firsts)) == 1:
            return [example.firsts[0], *example.seconds]
        return self.row_texts(example)

    def row_texts(self, example: Any) -> list[str]:
        """Each choice with the text before it."""
        return [f"{first} {second}" for first, second in zip(example.firsts, example.seconds, strict=True)]

    def shuffled(self, rows: Sequence[Feature], random: np.random.Generator) -> list[Feature]:
        """Labels permuted; a label of another question is folded into the number of choices of this one."""
        return [
            row if row["label"] is None else {**row, "label": row["label"] % len(row["input_ids"])}
            for row in super().shuffled(rows, random)
        ]


def _cluster(question: ChoiceQuestion) -> str:
    return _passage(question) if question.article is None else text_digest(f"article\n{question.article}")


def _passage(question: ChoiceQuestion) -> str:
    """Questions on one paragraph belong together; a question without one stands alone."""
    same = len(set(question.firsts)) == 1 and len(question.firsts[0]) > 0
    texts = "\n".join(question.firsts if same else (*question.firsts, *question.seconds))
    return text_digest(texts if same else f"{texts}\n{question.id}")
