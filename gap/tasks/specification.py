"""Parsing of task specifications (`qa:FILE`, `glue:sst2`, `classification:imdb`, ...) and reading of the examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetuning.recipes.texts.labelled_text import split_of
from gap.tasks.kinds.choices import ChoiceData
from gap.tasks.kinds.pairs import PairData
from gap.tasks.kinds.questions import QuestionData
from gap.tasks.kinds.reading import files_of
from gap.tasks.kinds.task_data import ReadingOptions, TaskData, TaskSpec
from gap.tasks.kinds.texts import ClassificationData, GlueData
from gap.tasks.kinds.tokens import TokenData

KINDS: Mapping[str, type[TaskData]] = {
    "qa": QuestionData,
    "multiple_choice": ChoiceData,
    "glue": GlueData,
    "classification": ClassificationData,
    "tokens": TokenData,
    "pairs": PairData,
}
SPEC = re.compile(r"(?:(?P<name>\w[\w.-]*)=)?(?P<kind>\w+):(?P<place>.+?)(?:@(?P<most>\d+))?", re.DOTALL)
NEXT_SPEC = re.compile(r",(?=\s*(?:[^,:=]+=)?\w+:)|,\s*$")  # other commas are part of a place


def parse_tasks(text: str) -> list[TaskSpec]:
    """Specifications separated by commas; ValueError names the one that is wrong, and names that occur twice."""
    specs = [_parse(part.strip()) for part in NEXT_SPEC.split(text) if part.strip()]
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not specs or twice:
        problem = f"{', '.join(twice)} occurs twice: give names, NAME=KIND:PLACE" if twice else "name at least one task"
        raise ValueError(f"--tasks {text!r}: {problem}")
    return specs


def spec_text(spec: TaskSpec) -> str:
    """The specification as `parse_tasks` reads it."""
    limit = "" if spec.max_train_samples is None else f"@{spec.max_train_samples}"
    return f"{spec.name}={spec.kind}:{spec.place}{limit}"


def is_zero_shot(spec: TaskSpec) -> bool:
    """Whether the checkpoints are scored on this task as they are, without fine-tuning."""
    return KINDS[spec.kind].zero_shot


def small_world_tasks(directory: Path) -> list[TaskSpec]:
    """The tasks of the embedded small world, one per kind that it has; some are kept cheap."""
    return [
        TaskSpec(kind, kind, str(directory / kind), data.small_world_examples)
        for kind, data in KINDS.items()
        if data.in_small_world
    ]


def read_task(spec: TaskSpec, options: ReadingOptions | None = None) -> TaskData:
    """Read a task; the scored examples are the labelled test set, else the validation set, else a fifth of the file.

    Raises ValueError for files that cannot be read, and if training and scored examples share texts, unless
    `on_overlap` is "drop": then the shared texts are left out of training.
    """
    options = options or ReadingOptions()
    data = KINDS[spec.kind].read(spec, options)
    shared = data.shared_texts
    if not shared:
        return data
    train = {
        key: example
        for key, example in data.train.items()
        if data.text_key(example, data.train_clusters[key]) not in shared
    }
    if options.on_overlap == "stop" or not train:
        raise ValueError(
            f"task {spec.name}: {len(shared)} texts occur both in the training and in the scored examples, so the "
            "score would partly be memory: separate them, or leave them out of training with --on_overlap drop"
        )
    return _with_train(data, train)


def _with_train(data: TaskData, train: Mapping[str, Any]) -> TaskData:
    return replace(data, train=train, train_clusters={key: data.train_clusters[key] for key in train})


def _parse(text: str) -> TaskSpec:
    match = SPEC.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise ValueError(
            f"--tasks: {text!r} is not a task; write KIND:PLACE with a KIND of {', '.join(KINDS)}, such as qa:squad/, "
            "or NAME=KIND:PLACE with a NAME of letters, digits, dots and hyphens"
        )
    kind, place, most = match["kind"], match["place"], match["most"]
    if most and Path(f"{place}@{most}").exists():
        place, most = f"{place}@{most}", None
    places = KINDS[kind].places
    if places is not None and place not in places:
        raise ValueError(f"--tasks: {kind}:{place} is not one of {', '.join(places)}")
    name = match["name"] or _default_name(place, kind)
    return TaskSpec(name, kind, place, int(most) if most else None)


def _default_name(place: str, kind: str) -> str:
    """The last part of a place in the characters of a name; a file's without its endings."""
    last = files_of(place)[-1]
    if split_of(last) and len(last.parts) > 1:
        last = last.parent  # DIR/train.json+DIR/test.json is called DIR
    name = last.resolve().name if last.is_dir() else last.name.split(".")[0]
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or kind
