"""The nine tasks of GLUE (Wang et al. 2019): columns of the official files, labels, metrics, submission files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuning.examples.record_files import PACKED_SUFFIXES, OnBadText, read_records
from finetuning.recipes.texts.labelled_text import Columns, LabelledText, from_records

ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")
EASY_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
MNLI_SPLITS = {
    "train": "train",
    "validation": "dev_matched",
    "validation_mismatched": "dev_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}


@dataclass(frozen=True)
class GlueTask:
    """One task: where its columns are, what its labels are called (in the order of `datasets`), how it is scored."""

    name: str  # in --task_name and in the configurations of the `datasets` set nyu-mll/glue
    title: str
    folder: str  # in the official download
    columns: Columns
    labels: tuple[str, ...]  # as in the official files and the submission; empty: regression
    metrics: tuple[str, ...]  # the official ones; their mean picks the best epoch, as GLUE averages them
    submissions: Mapping[str, str]  # evaluation set -> file name
    headerless: tuple[str, ...] = ()  # columns of train and dev if the files have no header line
    files: Mapping[str, str] | None = None  # split -> file stem, if not train, dev, test
    ragged: bool = False  # the official file has a few torn lines, which every reader drops
    score_range: tuple[float, float] | None = None  # of the labels of a regression


def _columns(text: str, pair: str | None, label: str) -> Columns:
    return Columns(text=text, text_pair=pair, label=label)


def _one(name: str) -> dict[str, str]:
    return {"test": f"{name}.tsv"}


GLUE_TASKS: dict[str, GlueTask] = {
    task.name: task
    for task in (
        GlueTask(
            "cola",
            "CoLA",
            "CoLA",
            _columns("sentence", None, "label"),
            BINARY,
            ("matthews_correlation",),
            _one("CoLA"),
            headerless=("source", "label", "mark", "sentence"),
        ),
        GlueTask("sst2", "SST-2", "SST-2", _columns("sentence", None, "label"), BINARY, ("accuracy",), _one("SST-2")),
        GlueTask(
            "mrpc",
            "MRPC",
            "MRPC",
            _columns("#1 String", "#2 String", "Quality"),
            BINARY,
            ("accuracy", "f1"),
            _one("MRPC"),
        ),
        GlueTask(
            "stsb",
            "STS-B",
            "STS-B",
            _columns("sentence1", "sentence2", "score"),
            (),
            ("pearson", "spearmanr"),
            _one("STS-B"),
            score_range=(0.0, 5.0),
        ),
        GlueTask(
            "qqp",
            "QQP",
            "QQP",
            _columns("question1", "question2", "is_duplicate"),
            BINARY,
            ("accuracy", "f1"),
            _one("QQP"),
            ragged=True,
        ),
        GlueTask(
            "mnli",
            "MNLI",
            "MNLI",
            _columns("sentence1", "sentence2", "gold_label"),
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            {"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
            files=MNLI_SPLITS,
        ),
        GlueTask(
            "qnli", "QNLI", "QNLI", _columns("question", "sentence", "label"), ENTAILMENT, ("accuracy",), _one("QNLI")
        ),
        GlueTask(
            "rte", "RTE", "RTE", _columns("sentence1", "sentence2", "label"), ENTAILMENT, ("accuracy",), _one("RTE")
        ),
        GlueTask(
            "wnli", "WNLI", "WNLI", _columns("sentence1", "sentence2", "label"), BINARY, ("accuracy",), _one("WNLI")
        ),
    )
}

# Column names in the `datasets` set where they differ from those of the files.
DATASET_COLUMNS = {
    "mrpc": _columns("sentence1", "sentence2", "label"),
    "stsb": _columns("sentence1", "sentence2", "label"),
    "qqp": _columns("question1", "question2", "label"),
    "mnli": _columns("premise", "hypothesis", "label"),
}
DATASET_SPLITS = {
    "validation_matched": "validation",
    "validation_mismatched": "validation_mismatched",
    "test_matched": "test",
    "test_mismatched": "test_mismatched",
}
STARTED_FROM_MNLI = ("rte", "mrpc", "stsb")


def read_glue(
    task: GlueTask, directory: str | Path, *, train: bool = True, on_bad_text: OnBadText = "stop"
) -> dict[str, list[LabelledText]]:
    """Split -> examples from the official TSV files (plain or packed) in DIRECTORY or DIRECTORY/<task's folder>.

    Ids come from the file's index column, else they are row numbers, so that a prediction finds its line. Raises
    ValueError naming what is missing or wrong.
    """
    splits = {}
    for split, file in task_files(task, directory, train=train).items():
        is_test = split.startswith("test")
        names = None if is_test or not task.headerless else task.headerless
        records = read_records(
            file, columns=names, malformed="drop" if task.ragged else "stop", on_bad_text=on_bad_text
        )
        columns = Columns(task.columns.text, task.columns.text_pair, None if is_test else task.columns.label)
        id_column = next((name for name in ("index", "id") if name in records[0]), None)
        splits[split] = from_records(
            records,
            columns=Columns(columns.text, columns.text_pair, columns.label, id_column),
            source=str(file),
            minus_one_is_unknown=True,
        )
        check_labels(task, splits[split], str(file))
    return splits


def task_files(task: GlueTask, directory: str | Path, *, train: bool = True) -> dict[str, Path]:
    """Split -> file in DIRECTORY or DIRECTORY/<task's folder>.

    dev must exist, train too unless `train` is False; test files are optional. Raises ValueError naming what is
    missing.
    """
    root = Path(directory)
    folder = root / task.folder if (root / task.folder).is_dir() else root
    files = {}
    for split, stem in (task.files or EASY_SPLITS).items():
        file = _find(folder, stem)
        if file is not None:
            files[split] = file
        elif not split.startswith("test") and (train or split != "train"):
            raise ValueError(f"{folder}: no {stem}.tsv (plain or packed); {task.title} needs it, check --data_dir")
    return files


def from_dataset(
    task: GlueTask, records_by_split: Mapping[str, Sequence[Mapping[str, object]]]
) -> dict[str, list[LabelledText]]:
    """The same from the rows of nyu-mll/glue (integer labels, -1 where the test set hides them)."""
    columns = DATASET_COLUMNS.get(task.name, task.columns)
    names = task.labels or None
    splits = {}
    for split, records in records_by_split.items():
        name = DATASET_SPLITS.get(split, split)
        source = f"{task.title} {split}"
        splits[name] = from_records(records, columns=columns, source=source, labels=names, minus_one_is_unknown=True)
        check_labels(task, splits[name], source)
    return splits


def check_labels(task: GlueTask, examples: Sequence[LabelledText], source: str) -> None:
    """ValueError naming the first example whose label is neither of the task, nor in its range, nor unknown."""
    for number, example in enumerate(examples):
        if not _is_valid(task, example.label):
            wanted = " or ".join(task.labels) or f"a number from {task.score_range}"
            raise ValueError(f"{source}, row {number}: the label is {example.label!r}; {task.title} needs {wanted}")


def submission_lines(task: GlueTask, predictions: Mapping[str, str | float]) -> list[str]:
    """Lines `index TAB prediction` of a submission file, in the order given: label names, or a number in its range."""
    lines = ["index\tprediction"]
    for example_id, prediction in predictions.items():
        if task.score_range is not None:
            low, high = task.score_range
            lines.append(f"{example_id}\t{min(max(float(prediction), low), high):.3f}")
        elif prediction in task.labels:
            lines.append(f"{example_id}\t{prediction}")
        else:
            raise ValueError(
                f"{task.title}: prediction {prediction!r} of {example_id}; it must be {' or '.join(task.labels)}"
            )
    return lines


def _is_valid(task: GlueTask, label: str | None) -> bool:
    if label is None:
        return True
    if task.score_range is None:
        return label in task.labels
    try:
        return task.score_range[0] <= float(label) <= task.score_range[1]
    except ValueError:
        return False


def _find(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}.tsv{suffix}" for suffix in PACKED_SUFFIXES)
    return next((file for file in files if file.is_file()), None)
