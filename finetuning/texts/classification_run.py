"""A run of classification: its options, its examples from tables, folders, archives or `datasets`, its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetuning.examples.dataset_records import read_dataset
from finetuning.examples.recipe import option
from finetuning.examples.record_files import bad_text
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.run.command import finish_world, given_files, open_world, output_directory
from finetuning.run.starting_point import StartingPoint, starting_point
from finetuning.texts.glue_tasks import GLUE_TASKS
from finetuning.texts.labelled_text import (
    SPLIT_NAMES,
    Columns,
    LabelledText,
    from_records,
    has_no_columns,
    hold_out,
    label_names,
    read_examples,
    read_splits,
    require_fraction,
)
from finetuning.texts.text_run import TextOptions, TextTask, run_task, saved_head, saved_labels
from runtime.options.option_rules import FILE_OPTIONS, refuse_given, require_beside
from runtime.processes.ranks import Ranks

METRICS = ("accuracy", "macro_f1", "f1", "matthews_correlation")


@dataclass
class ClassificationOptions(TextOptions):
    """Options of this recipe; without any data option it runs on the embedded small world."""

    data: str | None = option(None, "Folder or tar with the splits: SPLIT/LABEL/*.txt as in aclImdb, or SPLIT.csv.")
    validation_fraction: float = option(0.1, "Share of train held out (copies together) if there is no validation.")
    text_column: str | None = option(None, "Column of the text; default: the usual names.")
    text_pair_column: str | None = option(None, "Column of the second text.")
    label_column: str | None = option(None, "Column of the label.")
    id_column: str | None = option(None, "Column of the example's id; default: the row's number.")
    selection_metric: str = option("accuracy", f"Picks the best epoch: {', '.join(METRICS)}.")

    def check_own(self) -> None:
        """ValueError for a metric that there is not, a share outside (0, 1), data named twice and idle columns, too."""
        super().check_own()
        require_fraction(self.validation_fraction)
        if self.selection_metric not in METRICS:
            raise ValueError(f"--selection_metric {self.selection_metric}: use one of {', '.join(METRICS)}")
        files = [f"--{name}" for name in FILE_OPTIONS if getattr(self, name)]
        ways = [f"--{name}" for name in ("data", "dataset_name") if getattr(self, name)]
        if len(ways) + bool(files) > 1:
            raise ValueError(f"{' and '.join([*ways, *files])}: name the data one way only")
        require_beside(self, "dataset_name", ("dataset_config_name",))
        places = [place for place in (self.data, *(getattr(self, name) for name in FILE_OPTIONS)) if place]
        if places and all(map(has_no_columns, places)):
            names = ("text_column", "text_pair_column", "label_column", "id_column")
            refuse_given(self, names, f"{', '.join(places)}, where every text is a file")

    @property
    def columns(self) -> Columns:
        """The four columns."""
        return Columns(self.text_column, self.text_pair_column, self.label_column, self.id_column)


def run(options: ClassificationOptions, asked: Asked) -> int:
    """The command for parsed options."""
    ranks = open_world(options)
    start = starting_point(options)
    task = read_task(options, start, ranks)
    run_task(task, options, start, output_directory(options, "classification"), ranks, asked)
    finish_world()
    return 0


def predict(options: ClassificationOptions, asked: Asked, start: StartingPoint) -> int:
    """Classes, or a regression's values, of the texts in --test_file by the head of `start`, whoever made it."""
    ranks = open_world(options)
    facts: dict[str, Any] = start.head or {"recipe": None, "labels": []}
    bad = bad_text(options.on_bad_text)
    examples = read_examples(str(options.test_file), columns=options.columns, on_bad_text=bad)
    name = facts["recipe"] or "classification"
    glue = GLUE_TASKS.get(str(name).removeprefix("glue_"))
    metrics = glue.metrics if glue is not None else (("accuracy",) if facts["labels"] else ("pearson", "spearmanr"))
    task = TextTask(name, tuple(saved_labels(facts)), {"test": examples}, metrics)
    run_task(task, options, start, output_directory(options, name), ranks, asked)
    finish_world()
    return 0


def read_task(options: ClassificationOptions, start: StartingPoint, ranks: Ranks) -> TextTask:
    """The examples that the options name; the classes are those of a head only evaluated, else of the training set."""
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
    bad = bad_text(options.on_bad_text)
    if options.data:
        return read_splits(options.data, columns=options.columns, on_bad_text=bad)
    if options.dataset_name:
        found = read_dataset(options.dataset_name, options.dataset_config_name)
        splits = {SPLIT_NAMES.get(split, split): rows for split, rows in found.items()}
        return {
            split: from_records(rows, columns=options.columns, source=f"{options.dataset_name} {split}")
            for split, rows in splits.items()
            if split in SPLIT_NAMES.values()
        }
    named = given_files(options, "classification", ranks)
    return {split: read_examples(file, columns=options.columns, on_bad_text=bad) for split, file in named.items()}
