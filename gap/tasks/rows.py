"""A task encoded once for a tokenizer, and cheap views of it: fewer labels, a held-out part, shuffled labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetuning.choices.recipe import ChoiceRecipe
from finetuning.examples.pair_template import row_limit
from finetuning.examples.recipe import EvaluationSet, Feature, Recipe
from finetuning.questions.metrics import is_chinese
from finetuning.questions.recipe import QARecipe, QASettings
from finetuning.questions.spans import SpanLimits
from finetuning.questions.windows import Windows
from finetuning.texts.recipe import TextRecipe
from finetuning.texts.rows import TextSettings
from gap.tasks.specification import TaskData, ranked

HELD_OUT_SHARE = 0.2  # of the training examples, for the search
SCORED, HELD_OUT = "test", "heldout"  # names of evaluation sets


@dataclass(frozen=True)
class RowOptions:
    """How examples become rows."""

    max_seq_length: int = 384
    doc_stride: int = 128
    pooling: str = "cls"
    max_answer_length: int = 30  # tokens


def encode_task(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, options: RowOptions
) -> Recipe:
    """The recipe of a task with all of its training rows and the scored set."""
    limit = row_limit(options.max_seq_length, config)
    splits: dict[str, Any] = {"train": list(data.train.values()), SCORED: list(data.scored.values())}
    if data.spec.kind == "qa":
        answers = [answer.text for question in data.scored.values() for answer in question.answers]
        settings = QASettings(
            windows=Windows(limit, options.doc_stride),
            limits=SpanLimits(max_answer_length=options.max_answer_length),
            version_2=data.version_2,
            language="zh" if is_chinese(answers) else "en",
        )
        return QARecipe(splits, tokenizer, settings, metric="exact_match")
    if data.spec.kind == "multiple_choice":
        return ChoiceRecipe(splits, tokenizer, max_seq_length=limit)
    return TextRecipe(
        data.spec.name,
        labels=data.labels,
        splits=splits,
        tokenizer=tokenizer,
        settings=TextSettings(max_seq_length=limit, pooling=options.pooling),
        metrics=data.glue.metrics if data.glue is not None else ("accuracy",),
        task=data.glue,
    )


def label_subset(data: TaskData, fraction: float) -> list[str]:
    """Ids of a share of the training examples; smaller shares are parts of larger ones."""
    if not 0 < fraction <= 1:
        raise ValueError(f"label fraction {fraction}: a share of the labels, above 0 and at most 1")
    return ranked(data.train, "labels")[: max(1, round(fraction * len(data.train)))]


def held_out(data: TaskData, ids: Collection[str]) -> set[str]:
    """About a fifth of these training examples, whole paragraphs (or copies of a text) at a time."""
    by_cluster: dict[str, list[str]] = {}
    for name in ids:
        by_cluster.setdefault(data.train_clusters[name], []).append(name)
    wanted, found = math.ceil(HELD_OUT_SHARE * len(ids)), set[str]()
    for cluster in ranked(by_cluster, "heldout"):
        if len(found) >= wanted:
            break
        found.update(by_cluster[cluster])
    if len(found) == len(ids):
        raise ValueError(
            f"task {data.spec.name}: {len(ids)} training examples on {len(by_cluster)} texts leave nothing to hold "
            "out: give more, or one learning rate only"
        )
    return found


def search_view(data: TaskData, recipe: Recipe, ids: Collection[str]) -> Recipe:
    """Train on the rest of these training examples, evaluate on the held-out part and on the scored set."""
    out = held_out(data, ids)
    train = [row for row in recipe.train_features if row["example_id"] in ids and row["example_id"] not in out]
    rows = [row for row in recipe.train_features if row["example_id"] in out]
    examples = {row["example_id"]: data.train[row["example_id"]] for row in rows}
    return _view(recipe, train, {HELD_OUT: EvaluationSet(rows, examples), SCORED: recipe.evaluation_sets[SCORED]})


def cell_view(recipe: Recipe, ids: Collection[str], *, shuffle_seed: int | None = None) -> Recipe:
    """Train on all of these training examples (with shuffled labels if asked for), evaluate on the scored set."""
    train = [row for row in recipe.train_features if row["example_id"] in ids]
    if shuffle_seed is not None:
        train = shuffled(train, shuffle_seed)
    return _view(recipe, train, {SCORED: recipe.evaluation_sets[SCORED]})


def shuffled(rows: Sequence[Feature], seed: int) -> list[Feature]:
    """The same rows with labels that mean nothing: permuted, or for spans moved to a random place of the context."""
    random = np.random.default_rng(seed)
    if "start_position" not in rows[0]:
        order = random.permutation(len(rows))
        return [{**row, "label": _fitting(rows[j]["label"], row)} for row, j in zip(rows, order, strict=True)]
    moved: list[Feature] = []
    for row in rows:
        length = row["end_position"] - row["start_position"]
        start = row["context_start"] + int(random.integers(max(1, len(row["offsets"]) - length)))
        placed = row["end_position"] > 0
        moved.append({**row, "start_position": start, "end_position": start + length} if placed else row)
    return moved


def _fitting(label: Any, row: Feature) -> Any:
    """A label of another question, folded into the choices that this one has."""
    several = isinstance(row["input_ids"][0], list)
    return label % len(row["input_ids"]) if several and label is not None else label


def _view(recipe: Recipe, train: Sequence[Feature], evaluation_sets: dict[str, EvaluationSet]) -> Recipe:
    view: Any = copy.copy(recipe)
    view.train_features, view.evaluation_sets = list(train), evaluation_sets
    return view
