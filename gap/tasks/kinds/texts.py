"""Classification and regression tasks, with the recipes of `finetuning/glue.py` and `finetuning/classification.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import PreTrainedTokenizerBase

from finetuning.examples.unlabelled import labelled_only
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, GlueTask, read_glue
from finetuning.recipes.texts.labelled_folders import is_archive
from finetuning.recipes.texts.labelled_text import (
    LabelledText,
    content_key,
    from_records,
    label_names,
    read_examples,
    read_splits,
    shared_text,
)
from finetuning.recipes.texts.recipe import OFFICIAL_NAMES, TextRecipe
from finetuning.recipes.texts.rows import TextSettings
from gap.tasks.kinds.certainty import certainty
from gap.tasks.kinds.dataset_tasks import all_splits, glue_splits
from gap.tasks.kinds.reading import Splits, read_place, text_digest, training_and_scored
from gap.tasks.kinds.task_data import ReadingOptions, Record, RowOptions, TaskData, TaskSpec

GLUE_METRICS = {"cola": "matthews", "stsb": "spearman", "mrpc": "f1", "qqp": "f1"}


@dataclass(frozen=True)
class TextData(TaskData):
    """A task whose examples are `finetuning.recipes.texts.labelled_text.LabelledText`."""

    labels: tuple[str, ...]  # empty: regression
    glue: GlueTask | None = None

    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> TextRecipe:
        """One row per example."""
        return TextRecipe(
            self.spec.name,
            labels=self.labels,
            splits=splits,
            tokenizer=tokenizer,
            settings=TextSettings(max_seq_length=longest, pooling=options.pooling),
            metrics=self.glue.metrics if self.glue is not None else ("accuracy",),
            task=self.glue,
        )

    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """Right or wrong, and the model's probabilities; of a regression how near the value is, as a share of the range
        of the labels."""
        if self.labels:
            return {
                "score": float(prediction["label"] == example.label),
                **certainty(prediction["logits"], self.labels.index(example.label)),
                "label": example.label,
                "prediction": prediction["label"],
            }
        low, high = (self.glue.score_range if self.glue is not None else None) or (0.0, 1.0)
        label, value = float(example.label), float(prediction["value"])
        value = value if math.isfinite(value) else low
        return {"score": max(0.0, 1.0 - abs(label - value) / (high - low)), "label": label, "prediction": value}

    def metrics(self, scores: Mapping[str, float], records: Sequence[Record]) -> dict[str, float]:
        """The recipe's scores; a correlation also under the report's name for it."""
        official = OFFICIAL_NAMES.get(self.metric)
        return {**scores, **({} if official is None else {self.metric: scores[official]})}

    def text_key(self, example: Any, cluster: str) -> str:
        """The text, or both: two pairs may share one of theirs."""
        return text_digest(content_key(example))

    def passage(self, example: Any) -> str:
        """The text, or both."""
        return example.text if example.text_pair is None else f"{example.text}\n{example.text_pair}"

    def text_fields(self, example: Any) -> list[str]:
        """The text, or both."""
        return [example.text] if example.text_pair is None else [example.text, example.text_pair]

    def row_texts(self, example: Any) -> list[str]:
        """The text, or both, in one row."""
        return [f"{example.text} {example.text_pair or ''}"]


@dataclass(frozen=True)
class GlueData(TextData):
    """A `glue` task: one of GLUE's nine, scored by its official metric on its validation set."""

    places: ClassVar[Collection[str] | None] = tuple(GLUE_TASKS)
    in_small_world: ClassVar[bool] = False

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """GLUE's files in --data_dir, or the hub's set of all tasks."""
        task = GLUE_TASKS[spec.place]
        splits = read_glue(task, options.data_dir) if options.data_dir is not None else glue_splits(task)
        fields = _fields(spec, {name: splits[name] for name in ("train", "validation")}, options)
        metric = GLUE_METRICS.get(task.name, "accuracy")
        return cls(spec, metric, labels=tuple(task.labels), glue=task, **fields)


@dataclass(frozen=True)
class ClassificationData(TextData):
    """A `classification` task: texts with a class, from any file, folder, archive or data set; scored by accuracy."""

    @classmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """Files of records, or folders and archives with one folder per class."""

        def load() -> Splits:
            rows = all_splits(spec)
            return {split: from_records(rows[split], source=f"{spec.place} {split}") for split in rows}

        place = Path(spec.place)
        splits: Splits
        if is_archive(place) or (place.is_dir() and not (place / "dataset_dict.json").is_file()):
            splits = {name: list(examples) for name, examples in read_splits(place).items()}
            if len(splits) == 1:
                splits = {"all": next(iter(splits.values()))}
        else:
            splits = read_place(spec, read_examples, load)
        labels = tuple(label_names(splits.get("train") or splits["all"]))
        if len(labels) < 2:
            raise ValueError(f"task {spec.name}: its labels are {labels}; two or more are needed")
        return cls(spec, "accuracy", labels=labels, **_fields(spec, splits, options))


def _fields(spec: TaskSpec, splits: Mapping[str, Sequence[LabelledText]], options: ReadingOptions) -> dict[str, Any]:
    """Pairs with a premise or a passage in common are a cluster."""
    shared = shared_text(example for examples in splits.values() for example in examples)
    return training_and_scored(
        spec,
        labelled_only(splits, f"task {spec.name}"),
        options,
        key=lambda example: example.example_id,
        cluster=lambda example: text_digest(shared(example)),
        labelled=lambda examples, name: all(example.label is not None for example in examples),
    )
