"""Reading the PLACE of a task into training and scored examples, for all kinds of task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from finetuning.examples.record_files import file_format
from finetuning.recipes.texts.labelled_text import split_of
from gap.tasks.kinds.task_data import ReadingOptions, TaskSpec
from runtime.files.schemas import listed
from runtime.hub import is_missing_path
from runtime.plurals import counted

SCORED_SHARE = 0.2  # of a single file
Splits = dict[str, list[Any]]


def read_place(
    spec: TaskSpec,
    read: Callable[[Path], list[Any]],
    load: Callable[[], Splits],
    *,
    is_data: Callable[[Path], Any] = file_format,
) -> Splits:
    """Examples by split from a folder of files, TRAIN+TEST, one file ("all" is its split), or a data set's name.

    `read` reads a file, `load` the data set; `is_data` says which files of a folder count. Raises ValueError for a
    place that is none of these.
    """
    places = files_of(spec.place)
    if len(places) > 2:
        raise ValueError(f"task {spec.name}: {spec.place} names {len(places)} files; name two, TRAIN+TEST")
    if len(places) == 2:
        return {"train": read(places[0]), "test": read(places[1])}
    place = places[0]
    if place.is_dir() and not (place / "dataset_dict.json").is_file():
        files = {name: file for file in sorted(place.iterdir()) if is_data(file) and (name := split_of(file))}
        if "train" not in files or len(files) < 2:
            found = f"of the splits only {listed(sorted(files))}" if files else "no file named after a split"
            raise ValueError(
                f"task {spec.name}: {place} holds {found}; train and test (or dev) are needed, such as train.json and "
                "test.json"
            )
        return {name: read(file) for name, file in files.items()}
    if place.is_file():
        return {"all": read(place)}
    if is_missing_path(spec.place) or spec.place.endswith("/") or file_format(place):
        raise ValueError(
            f"task {spec.name}: {spec.place} does not exist: name a folder or files; relative paths start at the "
            "working directory"
        )
    return load()


def files_of(place: str) -> list[Path]:
    """The files of TRAIN+TEST; one path for a place that exists, even with a + in its name."""
    return [Path(place)] if Path(place).exists() else [Path(name) for name in place.split("+")]


def training_and_scored(
    spec: TaskSpec,
    splits: Mapping[str, list[Any]],
    options: ReadingOptions,
    *,
    key: Callable[[Any], str],
    cluster: Callable[[Any], str],
    labelled: Callable[[list[Any], str], bool],
) -> dict[str, Any]:
    """The fields of TaskData that splits decide: training and scored examples, cut, with their clusters.

    `key` gives an example's id, `cluster` what it shares with others, `labelled` whether a split's answers are known.
    Raises ValueError without a training set and another labelled set, and for ids that occur twice.
    """
    if "all" in splits:
        chosen = ranked({cluster(example) for example in splits["all"]}, "scored")
        scored_clusters = set(chosen[: max(1, round(SCORED_SHARE * len(chosen)))])
        splits = {
            "train": [example for example in splits["all"] if cluster(example) not in scored_clusters],
            "test": [example for example in splits["all"] if cluster(example) in scored_clusters],
        }
    named = next((name for name in ("test", "validation") if splits.get(name) and labelled(splits[name], name)), None)
    if named is None or not splits.get("train"):
        raise ValueError(
            f"task {spec.name}: its splits are {listed(sorted(splits))}; a training set and a test or validation set "
            "with answers are needed"
        )
    fields: dict[str, Any] = {}
    for field, examples, most in (
        ("train", splits["train"], _smaller(options.max_train_samples, spec.max_train_samples)),
        ("scored", splits[named], options.max_eval_samples),
    ):
        by_id = {key(example): example for example in examples}
        if len(by_id) < len(examples):
            raise ValueError(
                f"task {spec.name}: {counted(len(examples) - len(by_id), 'id')} given twice; give each its own"
            )
        if most is not None and most < 1:  # of an option, or after the @ of a task
            raise ValueError(f"task {spec.name}: at most {most} examples leave none: name 1 or more after the @")
        kept = set(ranked(by_id, "sample")[:most])
        fields[field] = {name: example for name, example in by_id.items() if name in kept}
        fields[f"{field}_clusters"] = {name: cluster(example) for name, example in fields[field].items()}
    return fields


def ranked(keys: Iterable[str], salt: str) -> list[str]:
    """Keys in an order decided by their hash: its subsets are nested and the same for every run."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{salt}\0{key}".encode()).digest())


def text_digest(text: str) -> str:
    """The name of a cluster of examples that share this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _smaller(first: int | None, second: int | None) -> int | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)
