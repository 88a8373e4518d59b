"""Data sets of `datasets` behind a task; errors name it as --tasks does, and say what else that or --data_dir takes."""

from __future__ import annotations

from typing import Any

from finetuning.examples.dataset_records import SAVE_IT, read_dataset
from finetuning.questions.sets import load_splits
from finetuning.texts.glue_tasks import GlueTask, from_dataset
from finetuning.texts.labelled_text import LabelledText

GLUE_DATASET = "nyu-mll/glue"


def glue_splits(task: GlueTask) -> dict[str, list[LabelledText]]:
    """A GLUE task's examples by split, from the hub's set of all of them."""
    asked, remedy = f"--tasks glue:{task.name} ({GLUE_DATASET})", "name the folder of GLUE's files with --data_dir"
    return from_dataset(task, read_dataset(GLUE_DATASET, task.name, class_names=False, asked=asked, remedy=remedy))


def dataset_splits(kind: str, name: str) -> dict[str, Any]:
    """Rows by split: of a classification those of any name with class names, else train, validation and test."""
    asked = f"--tasks {kind}:{name}"
    remedy = f"write {kind}:FOLDER or {kind}:TRAIN+TEST to name files, or {SAVE_IT}"
    if kind == "classification":
        return dict(read_dataset(name, asked=asked, remedy=remedy))
    return load_splits(name, None, asked=asked, remedy=remedy)
