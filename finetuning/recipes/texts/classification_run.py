"""The classification run: examples from tables, folders, archives or `datasets`, and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetuning.examples.dataset_records import read_dataset
from finetuning.examples.label_cells import is_integer
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.recipes.options.classification import ClassificationOptions
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS
from finetuning.recipes.texts.labelled_text import (
    LABEL_COLUMNS,
    SPLIT_NAMES,
    LabelledText,
    from_records,
    hold_out,
    label_names,
    read_examples,
    read_splits,
)
from finetuning.recipes.texts.metrics import classification_metrics
from finetuning.recipes.texts.text_run import TextTask, names_of, run_task, saved_head, saved_labels
from finetuning.run.command import finish_world, given_files, open_world, output_directory
from finetuning.run.starting_point import StartingPoint, starting_point
from runtime.files.schemas import listed, shown
from runtime.options.option_rules import refuse_given
from runtime.plurals import counted
from runtime.processes.ranks import Ranks


def run(options: ClassificationOptions, asked: Asked) -> int:
    """Run the command with parsed options."""
    ranks = open_world(options)
    start = starting_point(options)
    task = read_task(options, start, ranks)
    run_task(task, options, start, output_directory(options, "classification"), ranks, asked)
    finish_world()
    return 0


def predict(options: ClassificationOptions, asked: Asked, start: StartingPoint) -> int:
    """Predict classes, or a regression's values, for the texts in --test_file with the head of `start`."""
    ranks = open_world(options)
    facts: dict[str, Any] = start.head or {"recipe": None, "labels": []}
    bad = options.on_bad_text
    examples = read_examples(str(options.test_file), columns=options.columns, on_bad_text=bad)
    name = facts["recipe"] or "classification"
    glue = GLUE_TASKS.get(str(name).removeprefix("glue_"))
    metrics = glue.metrics if glue is not None else (("accuracy",) if facts["labels"] else ("pearson", "spearmanr"))
    task = TextTask(name, tuple(saved_labels(facts)), {"test": examples}, metrics)
    run_task(task, options, start, output_directory(options, name), ranks, asked)
    finish_world()
    return 0


def read_task(options: ClassificationOptions, start: StartingPoint, ranks: Ranks) -> TextTask:
    """The examples that the options name, with the classes of the head if it is only evaluated, else of training."""
    splits = dict(_read(options, ranks))
    head = saved_head(options, start)
    if "train" not in splits and (makes_updates(options) or not head.get("labels")):
        raise ValueError(f"no training set among {', '.join(splits)}: {_training_remedy(options)}")
    labels = tuple(saved_labels(head)) or tuple(label_names(splits["train"]))
    _check_labels(labels, splits.get("train", ()))
    if "validation" in splits or "train" not in splits:
        there = "a validation set" if "validation" in splits else "sets without a training set"
        refuse_given(options, ("validation_fraction",), f"{there} ({', '.join(splits)})")
    else:
        splits["train"], splits["validation"] = hold_out(splits["train"], options.validation_fraction)
    return TextTask("classification", labels, splits, (options.selection_metric,))


def _training_remedy(options: ClassificationOptions) -> str:
    if options.data:
        return f"put its table, such as train.csv or train.json, into {options.data}"
    return "use a data set with one" if options.dataset_name else "name one with --train_file"


def _check_labels(labels: Sequence[str], training: Sequence[LabelledText]) -> None:
    """ValueError unless these are two classes or more, which scores such as 0.37 are not."""
    if len(labels) < 2:
        num_labelled = sum(example.label is not None for example in training)
        only = f"has one label, {shown(labels[0])}" if labels else "has no label"
        raise ValueError(
            f"train {only} ({num_labelled} of {counted(len(training), 'row')} labelled): two or more are needed; "
            f"check --label_column (the usual names are {', '.join(LABEL_COLUMNS)})"
        )
    if 2 * len(labels) > len(training) > 0 and all(map(_is_number, labels)) and not all(map(is_integer, labels)):
        raise ValueError(
            f"train has {len(labels)} different numbers as labels ({listed(labels[:3])}, ...) in "
            f"{counted(len(training), 'row')}: these are scores, and classes are needed; round them to a few classes, "
            "or name another --label_column"
        )


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _read(options: ClassificationOptions, ranks: Ranks) -> Mapping[str, list[LabelledText]]:
    bad = options.on_bad_text
    if options.data:
        return read_splits(options.data, columns=options.columns, on_bad_text=bad)
    if options.dataset_name:
        loaded = read_dataset(options.dataset_name, options.dataset_config_name)
        splits = {SPLIT_NAMES.get(split, split): rows for split, rows in loaded.items()}
        return {
            split: from_records(rows, columns=options.columns, source=f"{options.dataset_name} {split}")
            for split, rows in splits.items()
            if split in SPLIT_NAMES.values()
        }
    named = given_files(options, "classification", ranks)
    return {split: read_examples(file, columns=options.columns, on_bad_text=bad) for split, file in named.items()}


def score_names() -> list[str]:
    """The names that the scoring functions of classes give."""
    return names_of(classification_metrics(np.eye(2), [0, 1]))
