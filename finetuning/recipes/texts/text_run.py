"""The shared part of GLUE and classification: training, scoring and plots of a task's seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.examples.dataset_records import subset
from finetuning.examples.label_cells import read_label
from finetuning.examples.pair_template import row_limit
from finetuning.examples.preflight import note_row_limit
from finetuning.examples.unknown_share import note_unknown_share
from finetuning.examples.unlabelled import drop_unlabelled, note_unlabelled
from finetuning.loop.result import Result
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.model.heads import CLASSIFICATION
from finetuning.recipes.options.texts import TextOptions
from finetuning.recipes.texts.glue_tasks import GlueTask
from finetuning.recipes.texts.inspection import inspect_texts
from finetuning.recipes.texts.labelled_text import LabelledText
from finetuning.recipes.texts.metrics import expected_calibration_error, reliability
from finetuning.recipes.texts.recipe import OFFICIAL_NAMES, TextRecipe
from finetuning.recipes.texts.rows import TextSettings
from finetuning.run.command import Prepared, run_recipe
from finetuning.run.figures import draw_reliability
from finetuning.run.saved_model import has_names
from finetuning.run.seed_runs import run_seeds
from finetuning.run.starting_point import StartingPoint
from runtime.processes.ranks import Ranks


@dataclass(frozen=True)
class TextTask:
    """Examples by split, and the classes to predict."""

    name: str
    labels: Sequence[str]
    splits: Mapping[str, Sequence[LabelledText]]
    metrics: Sequence[str]
    glue: GlueTask | None = None


def run_task(
    task: TextTask, options: TextOptions, start: StartingPoint, directory: Path, ranks: Ranks, asked: Asked
) -> list[dict[str, Any]]:
    """Train and score every seed (a finished one is read, not run again); every rank calls it.

    Returns the content of each seed's all_results.json. Files go to `directory`, or to its seed-N with several seeds.
    """
    head = saved_head(options, start)
    options = replace(options, pooling=options.pooling or head.get("pooling"))
    if saved_labels(head):
        task = replace(task, labels=in_order_of(saved_labels(head), task.labels, start.name))
    labelled = drop_unlabelled(task.splits)
    recipe = build_recipe(replace(task, splits=labelled), options, start)
    preflight = inspect_texts(recipe)
    note_unknown_share(preflight, start.tokenizer, texts_of(recipe))
    note_unlabelled(preflight, task.splits, labelled)
    note_row_limit(preflight, options.max_seq_length, recipe.settings.max_seq_length)
    preflight.refuse_if(strict=options.strict)
    prepared = Prepared(start, recipe, preflight)

    def run_seed(seed_options: TextOptions) -> dict[str, Any]:
        finish = partial(draw, recipe, directory=Path(str(seed_options.output_dir)))
        return run_recipe(seed_options, lambda: prepared, ranks, asked=asked, finish=finish).results

    return run_seeds(options, directory, task.name, run_seed, ranks)


def saved_head(options: TextOptions, start: StartingPoint) -> Mapping[str, Any]:
    """The description of the head that will be loaded; empty if a new one is trained."""
    if makes_updates(options) or options.from_scratch:
        return {}
    facts = start.head or {}
    return facts if facts.get("task") == CLASSIFICATION else {}


def saved_labels(head: Mapping[str, Any]) -> list[str]:
    """The classes of a saved head under the data readers' names ("1.0" is "1"), in the order of its outputs.

    Unnamed classes (LABEL_0, LABEL_1, ...) are called by their numbers.
    """
    labels = head.get("labels", ())
    if not has_names(labels):
        return [str(number) for number in range(len(labels))]
    return [read_label(name, "the saved head") or name for name in labels]


def in_order_of(saved: Sequence[str], labels: Sequence[str], source: str) -> Sequence[str]:
    """The task's classes in the order of the saved head's outputs; unchanged if the head has only numbers.

    Raises ValueError if the head was made for other classes.
    """
    if list(saved) == [str(number) for number in range(len(labels))]:
        return labels
    by_name = {label.casefold(): label for label in labels}
    if sorted(by_name) != sorted(label.casefold() for label in saved):
        raise ValueError(
            f"{source} was made for the classes {', '.join(saved)}, the task has {', '.join(labels) or 'numbers'}: "
            "name a model of this task, or train (--num_train_epochs above 0)"
        )
    return tuple(by_name[label.casefold()] for label in saved)


def texts_of(recipe: TextRecipe) -> dict[str, list[str]]:
    """The texts of each split, a pair joined into one."""
    return {
        split: [
            example.text if example.text_pair is None else f"{example.text}\n{example.text_pair}"
            for example in examples.values()
        ]
        for split, examples in recipe.examples.items()
        if examples
    }


def build_recipe(task: TextTask, options: TextOptions, start: StartingPoint) -> TextRecipe:
    """Tokenise the examples (at most --max_train_samples and --max_eval_samples of a split)."""
    limits = {"train": options.max_train_samples}
    splits = {
        split: subset(examples, limits.get(split, options.max_eval_samples), lambda example: example.example_id)
        for split, examples in task.splits.items()
    }
    return TextRecipe(
        task.name,
        labels=task.labels,
        splits=splits,
        tokenizer=start.tokenizer,
        settings=settings_of(options, row_limit(options.max_seq_length, start.config)),
        metrics=task.metrics,
        task=task.glue,
    )


def settings_of(options: TextOptions, longest: int) -> TextSettings:
    """The options that turn texts into rows, with rows of at most `longest` tokens."""
    return TextSettings(
        max_seq_length=longest,
        truncation=options.truncation,
        pooling=options.pooling,
        head_dropout=options.head_dropout,
        label_smoothing=options.label_smoothing,
        balance_classes=options.balance_classes,
    )


def draw(recipe: TextRecipe, result: Result, directory: Path) -> None:
    """A reliability diagram of every labelled set of classes."""
    for split, evaluation_set in recipe.evaluation_sets.items():
        if recipe.is_regression or not evaluation_set.labelled:
            continue
        logits = np.array([result.predictions[split][key]["logits"] for key in evaluation_set.examples])
        labels = [recipe.class_of[example.label] for example in evaluation_set.examples.values()]
        if np.isfinite(logits).all():
            bins, error = reliability(logits, labels), expected_calibration_error(logits, labels)
            draw_reliability(bins, error, directory / split / "reliability.png", title=f"{recipe.name}, {split}")


def names_of(*scores: Mapping[str, float]) -> list[str]:
    """The names under which these scores are reported."""
    return [OFFICIAL_NAMES.get(name, name) for names in scores for name in names]
