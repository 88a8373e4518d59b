"""Reading a task from a data set of `datasets`; errors quote --tasks and name what --tasks or --data_dir accepts."""

from __future__ import annotations

from typing import Any

from finetuning.examples.dataset_records import SAVE_IT, read_dataset
from finetuning.recipes.questions.sets import load_splits
from finetuning.recipes.texts.glue_tasks import GlueTask, from_dataset
from finetuning.recipes.texts.labelled_text import LabelledText
from gap.tasks.kinds.task_data import TaskSpec

GLUE_DATASET = "nyu-mll/glue"


def glue_splits(task: GlueTask) -> dict[str, list[LabelledText]]:
    """A GLUE task's examples by split, from the hub's set of all of them."""
    asked, remedy = f"--tasks glue:{task.name} ({GLUE_DATASET})", "name the folder of GLUE's files with --data_dir"
    return from_dataset(task, read_dataset(GLUE_DATASET, task.name, class_names=False, asked=asked, remedy=remedy))


def known_splits(spec: TaskSpec) -> dict[str, Any]:
    """The rows of a data set's train, validation and test splits, under any of their usual names."""
    return load_splits(spec.place, None, asked=_asked(spec), remedy=_remedy(spec))


def all_splits(spec: TaskSpec) -> dict[str, Any]:
    """The rows of every split of a data set, with its classes by name."""
    return dict(read_dataset(spec.place, asked=_asked(spec), remedy=_remedy(spec)))


def _asked(spec: TaskSpec) -> str:
    return f"--tasks {spec.kind}:{spec.place}"


def _remedy(spec: TaskSpec) -> str:
    return f"write {spec.kind}:FOLDER or {spec.kind}:TRAIN+TEST to name files, or {SAVE_IT}"
