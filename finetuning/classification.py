"""Classify any labelled text: `torchrun finetuning/classification.py --data aclImdb` (or python, or deepspeed).

CSV, TSV, JSON, JSONL (plain or packed), folders and tars of text files, `datasets`. With no option it runs on the
embedded small world from the newest checkpoint of the default pretraining run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.examples.dataset_records import read_dataset
from finetuning.examples.recipe import COLUMN, DATA_PLACE, KEPT, NAMES_DATA, PATH, SPLIT_FILE
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.run.command import finish_world, for_small_world, given_files, open_world, output_directory
from finetuning.run.exit_status import guarded
from finetuning.run.replaced_options import replaced_option
from finetuning.run.text_command import TextOptions, TextTask, run_task, saved_head, saved_labels
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
)
from runtime.options.command_line import parse_options
from runtime.options.declaration import DATA, TRAINING, names_marked, option
from runtime.options.option_rules import idle_beside, idle_without, refuse_given
from runtime.processes.ranks import Ranks

METRICS = ("accuracy", "macro_f1", "f1", "matthews_correlation")


@dataclass
class ClassificationOptions(TextOptions):
    """Options of this recipe; without any data option it runs on the embedded small world."""

    data: str | None = option(
        None,
        "Folder or tar with the splits: SPLIT/LABEL/*.txt as in aclImdb, or SPLIT.csv.",
        group=DATA,
        marks=(NAMES_DATA, DATA_PLACE, PATH),
    )
    validation_fraction: float = option(
        0.1,
        "Share of train held out (copies together) if there is no validation.",
        group=DATA,
        above=0,
        below=1,
        what="a share such as 0.1",
    )
    text_column: str | None = option(
        None, "Column of the text; default: the usual names.", group=DATA, marks=(COLUMN, KEPT)
    )
    text_pair_column: str | None = option(None, "Column of the second text.", group=DATA, marks=(COLUMN, KEPT))
    label_column: str | None = option(None, "Column of the label.", group=DATA, marks=(COLUMN,))
    id_column: str | None = option(
        None, "Column of the example's id; default: the row's number.", group=DATA, marks=(COLUMN,)
    )
    selection_metric: str = option("accuracy", "Picks the best epoch.", group=TRAINING, choices=METRICS)

    def contradictions(self) -> list[str]:
        """Data named twice and idle columns, too."""
        found = super().contradictions()
        files = [name for name in names_marked(self, SPLIT_FILE) if getattr(self, name)]
        ways = [name for name in ("data", "dataset_name") if getattr(self, name)]
        if len(ways) + bool(files) > 1:
            found.append(f"{' and '.join(f'--{name}' for name in (*ways, *files))}: name the data one way only")
        found += idle_without(self, "dataset_name", ("dataset_config_name",))
        places = [getattr(self, name) for name in ("data", *files) if getattr(self, name)]
        if places and all(map(has_no_columns, places)):
            told = f"{', '.join(places)}, where every text is a file"
            found += idle_beside(self, names_marked(self, COLUMN), told)
        return found

    @property
    def columns(self) -> Columns:
        """The four columns."""
        return Columns(self.text_column, self.text_pair_column, self.label_column, self.id_column)


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune and score; returns the exit status."""
    given = parse_options(ClassificationOptions, argv, description=__doc__, replaced=replaced_option)
    options = for_small_world(given)
    return guarded(lambda asked: run(options, asked), output_directory(options, "classification"))


def run(options: ClassificationOptions, asked: Asked) -> int:
    """The command for parsed options."""
    ranks = open_world(options)
    task = read_task(options, ranks)
    run_task(task, options, output_directory(options, "classification"), ranks, asked)
    finish_world()
    return 0


def read_task(options: ClassificationOptions, ranks: Ranks) -> TextTask:
    """The examples that the options name; the classes are those of a head only evaluated, else of the training set."""
    splits = dict(_read(options, ranks))
    head = saved_head(options)
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
        found = read_dataset(options.dataset_name, options.dataset_config_name)
        splits = {SPLIT_NAMES.get(split, split): rows for split, rows in found.items()}
        return {
            split: from_records(rows, columns=options.columns, source=f"{options.dataset_name} {split}")
            for split, rows in splits.items()
            if split in SPLIT_NAMES.values()
        }
    named = given_files(options, "classification", ranks)
    return {split: read_examples(file, columns=options.columns, on_bad_text=bad) for split, file in named.items()}


if __name__ == "__main__":
    sys.exit(main())
