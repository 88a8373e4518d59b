"""Task specifications (`qa:FILE`, `glue:sst2`, `classification:imdb`, ...) and the examples behind them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetuning.choices.choice_files import ChoiceQuestion, choices_from_rows, has_labels, read_choices
from finetuning.examples.record_files import file_format
from finetuning.examples.unlabelled import labelled_only
from finetuning.questions.squad import Question, check_answers, place_answers, questions_from_rows, read_questions
from finetuning.texts.glue_tasks import GLUE_TASKS, GlueTask, read_glue
from finetuning.texts.labelled_folders import is_archive
from finetuning.texts.labelled_text import (
    LabelledText,
    content_key,
    from_records,
    label_names,
    read_examples,
    read_splits,
    split_of,
)
from gap.tasks.dataset_tasks import dataset_splits, glue_splits

KINDS = ("qa", "multiple_choice", "glue", "classification")
SPEC = re.compile(r"(?:(?P<name>[\w.-]+)=)?(?P<kind>\w+):(?P<place>.+?)(?:@(?P<most>\d+))?")
GLUE_METRICS = {"cola": "matthews", "stsb": "spearman", "mrpc": "f1", "qqp": "f1"}
SCORED_SHARE = 0.2  # of a file that comes alone
Splits = dict[str, list[Any]]


@dataclass(frozen=True)
class TaskSpec:
    """`[NAME=]KIND:PLACE[@N]`: N training examples at most; see `parse_tasks`.

    PLACE is a folder with train and test files, TRAIN+TEST, one file, or the name of a data set.
    """

    name: str
    kind: str
    place: str
    max_train_samples: int | None = None


@dataclass(frozen=True)
class TaskData:
    """What a task trains on and what it is scored on; `clusters` say which examples share a paragraph or a text."""

    spec: TaskSpec
    metric: str  # of scores.jsonl
    labels: tuple[str, ...]
    train: Mapping[str, Any]  # example id -> example
    scored: Mapping[str, Any]
    train_clusters: Mapping[str, str]
    scored_clusters: Mapping[str, str]
    version_2: bool = False  # questions without an answer
    glue: GlueTask | None = None
    score_range: tuple[float, float] | None = None  # regression: of the labels

    @property
    def digest(self) -> str:
        """sha256 of every example, in order."""
        digest = hashlib.sha256()
        for example in (*self.train.values(), "scored", *self.scored.values()):
            digest.update(repr(example).encode())
        return digest.hexdigest()

    @property
    def shared_clusters(self) -> set[str]:
        """Texts (paragraphs of questions) that stand in training and among the scored examples."""
        return set(self.train_clusters.values()) & set(self.scored_clusters.values())


@dataclass(frozen=True)
class ReadingOptions:
    """How examples are read."""

    data_dir: str | None = None  # of GLUE's files
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    on_overlap: str = "stop"

    def __post_init__(self) -> None:
        if self.on_overlap not in ("stop", "drop"):
            raise ValueError(f"--on_overlap {self.on_overlap}: use stop, or drop to leave shared texts out of training")


def parse_tasks(text: str) -> list[TaskSpec]:
    """Specifications with commas between; ValueError names the one that is wrong, and names that come twice."""
    specs = [_parse(one.strip()) for one in text.split(",") if one.strip()]
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not specs or twice:
        problem = f"{', '.join(twice)} comes twice: give names, NAME=KIND:PLACE" if twice else "name at least one task"
        raise ValueError(f"--tasks {text!r}: {problem}")
    return specs


def spec_text(spec: TaskSpec) -> str:
    """The specification as `parse_tasks` reads it."""
    limit = "" if spec.max_train_samples is None else f"@{spec.max_train_samples}"
    return f"{spec.name}={spec.kind}:{spec.place}{limit}"


def small_world_tasks(directory: Path) -> list[TaskSpec]:
    """The three tasks of the embedded small world; extractive QA is the main one, the others are kept cheap."""
    limits = {"qa": None, "multiple_choice": 400, "classification": None}
    return [TaskSpec(kind, kind, str(directory / kind), limit) for kind, limit in limits.items()]


def read_task(spec: TaskSpec, options: ReadingOptions = ReadingOptions()) -> TaskData:
    """Read a task; the scored examples are the labelled test set, else the validation set, else a fifth of the file.

    Raises ValueError for files that cannot be read, and when training and scored examples share texts, unless
    `on_overlap` is "drop": then those are left out of training.
    """
    reader: dict[str, Callable[[TaskSpec, ReadingOptions], TaskData]] = {
        "qa": _read_qa,
        "multiple_choice": _read_choice,
        "glue": _read_glue,
        "classification": _read_classification,
    }
    data = reader[spec.kind](spec, options)
    shared = data.shared_clusters
    if not shared:
        return data
    train = {key: one for key, one in data.train.items() if data.train_clusters[key] not in shared}
    if options.on_overlap == "stop" or not train:
        raise ValueError(
            f"task {spec.name}: {len(shared)} texts stand both in the training and in the scored examples, so the "
            "score would partly be memory: separate them, or leave them out of training with --on_overlap drop"
        )
    return _with_train(data, train)


def ranked(keys: Iterable[str], salt: str) -> list[str]:
    """Keys in an order that their hash decides: subsets of it are nested and the same for every run."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{salt}\0{key}".encode()).digest())


def _with_train(data: TaskData, train: Mapping[str, Any]) -> TaskData:
    return replace(data, train=train, train_clusters={key: data.train_clusters[key] for key in train})


def _parse(text: str) -> TaskSpec:
    match = SPEC.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise ValueError(
            f"--tasks: {text!r} is no task; write KIND:PLACE with a KIND of {', '.join(KINDS)}, such as qa:squad/"
        )
    kind, place = match["kind"], match["place"]
    if kind == "glue" and place not in GLUE_TASKS:
        raise ValueError(f"--tasks: glue:{place} is none of {', '.join(GLUE_TASKS)}")
    last = Path(place.split("+")[-1])
    name = match["name"] or last.name.split(".")[0]
    if match["name"] is None and split_of(last) and len(last.parts) > 1:
        name = last.parent.name  # DIR/train.json+DIR/test.json is called DIR
    return TaskSpec(name, kind, place, int(match["most"]) if match["most"] else None)


def _splits(spec: TaskSpec, read: Callable[[Path], list[Any]], load: Callable[[str], Splits]) -> Splits:
    """Examples by split from a folder of files, TRAIN+TEST, one file, or a data set's name."""
    places = [Path(one) for one in spec.place.split("+")]
    if len(places) > 2:
        raise ValueError(f"task {spec.name}: {spec.place} names {len(places)} files; TRAIN+TEST are two")
    if len(places) == 2:
        return {"train": read(places[0]), "test": read(places[1])}
    place = places[0]
    if place.is_dir() and not (place / "dataset_dict.json").is_file():
        files = {name: file for file in sorted(place.iterdir()) if file_format(file) and (name := split_of(file))}
        if "train" not in files or len(files) < 2:
            raise ValueError(f"task {spec.name}: {place} holds {sorted(files)}; train and test (or dev) are needed")
        return {name: read(file) for name, file in files.items()}
    if place.is_file():
        return {"all": read(place)}
    if spec.place.startswith((".", "/", "~")):
        raise ValueError(f"task {spec.name}: {spec.place} does not exist")
    return load(spec.place)


def _two_sets(
    spec: TaskSpec,
    splits: Splits,
    cluster: Callable[[Any], str],
    labelled: Callable[[list[Any], str], bool],
    key: Callable[[Any], str],
    options: ReadingOptions,
) -> dict[str, Any]:
    """The fields of TaskData that splits decide: training and scored examples, cut, with their clusters."""
    if "all" in splits:
        chosen = ranked({cluster(one) for one in splits["all"]}, "scored")
        scored_clusters = set(chosen[: max(1, round(SCORED_SHARE * len(chosen)))])
        splits = {
            "train": [one for one in splits["all"] if cluster(one) not in scored_clusters],
            "test": [one for one in splits["all"] if cluster(one) in scored_clusters],
        }
    named = next((name for name in ("test", "validation") if splits.get(name) and labelled(splits[name], name)), None)
    if named is None or not splits.get("train"):
        raise ValueError(f"task {spec.name}: {sorted(splits)}; a training set and a set with answers are needed")
    found = {}
    for field, examples, most in (
        ("train", splits["train"], _smaller(options.max_train_samples, spec.max_train_samples)),
        ("scored", splits[named], options.max_eval_samples),
    ):
        by_id = {key(one): one for one in examples}
        if len(by_id) < len(examples):
            raise ValueError(f"task {spec.name}: {len(examples) - len(by_id)} ids come twice; give each its own")
        if most is not None and most < 1:
            raise ValueError(f"--max_train_samples and --max_eval_samples are {most}: use 1 or more")
        kept = set(ranked(by_id, "sample")[:most])
        found[field] = {name: one for name, one in by_id.items() if name in kept}
        found[f"{field}_clusters"] = {name: cluster(one) for name, one in found[field].items()}
    return found


def _smaller(first: int | None, second: int | None) -> int | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)


def _read_qa(spec: TaskSpec, options: ReadingOptions) -> TaskData:
    def load(name: str) -> Splits:
        rows = dataset_splits(spec.kind, name)
        return {split: questions_from_rows(found, f"{name} {split}") for split, found in rows.items()}

    splits: Mapping[str, Sequence[Question]] = _splits(spec, read_questions, load)
    empty = {name: sum(not one.answers for one in questions) for name, questions in splits.items()}
    version_2 = any(0 < count < len(splits[name]) for name, count in empty.items())
    placed: Splits = {name: place_answers(questions)[0] for name, questions in splits.items()}
    fields = _two_sets(
        spec,
        placed,
        lambda question: question.group,
        lambda questions, name: check_answers(questions, version_2=version_2, where=name),
        lambda question: question.id,
        options,
    )
    return TaskData(spec, "exact_match", (), version_2=version_2, **fields)


def _read_choice(spec: TaskSpec, options: ReadingOptions) -> TaskData:
    def load(name: str) -> Splits:
        rows = dataset_splits(spec.kind, name)
        return {split: choices_from_rows(found, f"{name} {split}") for split, found in rows.items()}

    def cluster(question: ChoiceQuestion) -> str:
        same = len(set(question.firsts)) == 1 and len(question.firsts[0]) > 0
        texts = "\n".join(question.firsts if same else (*question.firsts, *question.seconds))
        own = texts if same else f"{texts}\n{question.id}"
        return hashlib.sha256(own.encode()).hexdigest()[:16]

    splits = labelled_only(_splits(spec, read_choices, load), f"task {spec.name}")
    fields = _two_sets(spec, splits, cluster, has_labels, lambda question: question.id, options)
    return TaskData(spec, "accuracy", (), **fields)


def _read_glue(spec: TaskSpec, options: ReadingOptions) -> TaskData:
    task = GLUE_TASKS[spec.place]
    splits = read_glue(task, options.data_dir) if options.data_dir is not None else glue_splits(task)
    fields = _text_fields(spec, {name: splits[name] for name in ("train", "validation")}, options)
    metric = GLUE_METRICS.get(task.name, "accuracy")
    return TaskData(spec, metric, tuple(task.labels), glue=task, score_range=task.score_range, **fields)


def _read_classification(spec: TaskSpec, options: ReadingOptions) -> TaskData:
    def load(name: str) -> Splits:
        rows = dataset_splits(spec.kind, name)
        return {split: from_records(found, source=f"{name} {split}") for split, found in rows.items()}

    place = Path(spec.place)
    splits: Splits
    if is_archive(place) or (place.is_dir() and not (place / "dataset_dict.json").is_file()):
        splits = {name: list(examples) for name, examples in read_splits(place).items()}
        if len(splits) == 1:
            splits = {"all": next(iter(splits.values()))}
    else:
        splits = _splits(spec, read_examples, load)
    labels = tuple(label_names(splits.get("train") or splits["all"]))
    if len(labels) < 2:
        raise ValueError(f"task {spec.name}: its labels are {labels}; two or more are needed")
    return TaskData(spec, "accuracy", labels, **_text_fields(spec, splits, options))


def _text_fields(
    spec: TaskSpec, splits: Mapping[str, Sequence[LabelledText]], options: ReadingOptions
) -> dict[str, Any]:
    def cluster(example: LabelledText) -> str:
        return hashlib.sha256(content_key(example).encode()).hexdigest()[:16]

    def labelled(examples: list[LabelledText], name: str) -> bool:
        return all(example.label is not None for example in examples)

    own = labelled_only(splits, f"task {spec.name}")
    return _two_sets(spec, own, cluster, labelled, lambda example: example.example_id, options)
