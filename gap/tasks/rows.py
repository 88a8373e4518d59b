"""A task's encoded rows per tokenizer, and views of them: fewer labels, a held-out part, shuffled labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetuning.examples.pair_template import row_limit
from finetuning.examples.recipe import EvaluationSet, Feature, Recipe
from gap.tasks.kinds.reading import ranked
from gap.tasks.kinds.task_data import RowOptions, TaskData
from runtime.plurals import counted

HELD_OUT_SHARE = 0.2  # of the training examples, for the search
SCORED, HELD_OUT = "test", "heldout"  # names of evaluation sets


def encode_task(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, options: RowOptions
) -> Recipe:
    """The recipe of a task with all its training rows and the scored set."""
    splits = {"train": list(data.train.values()), SCORED: list(data.scored.values())}
    return data.encode(splits, tokenizer, row_limit(options.max_seq_length, config), options)


def label_subset(data: TaskData, fraction: float) -> list[str]:
    """Ids of a share of the training examples; smaller shares are parts of larger ones."""
    if not 0 < fraction <= 1:
        raise ValueError(f"label fraction {fraction}: a share of the labels, above 0 and at most 1")
    return ranked(data.train, "labels")[: max(1, round(fraction * len(data.train)))]


def held_out(data: TaskData, ids: Collection[str], split: int = 0) -> set[str]:
    """About a fifth of these training examples, whole clusters (an article, a paragraph) at a time.

    Every number of a `split` draws others.
    """
    by_cluster: dict[str, list[str]] = {}
    for name in ids:
        by_cluster.setdefault(data.train_clusters[name], []).append(name)
    wanted, chosen = math.ceil(HELD_OUT_SHARE * len(ids)), set[str]()
    for cluster in ranked(by_cluster, f"heldout {split}" if split else "heldout"):
        if len(chosen) >= wanted:
            break
        chosen.update(by_cluster[cluster])
    if len(chosen) == len(ids):
        raise ValueError(
            f"task {data.spec.name}: {len(ids)} training examples in {counted(len(by_cluster), data.grouping)} leave "
            "nothing to hold out: give more examples, or only one learning rate"
        )
    return chosen


def search_view(data: TaskData, recipe: Recipe, ids: Collection[str], split: int = 0) -> Recipe:
    """Train on the rest of these training examples, evaluate on the held-out part and on the scored set."""
    out = held_out(data, ids, split)
    train = [row for row in recipe.train_features if row["example_id"] in ids and row["example_id"] not in out]
    rows = [row for row in recipe.train_features if row["example_id"] in out]
    examples = {row["example_id"]: data.train[row["example_id"]] for row in rows}
    return _view(recipe, train, {HELD_OUT: EvaluationSet(rows, examples), SCORED: recipe.evaluation_sets[SCORED]})


def cell_view(data: TaskData, recipe: Recipe, ids: Collection[str], *, shuffle_seed: int | None = None) -> Recipe:
    """Train on all of these training examples (with shuffled labels if asked for), evaluate on the scored set."""
    train = [row for row in recipe.train_features if row["example_id"] in ids]
    if shuffle_seed is not None:
        train = data.shuffled(train, np.random.default_rng(shuffle_seed))
    return _view(recipe, train, {SCORED: recipe.evaluation_sets[SCORED]})


def _view(recipe: Recipe, train: Sequence[Feature], evaluation_sets: dict[str, EvaluationSet]) -> Recipe:
    view: Any = copy.copy(recipe)
    view.train_features, view.evaluation_sets = list(train), evaluation_sets
    return view
