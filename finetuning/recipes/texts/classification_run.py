"""The classification run: options, examples from tables, folders, archives or `datasets`, and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetuning.examples.dataset_records import read_dataset
from finetuning.examples.recipe import COLUMN, DATA_PLACE, KEPT, NAMES_DATA, PATH, SPLIT_FILE
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS
from finetuning.recipes.texts.labelled_text import (
    SPLIT_NAMES,
    Columns,
    LabelledText,
    from_records,
    has_no_columns,
    hold_out,
    label_names,
    read_examples,
    read_splits,
)
from finetuning.recipes.texts.metrics import classification_metrics
from finetuning.recipes.texts.text_run import TextOptions, TextTask, names_of, run_task, saved_head, saved_labels
from finetuning.run.command import finish_world, given_files, open_world, output_directory
from finetuning.run.starting_point import StartingPoint, starting_point
from runtime.options.declaration import DATA, TRAINING, names_marked, option, option_as_in
from runtime.options.option_rules import idle_beside, idle_without, refuse_given
from runtime.processes.ranks import Ranks
from shards.building.options import BuildOptions

METRICS = ("accuracy", "macro_f1", "f1", "matthews_correlation")


@dataclass
class ClassificationOptions(TextOptions):
    """Options of this recipe; without any data option it runs on the embedded small world."""

    data: str | None = option(
        None,
        "folder or tar with the splits: SPLIT/LABEL/*.txt as in aclImdb, or SPLIT.csv",
        group=DATA,
        marks=(NAMES_DATA, DATA_PLACE, PATH),
    )
    validation_fraction: float = option(
        0.1,
        "share of train held out (copies together) if there is no validation set",
        group=DATA,
        above=0,
        below=1,
        what="a share such as 0.1",
    )
    text_column: str | None = option_as_in(
        None,
        BuildOptions,
        "text_column",
        "column of the text; default: the usual names",
        group=DATA,
        marks=(COLUMN, KEPT),
    )
    text_pair_column: str | None = option(None, "column of the second text", group=DATA, marks=(COLUMN, KEPT))
    label_column: str | None = option(None, "column of the label", group=DATA, marks=(COLUMN,))
    id_column: str | None = option(
        None, "column of the example's id; default: the row's number", group=DATA, marks=(COLUMN,)
    )
    selection_metric: str = option("accuracy", "metric that picks the best epoch", group=TRAINING, choices=METRICS)

    def contradictions(self) -> list[str]:
        """Also refuses data named twice and column options without effect."""
        problems = super().contradictions()
        files = [name for name in names_marked(self, SPLIT_FILE) if getattr(self, name)]
        ways = [name for name in ("data", "dataset_name") if getattr(self, name)]
        if len(ways) + bool(files) > 1:
            problems.append(f"{' and '.join(f'--{name}' for name in (*ways, *files))}: name the data one way only")
        problems += idle_without(self, "dataset_name", ("dataset_config_name",))
        places = [getattr(self, name) for name in ("data", *files) if getattr(self, name)]
        if places and all(map(has_no_columns, places)):
            data_named = f"{', '.join(places)}, where every text is a file"
            problems += idle_beside(self, names_marked(self, COLUMN), data_named)
        return problems

    @property
    def columns(self) -> Columns:
        """The four columns."""
        return Columns(self.text_column, self.text_pair_column, self.label_column, self.id_column)


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
        raise ValueError(f"no training set among {', '.join(splits)}: name one with --train_file")
    if "validation" in splits or "train" not in splits:
        there = "a validation set" if "validation" in splits else "sets without a training set"
        refuse_given(options, ("validation_fraction",), f"{there} ({', '.join(splits)})")
    else:
        splits["train"], splits["validation"] = hold_out(splits["train"], options.validation_fraction)
    labels = tuple(saved_labels(head)) or tuple(label_names(splits["train"]))
    if len(labels) < 2:
        raise ValueError(f"train has the labels {labels}: two or more are needed; check --label_column")
    return TextTask("classification", labels, splits, (options.selection_metric,))


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
