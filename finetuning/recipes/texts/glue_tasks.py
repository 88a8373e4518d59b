"""The nine tasks of GLUE (Wang et al. 2019): columns of the official files, labels, metrics, submission files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuning.examples.record_files import PACKED_SUFFIXES, OnBadText, Record, read_bytes, read_records
from finetuning.recipes.texts.labelled_text import Columns, LabelledText, from_records
from runtime.files.schemas import listed, shown

ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")
EASY_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
MNLI_SPLITS = {
    "train": "train",
    "validation": "dev_matched",
    "validation_mismatched": "dev_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
    "test_diagnostic": "../diagnostic/diagnostic",  # GLUE's diagnostic set, predicted by the model of MNLI
}
# MRPC as Microsoft and SentEval distribute it; GLUE made its train.tsv, dev.tsv and test.tsv of these two.
MRPC_ORIGINALS = {"train": "msr_paraphrase_train", "test": "msr_paraphrase_test"}
MRPC_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
MRPC_DEV_IDS = "dev_ids"  # GLUE's list of the 408 pairs in its dev.tsv
MRPC_DEV_SHARE = 0.1  # without that list
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueTask:
    """One task: its columns, its labels (in the order of `datasets`) and its metrics."""

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
            {"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "test_diagnostic": "AX.tsv"},
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
    files = task_files(task, directory, train=train)
    if is_original_mrpc(files.get("train")):
        return read_original_mrpc(task, files, on_bad_text=on_bad_text)
    splits = {}
    for split, file in files.items():
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
        if is_test and task.ragged and id_column is not None:
            note_missing_rows([example.example_id for example in splits[split]], file)
    return splits


def note_missing_rows(ids: Sequence[str], file: Path) -> None:
    """Warn if the rows of a test set are not numbered from 0 without a gap: the server wants a prediction for each."""
    numbers = {int(id_text) for id_text in ids if id_text.isdecimal()}
    gaps = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if gaps:
        logger.warning(
            "%s: %d row numbers are missing (the first is %d), so the submission lacks them: correct these lines, or "
            "add predictions by hand",
            file,
            len(gaps),
            gaps[0],
        )


def read_original_mrpc(
    task: GlueTask, files: Mapping[str, Path], *, on_bad_text: OnBadText
) -> dict[str, list[LabelledText]]:
    """Splits from MRPC's two original files; the labels of the test set stay hidden, as in GLUE.

    Validation are the pairs that a dev_ids.tsv beside them lists, as in GLUE, or else a tenth that a hash of the ids
    picks, which a warning says. Errors are those of `read_glue`.
    """
    training = _mrpc_records(files["train"], on_bad_text)
    if len(training) < 2:
        raise ValueError(f"{files['train']}: it has one pair; training and validation need at least one each")
    dev_ids = _find(files["train"].parent, MRPC_DEV_IDS)
    if dev_ids is not None:
        ids = {(row["1"], row["2"]) for row in read_records(dev_ids, columns=("1", "2"), on_bad_text=on_bad_text)}
        in_dev = [(str(row["#1 ID"]), str(row["#2 ID"])) in ids for row in training]
        if not any(in_dev) or all(in_dev):
            raise ValueError(f"{dev_ids}: it lists {sum(in_dev)} of {len(in_dev)} pairs of {files['train']}; check it")
    else:
        held_out = max(1, round(MRPC_DEV_SHARE * len(training)))
        ranks = [hashlib.sha256(f"{row['#1 ID']} {row['#2 ID']}".encode()).hexdigest() for row in training]
        chosen = set(sorted(range(len(training)), key=lambda number: (ranks[number], number))[:held_out])
        in_dev = [number in chosen for number in range(len(training))]
        logger.warning(
            "%s: no dev set comes with MRPC's original files, so %d of its %d pairs, picked by a hash of their ids, "
            "are held out as one; scores on GLUE's own dev set need its list of pairs, %s.tsv, in this folder",
            files["train"],
            held_out,
            len(training),
            MRPC_DEV_IDS,
        )
    examples = from_records(training, columns=task.columns, source=str(files["train"]), minus_one_is_unknown=True)
    check_labels(task, examples, str(files["train"]))
    pairs = list(zip(examples, in_dev, strict=True))
    splits = {
        "train": [example for example, is_held_out in pairs if not is_held_out],
        "validation": [example for example, is_held_out in pairs if is_held_out],
    }
    if "test" in files:
        columns = Columns(task.columns.text, task.columns.text_pair)
        splits["test"] = from_records(
            _mrpc_records(files["test"], on_bad_text), columns=columns, source=str(files["test"])
        )
    return splits


def is_original_mrpc(train: Path | None) -> bool:
    return train is not None and train.name.startswith(MRPC_ORIGINALS["train"])


def _mrpc_records(file: Path, on_bad_text: OnBadText) -> list[Record]:
    """The rows, with or without a header line."""
    has_header = read_bytes(file)[:64].removeprefix(b"\xef\xbb\xbf").lower().startswith(b"quality")
    names = None if has_header else MRPC_COLUMNS
    records = read_records(file, columns=names, on_bad_text=on_bad_text, tabs=True)
    if lacking := [name for name in MRPC_COLUMNS if name not in records[0]]:
        raise ValueError(f"{file}: its header has no column {listed(lacking)}; MRPC's are {', '.join(MRPC_COLUMNS)}")
    return records


def task_files(task: GlueTask, directory: str | Path, *, train: bool = True) -> dict[str, Path]:
    """Split -> file in DIRECTORY or DIRECTORY/<task's folder>.

    dev must exist, train too unless `train` is False; test files are optional. MRPC may lie there as its two original
    files, of which that of training is the dev set too. Raises ValueError naming what is missing.
    """
    root = Path(directory)
    folder = root / task.folder if (root / task.folder).is_dir() else root
    if task.name == "mrpc" and not any(_find(folder, stem) for stem in ("train", "dev")):
        originals = {split: _find(folder, stem, (".txt", ".tsv")) for split, stem in MRPC_ORIGINALS.items()}
        if originals["train"] is not None:
            return {split: file for split, file in originals.items() if file is not None}
    files = {}
    for split, stem in (task.files or EASY_SPLITS).items():
        file = _find(folder, stem)
        if file is not None:
            files[split] = file
        elif not split.startswith("test") and (train or split != "train"):
            lacks = f"with no folder {task.folder} in it" if root.is_dir() else "no such folder"
            place = f"{folder}" if folder != root else f"{root} ({lacks})"
            raise ValueError(f"{place}: no {stem}.tsv (plain or packed); {task.title} needs it, check --data_dir")
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
    """ValueError naming the first example whose label is not one of the task's, nor in its range, nor unknown."""
    for number, example in enumerate(examples):
        if not _is_valid(task, example.label):
            wanted = " or ".join(task.labels) or f"a number from {task.score_range}"
            raise ValueError(
                f"{source}, row {number}: the label is {shown(example.label)}; {task.title} needs {wanted}"
            )


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


def _find(folder: Path, stem: str, endings: Sequence[str] = (".tsv",)) -> Path | None:
    files = (folder / f"{stem}{ending}{suffix}" for ending in endings for suffix in PACKED_SUFFIXES)
    return next((file for file in files if file.is_file()), None)
